"""What is right, false and missed once scores below a threshold are dropped: one point of a detector's curve."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from detseg.annotations import AnnotationSet
from detseg.annotations.outlines import Outlines
from detseg.evaluation.matching import Floats, by_score, match, overlaps

IOU = 0.5


@dataclass(frozen=True)
class OperatingPoint:
    """Counts over all classes, of detections with a score of at least `score` that overlap an object by `iou`."""

    score: float
    iou: float
    right: int
    false: int
    missed: int

    @property
    def precision(self) -> float:
        """Share of what was found that is right; -1 where nothing was found."""
        return _share(self.right, self.right + self.false)

    @property
    def recall(self) -> float:
        """Share of the objects that was found; -1 where there is none."""
        return _share(self.right, self.right + self.missed)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; -1 where there is nothing on either side."""
        return _share(2 * self.right, 2 * self.right + self.false + self.missed)

    @property
    def agreement(self) -> float:
        """right / (right + false + missed), by which the Data Science Bowl of 2018 counted nuclei; -1 as `f1`."""
        return _share(self.right, self.right + self.false + self.missed)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        named = {name: getattr(self, name) for name in ("precision", "recall", "f1", "agreement")}
        return {**asdict(self), **named}


def operating_point(
    truth: AnnotationSet,
    rows: Floats,
    *,
    outlines: Outlines | None = None,
    score: float | None = None,
    max_dets: int | None = 100,
) -> OperatingPoint:
    """Of detections (n, 7): picture index, x, y, w, h, score, class index, at a threshold of `score`.

    None: the threshold at which F1 and agreement are highest. With `outlines` (n) overlaps are those of masks. Ignored
    objects, and what lies on them, count neither way.
    """
    matches = match(truth, rows, IOU, pairs=overlaps(truth, rows, outlines=outlines), max_dets=max_dets)
    order = by_score(truth, rows)
    order = order[matches.counted[order] & ~matches.ignored[order]]
    scores, right = rows[order, 5], matches.right[order]
    objects = int(np.count_nonzero(~truth.ignored))
    hits = np.concatenate([[0], np.cumsum(right)])
    kept = _best(scores, hits, objects) if score is None else int(np.count_nonzero(scores >= score))
    threshold = score if score is not None else float(scores[kept - 1]) if kept else 0.0
    found = int(hits[kept])
    return OperatingPoint(threshold, IOU, found, kept - found, objects - found)


def _best(scores: Floats, hits: Floats, objects: int) -> int:
    """How many of the best detections to keep so that F1 is highest; equal scores are kept or dropped together."""
    if not len(scores):
        return 0
    ends = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True]) + 1
    return int(ends[np.argmax(2 * hits[ends] / (objects + ends))])


def _share(part: int, whole: int) -> float:
    return part / whole if whole else -1.0
