"""From what a segmenter says of a frame to the classes of a picture's pixels.

Or what several say, or one of several views: the mean of their probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg.preprocess import Placement

Logits = NDArray[np.float32]


class MapAnswer(NamedTuple):
    """What was said of one frame: logits (K, H, W), mirrored back, how the picture lies in it, how much it counts.

    `planes` (K,): for each class, in the order that all answers share, the plane that speaks of it.
    """

    logits: Logits
    placement: Placement
    weight: float = 1.0
    planes: NDArray[np.int64] | None = None


def mean_labels(answers: Sequence[MapAnswer]) -> NDArray[np.uint8]:
    """Several answers to one picture -> (h, w) the class that is likeliest by the weighted mean of probabilities.

    Logits are enlarged, so that edges are smooth, and then become probabilities, one class after the other: beside a
    few planes of the picture there is one for each answer, however many classes there are. In double precision: equal
    answers say together what each says alone. Of equal classes the first counts.
    """
    if len(answers) == 1:  # no need of probabilities
        return _highest(_planes(answers[0]), answers[0].placement.image_hw)[0]
    return sure_labels(answers)[0]


def sure_labels(answers: Sequence[MapAnswer]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The same, and (h, w) the probability of each pixel's class."""
    norms = [_log_sum(answer) for answer in answers]
    whole = sum(answer.weight for answer in answers)

    def means() -> Iterator[NDArray[np.float64]]:
        for planes in zip(*map(_planes, answers), strict=True):
            terms = zip(planes, norms, answers, strict=True)
            yield np.sum([answer.weight * np.exp(plane - norm) for plane, norm, answer in terms], axis=0)

    labels, highest = _highest(means(), answers[0].placement.image_hw)
    return labels, np.minimum(highest / whole, 1).astype(np.float32)


def _planes(answer: MapAnswer) -> Iterator[Logits]:
    """Each class's logits in the picture's pixels."""
    placement = answer.placement
    (h, w), (content_h, content_w) = placement.image_hw, placement.content_hw
    left, top = round(placement.offset_xy[0]), round(placement.offset_xy[1])
    order = range(len(answer.logits)) if answer.planes is None else answer.planes.tolist()
    for index in order:
        yield resized(answer.logits[index, top : top + content_h, left : left + content_w], (h, w))


def _log_sum(answer: MapAnswer) -> NDArray[np.float64]:
    """(h, w) what logits lose to become logarithms of probabilities."""
    highest: Logits | None = None
    for plane in _planes(answer):
        highest = plane if highest is None else np.maximum(highest, plane, out=highest)
    assert highest is not None
    exact = highest.astype(np.float64)
    total = np.zeros_like(exact)
    for plane in _planes(answer):
        total += np.exp(plane - exact)
    return np.asarray(exact + np.log(total))


def _highest(
    planes: Iterator[NDArray[np.floating[Any]]], hw: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.floating[Any]]]:
    """(h, w) the first of the planes that is highest, and how high it is."""
    best = np.zeros(hw, np.uint8)
    highest: NDArray[np.floating[Any]] | None = None
    for index, scores in enumerate(planes):
        if highest is None:
            highest = scores
            continue
        better = scores > highest
        best[better] = index
        np.maximum(highest, scores, out=highest)
    assert highest is not None
    return best, highest


def shares(logits: Logits, axis: int = 1) -> Logits:
    """The same as probabilities: softmax over the classes."""
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    total: Logits = powers / powers.sum(axis=axis, keepdims=True)
    return total


def resized(plane: Logits, hw: tuple[int, int]) -> Logits:
    """(H, W) one class's plane at another size; a copy."""
    if plane.shape == hw:
        return plane.copy()
    shrinks = hw[0] <= plane.shape[0] and hw[1] <= plane.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(plane), (hw[1], hw[0]), interpolation=how), np.float32)
