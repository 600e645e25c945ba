"""Label maps, one class for each pixel: how many pixels are right, and how well regions and their edges agree.

K: classes. The truth's IGNORE pixels are left out of everything. All numbers but the boundary's come from one table of
counts, which grows picture by picture: memory does not depend on how many there are.

Pixel and mean accuracy, mean IoU and frequency weighted IoU are those of Long, Shelhamer, Darrell, "Fully Convolutional
Networks for Semantic Segmentation", CVPR 2015, section 5. Boundary F is that of Csurka, Larlus, Perronnin, "What is a
good evaluation measure for semantic segmentation?", BMVC 2013: pixels at the edge of a class are right when the other
side has an edge of the class within 0.75 % of the picture's diagonal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg.annotations.semantic import IGNORE, SemanticSet
from detseg.errors import DataError

TOLERANCE = 0.0075  # of the diagonal: how far edges may lie apart


@dataclass(frozen=True)
class SemanticClass:
    """One class: `pixels` of it in the truth, `images` that show it, and how well they were found.

    accuracy: share of its pixels that are found (recall); precision: share of the pixels said to be it that are;
    iou, dice: of its region over all pictures together; boundary_f: mean over the pictures that show it on either
    side. -1 where there is nothing to measure.
    """

    name: str
    id: int
    images: int
    pixels: int
    accuracy: float
    precision: float
    iou: float
    dice: float
    boundary_f: float


@dataclass(frozen=True)
class SemanticMetrics:
    """Over all classes. mean_accuracy: mean over classes that are there; miou, dice, boundary_f: over classes that are
    there or were said to be (which count as missed throughout); fwiou: IoU weighted by how frequent a class is.

    `per_picture`: mean IoU of each picture alone, in the set's order; -1 for one without any pixel that counts.
    """

    pixel_accuracy: float
    mean_accuracy: float
    miou: float
    fwiou: float
    dice: float
    boundary_f: float
    images: int
    pixels: int
    per_class: tuple[SemanticClass, ...]
    per_picture: tuple[float, ...]
    confusion: NDArray[np.int64]

    def numbers(self) -> dict[str, float]:
        """The overall numbers by name."""
        return {name: getattr(self, name) for name in OVERALL}

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values; confusion[i][j]: pixels of class i said to be j, the last column none."""
        return {**asdict(self), "confusion": self.confusion.tolist()}


OVERALL = ("pixel_accuracy", "mean_accuracy", "miou", "fwiou", "dice", "boundary_f")


def evaluate_label_maps(truth: SemanticSet, maps: Iterable[NDArray[np.uint8]]) -> SemanticMetrics:
    """Compares label maps, (h, w) class index or IGNORE for "no class", one a picture in the set's order.

    Raises DataError for a map of another size than its picture's truth, ValueError for one map too many or too few
    and for a value that is no class.
    """
    size = len(truth.categories)
    counts = _Counts(size)
    for image, found in zip(range(len(truth)), maps, strict=True):
        there = truth.label_map(image)
        if found.shape != there.shape:
            raise DataError(
                f"{truth.image_path(image)}: its label map is {found.shape[1]}x{found.shape[0]}, "
                f"the truth's {there.shape[1]}x{there.shape[0]}"
            )
        counts.add(there, found)
    return counts.metrics(truth)


