"""PASCAL VOC's average precision, by the rule of its development kit (VOCevaldet, VOCap).

Everingham, Van Gool, Williams, Winn, Zisserman, "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, section
4.2. A class is gone through over all pictures, best score first. A detection belongs to the object of its class that it
overlaps most, difficult or not, taken or not; with an overlap of at least 0.5 it is right if the object is free, wrong
if it is taken already, and counts neither way if the object is difficult (or a crowd). Difficult objects need not be
found.

Pixels: the kit counts them from 1 and includes the last, so that a box is x2 - x1 + 1 wide. Here such a box is x1 - 1,
y1 - 1, x2, y2 with continuous edges, and x2 - x1 wide: the same width, the same overlaps, no + 1 anywhere.

Average precision is the mean of the best precision at recall 0, 0.1, ... 1 (until VOC 2007), or the whole area under
the curve of precision made monotone (since VOC 2010).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet

OVERLAP = 0.5

# As MATLAB spaces 0:0.1:1, from both ends: a recall of 3/10 does not reach the fourth point, there as here.
_STEPS = np.arange(6) * 0.1
RECALLS = np.concatenate([_STEPS[:5], [0.5], 1 - _STEPS[4::-1]])


@dataclass(frozen=True)
class VocClass:
    """One class: `objects` to find (without difficult ones), and its AP by either rule; -1 where there are none."""

    name: str
    id: int
    objects: int
    ap07: float
    ap10: float


@dataclass(frozen=True)
class VocMetrics:
    """Mean AP over the classes that have objects: `map07` 11 points, `map10` area under the curve; -1 without any."""

    map07: float
    map10: float
    overlap: float
    per_class: tuple[VocClass, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)


def evaluate_voc(truth: AnnotationSet, rows: NDArray[np.float64], overlap: float = OVERLAP) -> VocMetrics:
    """Compares detections, rows (n, 7) as `evaluate_rows` takes them, with what is there.

    Equal scores are taken in the order of the rows.
    """
    nearest, iou = _nearest(truth, rows)
    labels = rows[:, 6].astype(np.int64)
    objects = np.bincount(truth.labels[~truth.ignored], minlength=len(truth.categories))
    classes = []
    for label, (id_, name) in enumerate(zip(truth.categories.ids, truth.categories.names, strict=True)):
        mine = np.flatnonzero(labels == label)
        mine = mine[np.argsort(-rows[mine, 5], kind="stable")]
        right, wrong = _judged(nearest[mine], iou[mine] >= overlap, truth.ignored)
        ap07, ap10 = average_precisions(right, wrong, int(objects[label]))
        classes.append(VocClass(name, id_, int(objects[label]), ap07, ap10))
    seen = [c for c in classes if c.objects]
    means = [float(np.mean([getattr(c, ap) for c in seen])) if seen else -1.0 for ap in ("ap07", "ap10")]
    return VocMetrics(means[0], means[1], overlap, tuple(classes))


def average_precisions(right: NDArray[np.bool_], wrong: NDArray[np.bool_], objects: int) -> tuple[float, float]:
    """AP of the detections of a class, best first, of which each is right, wrong or neither: 11 points, and area."""
    if not objects:
        return -1.0, -1.0
    rights, wrongs = np.cumsum(right), np.cumsum(wrong)
    # before anything has counted the precision is none; the recall is 0 there
    precision = np.divide(rights, rights + wrongs, out=np.zeros(len(rights)), where=rights + wrongs > 0)
    recall = rights / objects
    best = np.maximum.accumulate(precision[::-1])[::-1]  # from this recall on
    reached = np.searchsorted(recall, RECALLS, side="left")
    eleven = np.concatenate([best, [0.0]])[reached]
    steps = np.diff(recall, prepend=0.0)
    return float(eleven.sum() / len(RECALLS)), float(np.sum(steps * best))


def _judged(
    nearest: NDArray[np.int64], enough: NDArray[np.bool_], ignored: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(n,) right, (n,) wrong, of detections best first and the objects they overlap most (-1: none)."""
    hits = enough & (nearest >= 0)
    counted = hits.copy()
    counted[hits] = ~ignored[nearest[hits]]
    right = np.zeros(len(nearest), np.bool_)
    _, first = np.unique(nearest[counted], return_index=True)
    right[np.flatnonzero(counted)[first]] = True
    return right, ~hits | (counted & ~right)


def _nearest(truth: AnnotationSet, rows: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(n,) the object of its class that each detection overlaps most, the first of equals, or -1; (n,) the overlap."""
    size = len(truth.categories)
    keys = truth.image_index * size + truth.labels
    order = np.argsort(keys, kind="stable")
    asked = rows[:, 0].astype(np.int64) * size + rows[:, 6].astype(np.int64)
    first = np.searchsorted(keys[order], asked, side="left")
    counts = np.searchsorted(keys[order], asked, side="right") - first
    begins = np.cumsum(counts) - counts
    detection = np.repeat(np.arange(len(rows)), counts)
    there = order[np.repeat(first - begins, counts) + np.arange(int(counts.sum()))]
    iou = _iou(rows[detection, 1:5], truth.boxes[there])
    nearest, best = np.full(len(rows), -1), np.zeros(len(rows))
    some = np.flatnonzero(counts)
    if len(some):
        best[some] = np.maximum.reduceat(iou, begins[some])
        at = np.flatnonzero((iou > 0) & (iou == best[detection]))[::-1]  # the first of equals is written last
        nearest[detection[at]] = there[at]
    return nearest, best


def _iou(xywh: NDArray[np.float64], xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    """(p,) overlaps of boxes row by row; 0 where they do not overlap at all."""
    low, high = xywh[:, :2], xywh[:, :2] + xywh[:, 2:]
    shared = np.minimum(high, xyxy[:, 2:]) - np.maximum(low, xyxy[:, :2])
    inside = shared.prod(axis=1)
    union = xywh[:, 2:].prod(axis=1) + (xyxy[:, 2:] - xyxy[:, :2]).prod(axis=1) - inside
    return np.divide(inside, union, out=np.zeros(len(xywh)), where=(shared > 0).all(axis=1))
