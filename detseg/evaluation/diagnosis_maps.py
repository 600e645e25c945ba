"""Why are the numbers of label maps what they are: intervals, and the pictures that went worst."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.annotations.semantic import SemanticSet
from detseg.evaluation.bootstrap import Interval, draw, interval
from detseg.evaluation.label_maps import confusion
from detseg.evaluation.matching import Floats

LabelMap = NDArray[np.uint8]  # (h, w) class index, IGNORE where there is none
_WORST = 50


@dataclass(frozen=True)
class WorstMap:
    """One picture: mean IoU over the classes that it shows or was said to show, and its share of right pixels."""

    picture: int
    file: str
    miou: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class MapDiagnosis:
    """Intervals of the overall numbers and of each class's IoU; the pictures with the lowest mean IoU, worst first."""

    miou: Interval
    pixel_accuracy: Interval
    class_iou: tuple[Interval, ...]
    worst: tuple[WorstMap, ...]
    resamples: int
    seed: int
    level: float

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class MapEvidence:
    """(N, K) pixels of each class in each picture: right, annotated, said to be it. All numbers are ratios of sums."""

    right: Floats
    annotated: Floats
    said: Floats

    @classmethod
    def of(cls, truth: SemanticSet, read: Callable[[int], LabelMap]) -> MapEvidence:
        """`read` gives the predicted map of a picture."""
        size = len(truth.categories)
        table = np.zeros((3, len(truth), size))
        for image in range(len(truth)):
            counts = confusion(truth.label_map(image), read(image), size)
            table[:, image] = np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)[:size]
        return cls(*table)

    def summaries(self, weights: NDArray[np.int32]) -> dict[str, Floats]:
        """(B, N) how often each picture counts -> mIoU and pixel accuracy (B,), IoU of classes (B, K)."""
        right, annotated, said = (weights @ sums for sums in (self.right, self.annotated, self.said))
        iou = _ratio(right, annotated + said - right)
        shown = ~np.isnan(iou)
        mean = _ratio(np.where(shown, iou, 0).sum(axis=1), shown.sum(axis=1))
        return {"miou": mean, "pixel_accuracy": _ratio(right.sum(axis=1), annotated.sum(axis=1)), "class_iou": iou}


@dataclass(frozen=True)
class MapComparison:
    """Two sets of label maps of the same pictures: both sides, and the difference second - first."""

    first: MapIntervals
    second: MapIntervals
    difference: MapIntervals

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class MapIntervals:
    """mIoU, pixel accuracy and the IoU of each class."""

    miou: Interval
    pixel_accuracy: Interval
    class_iou: tuple[Interval, ...]


def diagnose_maps(
    truth: SemanticSet, evidence: MapEvidence, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> MapDiagnosis:
    """Of predicted label maps, from what `MapEvidence.of` counted."""
    sure = _intervals(_point(evidence), evidence.summaries(draw(len(truth), resamples, seed)), level)
    alone = evidence.summaries(np.eye(len(truth), dtype=np.int32))
    order = np.argsort(np.nan_to_num(alone["miou"], nan=2.0), kind="stable")
    order = order[~np.isnan(alone["miou"][order])][:_WORST]
    worst = (
        WorstMap(i, truth.image_files[i], float(alone["miou"][i]), float(np.nan_to_num(alone["pixel_accuracy"][i])))
        for i in order.tolist()
    )
    return MapDiagnosis(sure.miou, sure.pixel_accuracy, sure.class_iou, tuple(worst), resamples, seed, level)


def compare_maps(
    first: MapEvidence, second: MapEvidence, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> MapComparison:
    """Paired, as `bootstrap.compare`. Raises ValueError when the two are not of the same pictures and classes."""
    if first.right.shape != second.right.shape:
        raise ValueError("only label maps of the same pictures and classes can be compared")
    weights = draw(len(first.right), resamples, seed)
    points, drawn = ([_point(e) for e in (first, second)], [e.summaries(weights) for e in (first, second)])
    for sides in (points, drawn):
        sides.append({name: sides[1][name] - sides[0][name] for name in sides[0]})
    return MapComparison(*(_intervals(p, d, level) for p, d in zip(points, drawn, strict=True)))


def _point(evidence: MapEvidence) -> dict[str, Floats]:
    return evidence.summaries(np.ones((1, len(evidence.right)), np.int32))


def _intervals(point: dict[str, Floats], drawn: dict[str, Floats], level: float) -> MapIntervals:
    classes = zip(point["class_iou"][0].tolist(), drawn["class_iou"].T, strict=True)
    miou, right = (interval(float(point[name][0]), drawn[name], level) for name in ("miou", "pixel_accuracy"))
    return MapIntervals(miou, right, tuple(interval(value, column, level) for value, column in classes))


def _ratio(a: Floats, b: Floats) -> Floats:
    """a / b, not a number where there is nothing to measure."""
    return np.divide(a, b, out=np.full(np.shape(b), np.nan), where=b > 0)
