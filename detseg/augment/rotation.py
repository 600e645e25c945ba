"""Pictures turned by small angles, with boxes that follow.

The box around a turned box's corners grows with the angle and soon holds more than the object. Where an object has an
outline its box is that of the turned outline. Where it has none, it is taken for the ellipse inscribed in its box:
A. Kalra, G. Stoppi, B. Brown, R. Agarwal, A. Kadambi: Towards Rotation Invariance in Object Detection, 2021, arXiv
2109.13488.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg.annotations.semantic import IGNORE
from detseg.augment.layouts import FILL
from detseg.augment.sample import Sample, Window, seen


def rotated(sample: Sample, degrees: float) -> Sample:
    """The sample turned counter-clockwise about its middle, its picture's size kept.

    What turns out of the picture is cut off as in every layout; what comes in is grey, and IGNORE in a label map.
    """
    h, w = sample.image.shape[:2]
    matrix = _about_the_middle((h, w), degrees)
    # the map of continuous pixels as one of their middles
    middles = np.concatenate([matrix[:, :2], (matrix @ [0.5, 0.5, 1] - 0.5)[:, None]], axis=1)
    image = cv2.warpAffine(sample.image, middles, (w, h), flags=cv2.INTER_LINEAR, borderValue=(FILL,) * 3)
    label_map = sample.label_map
    if label_map is not None:
        drawn = cv2.warpAffine(label_map, middles, (w, h), flags=cv2.INTER_NEAREST, borderValue=IGNORE)
        label_map = np.asarray(drawn, np.uint8)
    boxes, masks = ellipse_boxes(sample.boxes, matrix), sample.masks
    if masks is not None:
        masks = masks.warped(matrix)
        known = masks.outlined & (masks.areas() > 0)
        boxes = np.where(known[:, None], masks.boxes(), boxes)
        masks = masks.moved((1.0, 1.0), (0.0, 0.0), (0, 0, w, h))
    turned = replace(sample, image=np.asarray(image, np.uint8), boxes=boxes, masks=masks, label_map=label_map)
    return seen(turned, Window(0, 0, w, h))


def ellipse_boxes(boxes: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    """(n, 4) xyxy -> (n, 4) the boxes around the ellipses inscribed in them after a (2, 3) affine map."""
    exact = boxes.astype(np.float64)
    centres, halves = (exact[:, :2] + exact[:, 2:]) / 2, (exact[:, 2:] - exact[:, :2]) / 2
    middle = centres @ matrix[:, :2].T + matrix[:, 2]
    # the farthest point of x -> A (a cos t, b sin t) along an axis is at the length of that row of A diag(a, b)
    reach = np.sqrt(halves**2 @ (matrix[:, :2] ** 2).T)
    return np.concatenate([middle - reach, middle + reach], axis=1).astype(np.float32)


def _about_the_middle(hw: tuple[int, int], degrees: float) -> NDArray[np.float64]:
    """(2, 3) of continuous pixels; y points down, so that this is counter-clockwise to the eye."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[cos, sin], [-sin, cos]])
    middle = np.array([hw[1], hw[0]]) / 2
    return np.concatenate([turn, (middle - turn @ middle)[:, None]], axis=1)