class _Counts:
    """What is known after some pictures: confusion (K, K + 1), and the boundaries' sums (K,)."""

    def __init__(self, size: int) -> None:
        self.confusion = np.zeros((size, size + 1), np.int64)
        self.f_sum, self.f_count = np.zeros(size), np.zeros(size, np.int64)
        self.shown = np.zeros(size, np.int64)
        self.per_picture: list[float] = []

    def add(self, there: NDArray[np.uint8], found: NDArray[np.uint8]) -> None:
        """One picture more."""
        mine = confusion(there, found, len(self.shown))
        self.confusion += mine
        self.shown += mine.sum(axis=1) > 0
        self.per_picture.append(_mean(_ratios(mine)[2]))
        found = np.where(there == IGNORE, np.uint8(IGNORE), found)
        reach = TOLERANCE * float(np.hypot(*there.shape))
        for label in np.flatnonzero(mine.sum(axis=1) + mine.sum(axis=0)[:-1]).tolist():
            score = boundary_f(there, found, label, reach)
            if score is not None:
                self.f_sum[label] += score
                self.f_count[label] += 1

    def metrics(self, truth: SemanticSet) -> SemanticMetrics:
        """The numbers so far."""
        accuracy, precision, iou, dice = _ratios(self.confusion)
        numbers = overall(self.confusion)
        edges = np.divide(self.f_sum, self.f_count, out=np.full(len(iou), -1.0), where=self.f_count > 0)
        pixels = self.confusion.sum(axis=1)
        columns = zip(
            self.shown.tolist(),
            pixels.tolist(),
            *(c.tolist() for c in (accuracy, precision, iou, dice, edges)),
            strict=True,
        )
        names = zip(truth.categories.names, truth.categories.ids, strict=True)
        return SemanticMetrics(
            **numbers,
            boundary_f=_mean(edges),
            images=len(truth),
            pixels=int(pixels.sum()),
            per_class=tuple(SemanticClass(*name, *row) for name, row in zip(names, columns, strict=True)),
            per_picture=tuple(self.per_picture),
            confusion=self.confusion,
        )


def overall(counts: NDArray[np.int64]) -> dict[str, float]:
    """The numbers of `SemanticMetrics` over all classes that a table (K, K + 1) as of `confusion` tells."""
    accuracy, _, iou, dice = _ratios(counts)
    pixels, right = counts.sum(axis=1), np.diagonal(counts)
    total = int(pixels.sum())
    return {
        "pixel_accuracy": float(right.sum() / total) if total else -1.0,
        "mean_accuracy": _mean(accuracy),
        "miou": _mean(iou),
        "fwiou": float(np.sum(pixels / total * np.maximum(iou, 0))) if total else -1.0,
        "dice": _mean(dice),
    }


def confusion(there: NDArray[np.uint8], found: NDArray[np.uint8], size: int) -> NDArray[np.int64]:
    """(K, K + 1) pixels of class i that were said to be j, in the last column to be nothing; IGNORE left out.

    Raises ValueError for a value that is no class.
    """
    counted = there != IGNORE
    theirs, ours = there[counted].astype(np.int64), found[counted].astype(np.int64)
    ours[ours == IGNORE] = size
    for side, beyond in ((theirs, size), (ours, size + 1)):
        if side.max(initial=0) >= beyond:
            raise ValueError(f"a label map holds class {side.max()}, and there are {size}")
    return np.bincount(theirs * (size + 1) + ours, minlength=size * (size + 1)).reshape(size, size + 1)


def boundary_f(there: NDArray[np.uint8], found: NDArray[np.uint8], label: int, reach: float) -> float | None:
    """F measure of the edges of one class, which may lie `reach` pixels apart; None where neither side has any.

    An edge is a pixel of the class beside (left, right, above, below) one of another class; the picture's own edge
    and IGNORE pixels are no other class.
    """
    ours, theirs = _edge(found, label), _edge(there, label)
    if not ours.any() and not theirs.any():
        return None
    if not ours.any() or not theirs.any():
        return 0.0
    precision = float(np.mean(_distance(theirs)[ours] <= reach))
    recall = float(np.mean(_distance(ours)[theirs] <= reach))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _edge(labels: NDArray[np.uint8], label: int) -> NDArray[np.bool_]:
    """(h, w) the pixels of the class that lie beside another one."""
    mine = labels == label
    other = ~mine & (labels != IGNORE)
    near = np.zeros_like(mine)
    near[1:] |= other[:-1]
    near[:-1] |= other[1:]
    near[:, 1:] |= other[:, :-1]
    near[:, :-1] |= other[:, 1:]
    return mine & near


def _distance(marked: NDArray[np.bool_]) -> NDArray[Any]:
    """(h, w) from the middle of each pixel to that of the nearest marked one."""
    return cv2.distanceTransform((~marked).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _ratios(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    """(K,) accuracy, precision, IoU, Dice; -1 where nothing is measured."""
    right, theirs, ours = np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)[:-1]
    pairs = ((right, theirs), (right, ours), (right, theirs + ours - right), (2 * right, theirs + ours))
    return tuple(np.divide(a, b, out=np.full(len(right), -1.0), where=b > 0) for a, b in pairs)


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of what is defined; -1 where nothing is."""
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else -1.0
