"""From what a segmenter says of a frame to the classes of a picture's pixels."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg.preprocess import Placement

Logits = NDArray[np.float32]


def picture_labels(logits: Logits, placement: Placement) -> NDArray[np.uint8]:
    """(K, H, W) logits of a frame -> (h, w) the likeliest class of each pixel of the picture that was laid into it.

    What is enlarged are the logits, one class after the other, so that edges are smooth and memory is that of a few
    pictures however many classes there are. Of equal ones the first class counts.
    """
    (h, w), (content_h, content_w) = placement.image_hw, placement.content_hw
    left, top = round(placement.offset_xy[0]), round(placement.offset_xy[1])
    shown = logits[:, top : top + content_h, left : left + content_w]
    best = np.zeros((h, w), np.uint8)
    highest: NDArray[np.float32] | None = None
    for index, plane in enumerate(shown):
        scores = _resized(plane, (h, w))
        if highest is None:
            highest = scores
            continue
        better = scores > highest
        best[better] = index
        np.maximum(highest, scores, out=highest)
    return best


def shares(logits: Logits, axis: int = 1) -> Logits:
    """The same as probabilities: softmax over the classes."""
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    total: Logits = powers / powers.sum(axis=axis, keepdims=True)
    return total


def _resized(plane: Logits, hw: tuple[int, int]) -> Logits:
    if plane.shape == hw:
        return plane.copy()
    shrinks = hw[0] <= plane.shape[0] and hw[1] <= plane.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(plane), (hw[1], hw[0]), interpolation=how), np.float32)
