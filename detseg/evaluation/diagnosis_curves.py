"""Precision, recall and F1 over the score threshold, and whether scores are the probabilities they look like."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet
from detseg.evaluation.matching import Floats, Integers, Matches, by_score

POINTS = 200  # of a curve: more cannot be seen
BINS = 10


@dataclass(frozen=True, eq=False)
class Curve:
    """What keeping only scores of at least `scores[i]` gives, from the highest threshold down; all arrays (p,).

    Of at most `POINTS` thresholds, the best among them. `best_score` is the threshold of the highest F1, None
    where there is no object or no detection; `objects` is how many there are to find.
    """

    name: str
    objects: int
    scores: Floats
    precision: Floats
    recall: Floats
    f1: Floats
    best: int | None

    @property
    def best_score(self) -> float | None:
        """The threshold with the highest F1."""
        return None if self.best is None else float(self.scores[self.best])

    def at_best(self) -> dict[str, float | None]:
        """Threshold, precision, recall and F1 where F1 is highest."""
        columns = {"score": self.scores, "precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {name: None if self.best is None else float(values[self.best]) for name, values in columns.items()}

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        arrays = {name: getattr(self, name).tolist() for name in ("scores", "precision", "recall", "f1")}
        return {"name": self.name, "objects": self.objects, "best": self.at_best(), **arrays}


@dataclass(frozen=True)
class Bin:
    """The detections with a score from `low` to `high`: how sure they are on average, and how many are right."""

    low: float
    high: float
    count: int
    score: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """Reliability (Guo et al. 2017, sec. 2): `ece` is the mean gap between score and share of right detections,
    weighted by their number; `mce` the largest gap of a bin."""

    bins: tuple[Bin, ...]
    ece: float
    mce: float


def curves(truth: AnnotationSet, rows: Floats, matches: Matches) -> tuple[Curve, tuple[Curve, ...]]:
    """All classes pooled into one count, and each class in the order of the classes."""
    order = by_score(truth, rows)
    order = order[matches.counted[order] & ~matches.ignored[order]]
    right, scores, labels = matches.right[order], rows[order, 5], rows[order, 6].astype(np.int64)
    objects = np.bincount(truth.labels[~truth.ignored], minlength=len(truth.categories)).tolist()
    pooled = _curve("all classes", int(sum(objects)), scores, right)
    by_class = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[by_class], np.arange(len(truth.categories) + 1))
    parts = [by_class[a:b] for a, b in pairwise(starts)]
    named = zip(truth.categories.names, objects, parts, strict=True)
    return pooled, tuple(_curve(name, count, scores[part], right[part]) for name, count, part in named)


def _curve(name: str, objects: int, scores: Floats, right: NDArray[np.bool_]) -> Curve:
    """scores (n,) from high to low, right (n,)."""
    if not len(scores) or not objects:
        none = np.zeros(0)
        return Curve(name, objects, none, none, none, none, None)
    last = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True])  # equal scores are kept or dropped together
    hits, shown = np.cumsum(right)[last], last + 1
    f1 = 2 * hits / (objects + shown)
    best = int(np.argmax(f1))
    kept = _thinned(len(last), best)
    hits, shown, f1, chosen = hits[kept], shown[kept], f1[kept], scores[last[kept]]
    return Curve(name, objects, chosen, hits / shown, hits / objects, f1, int(np.searchsorted(kept, best)))


def _thinned(count: int, must: int) -> Integers:
    """At most `POINTS` of the indices below `count`, evenly spread, first, last and `must` among them."""
    spread = np.linspace(0, count - 1, min(count, POINTS - 1)).round().astype(np.int64)
    return np.union1d(spread, [must])


def calibration(rows: Floats, matches: Matches, bins: int = BINS) -> Calibration | None:
    """Over all detections that count; None where there are none, or where scores are no probabilities."""
    counted = matches.counted & ~matches.ignored
    scores, right = rows[counted, 5], matches.right[counted]
    if not len(scores) or scores.min() < 0 or scores.max() > 1:
        return None
    which = np.minimum((scores * bins).astype(np.int64), bins - 1)
    count = np.bincount(which, minlength=bins)
    some = np.maximum(count, 1)
    mean_score, share = (np.bincount(which, values, minlength=bins) / some for values in (scores, right))
    gap = np.abs(mean_score - share)
    listed = (Bin(i / bins, (i + 1) / bins, int(count[i]), float(mean_score[i]), float(share[i])) for i in range(bins))
    return Calibration(tuple(listed), float(gap @ count / len(scores)), float(gap[count > 0].max()))
