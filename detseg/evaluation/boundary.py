"""Boundary IoU of masks: how well their outlines agree, whatever their size.

Cheng, Girshick, Dollar, Berg, Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR
2021, section 4: the boundary region of a mask holds its pixels within a distance d of its outline, and Boundary IoU is
the IoU of two such regions. As there, d is 2 % of the picture's diagonal (at least 1 pixel), distance is counted in
king's moves, the picture's edge is part of the outline, and average precision takes the smaller of mask IoU and
Boundary IoU, since a region alone does not tell a disc from a ring.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from detseg.annotations import AnnotationSet
from detseg.annotations.outlines import Outlines
from detseg.geometry import rle as run_lengths

SHARE = 0.02  # of the diagonal


def distance(hw: tuple[int, int]) -> int:
    """How far from the outline the boundary region reaches, in pixels, in a picture of this size."""
    return max(1, round(SHARE * float(np.hypot(*hw))))


def region(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """(h, w) the pixels of the mask that are less than `reach` king's moves from a pixel outside it or the picture."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    result = np.zeros_like(mask, np.bool_)
    if not len(rows):
        return result
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inside = np.pad(mask[box].astype(np.uint8), 1)
    core = cv2.erode(inside, np.ones((3, 3), np.uint8), iterations=reach)[1:-1, 1:-1]
    result[box] = mask[box] & (core == 0)
    return result


class Overlaps:
    """The overlaps of masks for `coco_rule.curves`; every mask is drawn when it is needed.

    The smaller of mask IoU and Boundary IoU; with an ignored region the share of the detection that lies in it.
    """

    def __init__(self, truth: AnnotationSet, rows: NDArray[np.float64], outlines: Outlines) -> None:
        self._truth, self._outlines = truth, outlines
        self._picture = rows[:, 0].astype(np.int64)

    def __call__(self, found: NDArray[np.int64], there: NDArray[np.int64]) -> NDArray[np.float64]:
        """(d, g) overlaps of detections and objects of one picture."""
        h, w = self._truth.image_hw[self._picture[found[0]]].tolist()
        ours = [self._outlines.rle(int(row), (h, w)) for row in found]
        theirs = [self._truth.outlines.rle(int(row), (h, w)) for row in there]
        ignored = self._truth.ignored[there]
        overlaps = np.asarray(coco_mask.iou(ours, theirs, ignored.tolist()))
        touching = (overlaps > 0) & ~ignored  # masks that do not touch have no boundary in common either
        rows, columns = np.flatnonzero(touching.any(axis=1)), np.flatnonzero(touching.any(axis=0))
        if len(rows):
            reach = distance((h, w))
            edges = [[_region_of(side[i], reach) for i in some] for side, some in ((ours, rows), (theirs, columns))]
            of_edges = coco_mask.iou(*edges, [False] * len(columns))
            overlaps[np.ix_(rows, columns)] = np.minimum(overlaps[np.ix_(rows, columns)], of_edges)
        return overlaps


def _region_of(coded: dict[str, Any], reach: int) -> dict[str, Any]:
    return run_lengths.encode(region(run_lengths.decode(coded), reach))
