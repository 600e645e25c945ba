"""Objects of one training frame pasted into another, with their masks.

G. Ghiasi, Y. Cui, A. Srinivas, R. Qian, T.-Y. Lin, E. D. Cubuk, Q. V. Le, B. Zoph: Simple Copy-Paste is a Strong Data
Augmentation Method for Instance Segmentation, 2021, arXiv 2012.07177 (sec. 3): both pictures are scaled and placed at
random, a random subset of the objects of one is pasted onto the other, masks and boxes of what they cover are brought
up to date. Without the blending of edges, which the paper found to make little difference.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from detseg.augment.sample import MIN_VISIBLE, Sample, merge
from detseg.geometry.boxes import is_degenerate

LEAST_LEFT = 0.1  # of an object's mask: with less it is gone; up to MIN_VISIBLE it is an ignored region
SHARE = 0.5  # of the objects that are pasted, on average; at least one


def pasted(frame: Sample, source: Sample, rng: Generator) -> Sample:
    """The frame with some objects of a `source` of the same size where they are there.

    Only objects with outlines are pasted, and no ignored ones. Raises ValueError where either has no masks.
    """
    if frame.masks is None or source.masks is None:
        raise ValueError("objects are pasted by their masks")
    able = np.flatnonzero(source.masks.outlined & ~source.ignored & (source.masks.areas() > 0))
    if not len(able):
        return frame
    chosen = able[rng.random(len(able)) < SHARE]
    some = source.select(chosen if len(chosen) else able[rng.integers(len(able))][None])
    assert some.masks is not None
    hw = (frame.image.shape[0], frame.image.shape[1])
    covered: NDArray[np.bool_] = np.logical_or.reduce(some.masks.whole(hw))
    image = np.where(covered[..., None], source.image, frame.image)
    return merge(image, [uncovered(frame, covered), some])


def uncovered(frame: Sample, covered: NDArray[np.bool_]) -> Sample:
    """What is left of the frame's objects where something (h, w) lies over them; their boxes narrowed to it.

    A side of a box moves as far as that side of the mask does: what was drawn loosely stays so.
    """
    masks = frame.masks
    assert masks is not None
    left = masks.without(covered)
    before, after = masks.areas(), left.areas()
    share = after / np.maximum(before, 1)
    boxes = frame.boxes + (left.boxes() - masks.boxes())
    boxes = np.where((after < before)[:, None], boxes, frame.boxes)
    known = replace(frame, boxes=boxes, masks=left, ignored=frame.ignored | (share < MIN_VISIBLE))
    return known.select(((share >= LEAST_LEFT) | (before == 0)) & ~is_degenerate(boxes, 1.0))
