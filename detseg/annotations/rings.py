"""Rings: the borders of masks as closed polygons, and several of them as one. Points (n, 2), xy, in pixels.

A mask's ring runs along the edges of its pixels, so that drawing it gives the mask back, pixel by pixel. Formats
that allow one polygon an object (YOLO) get all rings joined by bridges that are gone over twice, there and back:
a bridge has no area, and what lies inside an odd number of borders is inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from detseg.annotations.not_kept import NotKept
from detseg.annotations.outlines import Segmentation, rle_of
from detseg.geometry import rle as run_lengths

_ROWS = 512  # points compared at once with all others
_ALIKE = 1e-3  # pixels between a box and its outline's
_AS_GOOD = 0.99  # IoU below which joined polygons were overlapping, and the mask is traced instead


def rings_of_mask(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """(h, w) -> the borders of its parts (8-connected) and of their holes, along pixel edges."""
    return rings_of_places(np.flatnonzero(mask.T), mask.shape[0])


def rings_of_places(places: NDArray[np.integer], h: int) -> list[NDArray[np.float64]]:
    """The same of pixels counted column by column in a picture `h` high, as run lengths have them."""
    if not len(places):
        return []
    xs, ys = places // h, places % h
    x, y = int(xs.min()), int(ys.min())
    part = np.zeros((int(ys.max()) - y + 1, int(xs.max()) - x + 1), np.bool_)
    part[ys - y, xs - x] = True
    contours, _ = cv2.findContours(_closed_double(part), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return [_with_corners(c[:, 0].astype(np.int64)) / 2 + (x, y) for c in contours]


def joined(rings: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """All rings as one: each further one is reached from the nearest point, gone round, and left the same way."""
    merged, *rest = sorted(rings, key=lambda ring: -_extent(ring))
    for ring in rest:
        i, j = _nearest(merged, ring)
        merged = np.concatenate([merged[: i + 1], ring[j:], ring[: j + 1], merged[i:]])
    return merged


def one_ring(outline: Segmentation, hw: tuple[int, int]) -> NDArray[np.float64]:
    """The outline as one ring. Empty, (0, 2), for an empty mask. Raises ValueError where it cannot be drawn."""
    if not isinstance(outline, list):
        return _traced(rle_of(outline, hw))
    rings = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in outline]
    if len(rings) == 1:
        return rings[0]
    whole, ring = rle_of(outline, hw), joined(rings)
    again = coco_mask.frPyObjects([ring.ravel().tolist()], *hw)
    alike = coco_mask.iou(again, [whole], [0])[0, 0] >= _AS_GOOD
    return ring if alike else _traced(whole)


def losses_of(ring: NDArray[np.float64], box: NDArray[np.float64], outline: Segmentation) -> list[NotKept]:
    """What is lost when an object is written as one ring: its own box (4,), the parting into several polygons."""
    if len(ring) < 3:
        return [NotKept("outlines", 1, "outlines are empty, their boxes are written")]
    off = float(np.abs(np.concatenate([ring.min(axis=0), ring.max(axis=0)]) - box).max())
    found = [NotKept("boxes", 1, "boxes become those of their outlines, which differ", off)] if off > _ALIKE else []
    if isinstance(outline, list) and len(outline) > 1:
        found.append(NotKept("rings", 1, "outlines of several polygons become one, joined by bridges without area"))
    return found


def _traced(rle: dict[str, Any]) -> NDArray[np.float64]:
    rings = rings_of_places(run_lengths.places(rle), rle["size"][0])
    return joined(rings) if rings else np.zeros((0, 2))


def _closed_double(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(2h + 1, 2w + 1): pixel i covers 2i .. 2i + 2, so that contours run through pixels' corners, doubled."""
    double = np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1)
    closed = np.zeros((double.shape[0] + 1, double.shape[1] + 1), np.uint8)
    for target in (closed[:-1, :-1], closed[1:, :-1], closed[:-1, 1:], closed[1:, 1:]):
        np.bitwise_or(target, double, out=target)
    return closed


def _with_corners(ring: NDArray[np.int64]) -> NDArray[np.int64]:
    """Inner corners, which cv2 cuts by a diagonal step, put back; points on straight lines left out."""
    step = np.roll(ring, -1, axis=0) - ring
    cut = np.abs(step).min(axis=1) == 1
    # of the two ways round a diagonal step, the corner of a pixel is the even point
    bend = np.where(ring % 2 == 0, ring, ring + step)
    place = np.flatnonzero(cut) + 1
    ring = np.insert(ring, place, bend[cut], axis=0)
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    return ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def _extent(ring: NDArray[np.float64]) -> float:
    size = ring.max(axis=0) - ring.min(axis=0)
    return float(size[0] * size[1])


def _nearest(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[int, int]:
    """Indices of the two points, one of each ring, that are nearest to each other."""
    best, pair = np.inf, (0, 0)
    for start in range(0, len(other), _ROWS):
        distance = ((one[:, None] - other[None, start : start + _ROWS]) ** 2).sum(axis=2)
        i, j = np.unravel_index(int(distance.argmin()), distance.shape)
        if distance[i, j] < best:
            best, pair = float(distance[i, j]), (int(i), start + int(j))
    return pair
