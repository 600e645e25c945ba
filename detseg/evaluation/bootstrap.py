"""How sure are the numbers: bootstrap over pictures (Efron and Tibshirani 1993, ch. 13), also paired.

A resample draws as many pictures as there are, with repetition. Matching never looks beyond a picture, so it is done
once: what a resample changes is how often each picture counts, and AP is recomputed from these weights alone.
n: detections, N: pictures, K: classes, T: overlap thresholds, B: resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet
from detseg.annotations.outlines import Outlines
from detseg.evaluation.matching import Floats, Integers, Matches, Pairs, by_score, match, overlaps

IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
_RECALLS = np.linspace(0, 1, 101)
# rounding puts some of the recall points k / 100 a hair above the quotient they stand for, as in pycocotools
_REACHED = np.arange(101) / 100 >= _RECALLS
_BLOCK = 1_000_000  # weights worked on at once: what fits into the processor's cache is faster


@dataclass(frozen=True)
class Interval:
    """A number and where it lies with the probability `level`; None where there is nothing to measure."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def excludes_zero(self) -> bool:
        """The whole interval lies on one side of 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def verdict(difference: Interval) -> str:
    """What a difference says, in plain words: better, worse or cannot be told apart."""
    if difference.value is None:
        return "nothing to compare"
    if not difference.excludes_zero:
        return "cannot be told apart"
    return "better" if (difference.low or 0) > 0 else "worse"


def in_words(number: str, difference: Interval) -> str:
    """The difference as a sentence: "These results are better than the others in AP, by 0.042 (0.010 to 0.071)." """
    said = verdict(difference)
    if difference.value is None or difference.low is None or difference.high is None:
        return f"In {number} there is nothing to compare."
    if not difference.excludes_zero:
        low, high = f"{difference.low:+.3f}", f"{difference.high:+.3f}"
        return f"In {number} the two cannot be told apart: the difference is {difference.value:+.3f} ({low} to {high})."
    ends = sorted((abs(difference.low), abs(difference.high)))
    by = f"{abs(difference.value):.3f} ({ends[0]:.3f} to {ends[1]:.3f})"
    return f"These results are {said} than the others in {number}, by {by}."


@dataclass(frozen=True)
class Intervals:
    """AP, AP50 and those of each class in the order of the classes, from `resamples` draws of the pictures."""

    ap: Interval
    ap50: Interval
    class_ap: tuple[Interval, ...]
    class_ap50: tuple[Interval, ...]
    resamples: int
    seed: int
    level: float

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """Two sets of detections on the same pictures: both sides, and the difference second - first."""

    first: Intervals
    second: Intervals
    difference: Intervals

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class _OfClass:
    """One class: `pictures` (n,) of its detections, best first; for each threshold the places of right and of
    ignored ones among them; `objects` (N,) to be found in each picture."""

    pictures: Integers
    right: tuple[Integers, ...]
    ignored: tuple[Integers, ...]
    objects: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What AP is made of, picture by picture."""

    images: int
    classes: tuple[_OfClass, ...]
    ious: tuple[float, ...] = IOUS

    @classmethod
    def of(
        cls,
        truth: AnnotationSet,
        rows: Floats,
        max_dets: int = 100,
        *,
        pairs: Pairs | None = None,
        outlines: Outlines | None = None,
    ) -> Evidence:
        """From detections (n, 7), see `result_rows`; `pairs` are their `overlaps`, where they are at hand."""
        pairs = overlaps(truth, rows, outlines=outlines) if pairs is None else pairs
        matches = [match(truth, rows, iou, pairs=pairs, max_dets=max_dets) for iou in IOUS]
        order = by_score(truth, rows)
        order = order[matches[0].counted[order]]
        labels = rows[order, 6].astype(np.int64)
        parts = (order[labels == k] for k in range(len(truth.categories)))
        return cls(len(truth), tuple(_of_class(truth, rows, k, mine, matches) for k, mine in enumerate(parts)))

    def average_precision(self, weights: NDArray[np.int32]) -> Floats:
        """(B, N) how often each picture counts -> (B, K, T) AP; not a number where a class has no object."""
        table = np.full((len(weights), len(self.classes), len(self.ious)), np.nan)

        def fill(job: tuple[int, slice]) -> None:
            k, block = job
            table[block, k] = _class_ap(self.classes[k], weights[block])

        with ThreadPoolExecutor() as threads:  # numpy lets go of the interpreter while it computes
            list(threads.map(fill, self._jobs(len(weights))))
        return table

    def _jobs(self, resamples: int) -> Iterator[tuple[int, slice]]:
        for k, mine in enumerate(self.classes):
            step = max(1, _BLOCK // max(1, len(mine.pictures), self.images))
            yield from ((k, slice(start, start + step)) for start in range(0, resamples, step))


def draw(images: int, resamples: int, seed: int) -> NDArray[np.int32]:
    """(B, N) how often each picture is in each resample; the same for the same seed."""
    generator = np.random.default_rng(seed)
    weights = np.zeros((resamples, images), np.int32)
    for row in weights if images else ():
        row += np.bincount(generator.integers(0, images, images), minlength=images).astype(np.int32)
    return weights


def intervals(evidence: Evidence, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> Intervals:
    """Bias-corrected percentile intervals of AP, AP50 and those of each class."""
    drawn = evidence.average_precision(draw(evidence.images, resamples, seed))
    return _between(_summaries(_point(evidence)), _summaries(drawn), resamples, seed, level)


def compare(first: Evidence, second: Evidence, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> Comparison:
    """Both sides and their difference, on the same resamples: what makes a picture hard weighs on both.

    Raises ValueError when the two are not of the same pictures and classes.
    """
    if (first.images, len(first.classes)) != (second.images, len(second.classes)):
        raise ValueError("only detections on the same pictures and classes can be compared")
    weights = draw(first.images, resamples, seed)
    points = [_summaries(_point(side)) for side in (first, second)]
    drawn = [_summaries(side.average_precision(weights)) for side in (first, second)]
    points.append(_less(*points))
    drawn.append(_less(*drawn))
    return Comparison(*(_between(p, d, resamples, seed, level) for p, d in zip(points, drawn, strict=True)))


# ---- average precision from weights ----


def _of_class(truth: AnnotationSet, rows: Floats, k: int, mine: Integers, matches: list[Matches]) -> _OfClass:
    counted = ~truth.ignored & (truth.labels == k)
    objects = np.bincount(truth.image_index[counted], minlength=len(truth)).astype(np.int32)
    return _OfClass(
        rows[mine, 0].astype(np.int64),
        tuple(np.flatnonzero(m.right[mine]) for m in matches),
        tuple(np.flatnonzero(m.ignored[mine]) for m in matches),
        objects,
    )


def _class_ap(mine: _OfClass, weights: NDArray[np.int32]) -> Floats:
    """(b, N) weights -> (b, T) AP of one class."""
    objects = weights @ mine.objects  # (b,)
    of_detections = np.take(weights, mine.pictures, axis=1)
    seen = np.cumsum(of_detections, axis=1, dtype=np.int32)
    columns = [
        _ap(of_detections, seen, right, ignored, objects)
        for right, ignored in zip(mine.right, mine.ignored, strict=True)
    ]
    table = np.stack(columns, axis=1)
    table[objects == 0] = np.nan
    return table


def _ap(
    weights: NDArray[np.int32], seen: NDArray[np.int32], right: Integers, ignored: Integers, objects: NDArray[np.int32]
) -> Floats:
    """(b,) AP by COCO's 101 recall points, from what happens at the right detections alone.

    Between two right ones recall stays and precision falls, so that only they can carry the envelope.
    """
    if not len(right):
        return np.zeros(len(weights))
    hits = np.cumsum(weights[:, right], axis=1, dtype=np.int32)
    shown = seen[:, right]
    if len(ignored):
        regions = np.cumsum(weights[:, ignored], axis=1, dtype=np.int32)
        before = np.searchsorted(ignored, right)
        shown = shown - np.where(before > 0, regions[:, before - 1], 0)
    precision = hits / np.maximum(shown, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = _points_reached(hits, objects)
    return np.einsum("bj,bj->b", envelope, np.diff(reached, axis=1, prepend=0)) / len(_RECALLS)


def _points_reached(hits: NDArray[np.int32], objects: NDArray[np.int32]) -> NDArray[np.integer[Any]]:
    """(b, j) how many of the recall points 0, 0.01, ... 1 are not above the recall at each right detection."""
    # 32 bits, which divide faster, hold 100 times 20 million objects
    hundredfold, each = 100 * hits, np.maximum(objects, 1)[:, None]
    percent = hundredfold // each
    # below a quotient that is no whole percent all points are reached; beside one that is, rounding decides
    return np.where(hits > 0, percent + ((percent * each < hundredfold) | _REACHED[percent]), 0)


# ---- from resamples to intervals ----


def _point(evidence: Evidence) -> Floats:
    return evidence.average_precision(np.ones((1, evidence.images), np.int32))


def _summaries(table: Floats) -> dict[str, Floats]:
    """(B, K, T) -> AP and AP50 (B,), and of the classes (B, K); not a number where there is nothing to find."""
    class_ap, class_ap50 = table.mean(axis=2), table[:, :, 0]
    return {"ap": _mean(class_ap), "ap50": _mean(class_ap50), "class_ap": class_ap, "class_ap50": class_ap50}


def _mean(table: Floats) -> Floats:
    """(B, K) -> (B,) over the classes that a resample shows."""
    shown = ~np.isnan(table)
    count = shown.sum(axis=1)
    total = np.where(shown, table, 0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(table), np.nan), where=count > 0)


def _less(first: dict[str, Floats], second: dict[str, Floats]) -> dict[str, Floats]:
    """second - first."""
    return {name: second[name] - first[name] for name in first}


def _between(point: dict[str, Floats], drawn: dict[str, Floats], resamples: int, seed: int, level: float) -> Intervals:
    def of_classes(name: str) -> tuple[Interval, ...]:
        columns = zip(point[name][0].tolist(), drawn[name].T, strict=True)
        return tuple(interval(value, column, level) for value, column in columns)

    ap, ap50 = (interval(float(point[name][0]), drawn[name], level) for name in ("ap", "ap50"))
    return Intervals(ap, ap50, of_classes("class_ap"), of_classes("class_ap50"), resamples, seed, level)


def interval(value: float, drawn: Floats, level: float) -> Interval:
    """The bias-corrected percentile interval; resamples in which the number is not defined are left out.

    AP grows a little when pictures are repeated, so that the plain percentiles lie too high; the correction
    moves them by how far `value` is from the middle of the draws (Efron and Tibshirani 1993, sec. 14.3, a = 0).
    """
    defined = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(defined):
        return Interval(None, None, None)
    normal = NormalDist()
    below = np.count_nonzero(defined < value) + np.count_nonzero(defined == value) / 2
    shift = 2 * normal.inv_cdf(float(np.clip(below / len(defined), 0.5 / len(defined), 1 - 0.5 / len(defined))))
    tail = normal.inv_cdf((1 - level) / 2)
    low, high = np.quantile(defined, [normal.cdf(shift + tail), normal.cdf(shift - tail)]).tolist()
    return Interval(value, low, high)
