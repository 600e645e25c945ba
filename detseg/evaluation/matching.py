"""Which detection found which object: COCO's greedy matching for whole data sets at once, as columns.

n: detections, M: annotations, P: pairs of a detection and an annotation of its picture that overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet
from detseg.annotations.outlines import Outlines
from detseg.geometry.boxes import xyxy_to_xywh

LEAST_IOU = 0.1  # less overlap than this is none: TIDE's bound between a badly placed box and background
_PAIRS_AT_ONCE = 2_000_000  # keeps the memory flat, whatever the size of the data set
_ALMOST_ONE = 1 - 1e-10  # pycocotools' highest threshold

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """The overlaps within pictures, whatever the classes: detection (P,), truth (P,) row numbers, iou (P,).

    With an ignored region the overlap is the share of the detection that lies in it, as COCO has it for crowds.
    """

    detection: Integers
    truth: Integers
    iou: Floats

    def where(self, chosen: NDArray[np.bool_]) -> Pairs:
        """The pairs that are chosen."""
        return Pairs(self.detection[chosen], self.truth[chosen], self.iou[chosen])


@dataclass(frozen=True, eq=False)
class Matches:
    """For each detection (n,): `truth` the annotation it found or -1, `iou` their overlap or 0.

    `ignored`: it lies in an ignored region and counts neither way; `counted`: it is among the `max_dets` best
    of its picture and class (others take no part, as in COCO). `found` (M,): the detection that found each
    annotation or -1; ignored regions are never found.
    """

    truth: Integers
    iou: Floats
    ignored: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    found: Integers

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n,) true positives."""
        return (self.truth >= 0) & ~self.ignored

    @property
    def false(self) -> NDArray[np.bool_]:
        """(n,) false positives."""
        return (self.truth < 0) & self.counted


def overlaps(truth: AnnotationSet, rows: Floats, least: float = LEAST_IOU, outlines: Outlines | None = None) -> Pairs:
    """All pairs with an IoU of at least `least` > 0; of boxes, or of masks where the detections' are given.

    rows (n, 7): picture index, x, y, w, h, score, class index; outlines: n of them.
    """
    if outlines is not None:
        parts = list(_mask_overlaps(truth, rows, outlines))
    else:
        parts = list(_box_overlaps(truth, rows))
    kept = [pairs.where(pairs.iou >= min(least, _ALMOST_ONE)) for pairs in parts]
    if not kept:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Pairs(*(np.concatenate([getattr(p, name) for p in kept]) for name in ("detection", "truth", "iou")))


def match(
    truth: AnnotationSet,
    rows: Floats,
    iou: float = 0.5,
    *,
    pairs: Pairs | None = None,
    max_dets: int | None = 100,
    across_classes: bool = False,
) -> Matches:
    """COCO's rule at one threshold: in order of score, each detection takes the free object it overlaps most.

    Objects come before ignored regions, which can be taken again and again; of equal overlaps the later
    annotation wins, of equal scores the earlier row comes first. With `across_classes` the classes do not
    matter (and `max_dets` counts by picture). `pairs` are `overlaps(truth, rows)`, where they are at hand.
    """
    pairs = overlaps(truth, rows) if pairs is None else pairs
    groups = _groups(truth, rows, across_classes)
    order, turn = _turns(groups, -rows[:, 5])
    counted = np.ones(len(rows), np.bool_) if max_dets is None else turn < max_dets
    wanted = (pairs.iou >= min(iou, _ALMOST_ONE)) & counted[pairs.detection]
    if not across_classes:
        wanted &= truth.labels[pairs.truth] == rows[pairs.detection, 6]
    chosen = pairs.where(wanted)
    place = np.empty(len(rows), np.int64)
    place[order] = np.arange(len(rows))
    return _greedy(chosen, truth.ignored, place, groups, counted)


def by_score(truth: AnnotationSet, rows: Floats) -> Integers:
    """The order of all detections in which COCO accumulates: best score first, then by picture id, then by row."""
    rank = np.argsort(np.argsort(truth.image_ids))
    return np.lexsort((rank[rows[:, 0].astype(np.int64)], -rows[:, 5]))


# ---- overlaps ----


def _box_overlaps(truth: AnnotationSet, rows: Floats) -> Iterator[Pairs]:
    boxes, ignored = xyxy_to_xywh(truth.boxes), truth.ignored
    for detection, annotation in _candidates(truth, rows):
        a, b = rows[detection, 1:5], boxes[annotation]
        low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
        sides = np.maximum(high - low, 0)
        shared, own = sides[:, 0] * sides[:, 1], a[:, 2] * a[:, 3]
        # the order of these operations is pycocotools', so that the last bit agrees
        union = np.where(ignored[annotation], own, own + b[:, 2] * b[:, 3] - shared)
        ratio = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
        overlap = ratio > 0
        yield Pairs(detection[overlap], annotation[overlap], ratio[overlap])


def _candidates(truth: AnnotationSet, rows: Floats) -> Iterator[tuple[Integers, Integers]]:
    """Every detection with every annotation of its picture, a bounded number at a time."""
    pictures = rows[:, 0].astype(np.int64)
    order = np.argsort(pictures, kind="stable")
    beside = np.diff(truth.starts)[pictures[order]]  # annotations that each detection is compared with
    ends = np.cumsum(beside)
    start = 0
    while start < len(order):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _PAIRS_AT_ONCE, side="right")))
        mine, count = order[start:stop], beside[start:stop]
        first = np.repeat(truth.starts[pictures[mine]] - (ends[start:stop] - count - before), count)
        yield np.repeat(mine, count), first + np.arange(len(first))
        start = stop


def _mask_overlaps(truth: AnnotationSet, rows: Floats, outlines: Outlines) -> Iterator[Pairs]:
    from pycocotools import mask as coco_masks

    pictures, ignored = rows[:, 0].astype(np.int64), truth.ignored
    order = np.argsort(pictures, kind="stable")
    starts = np.searchsorted(pictures[order], np.arange(len(truth) + 1))
    for picture in range(len(truth)):
        mine, theirs = order[starts[picture] : starts[picture + 1]], np.arange(len(truth.labels))[truth.rows(picture)]
        if not len(mine) or not len(theirs):
            continue
        h, w = truth.image_hw[picture].tolist()
        ours, known = ([o.rle(i, (h, w)) for i in at] for o, at in ((outlines, mine), (truth.outlines, theirs)))
        table = np.asarray(coco_masks.iou(ours, known, ignored[theirs].astype(np.uint8).tolist()))
        row, column = np.nonzero(table)
        yield Pairs(mine[row], theirs[column], table[row, column])


# ---- matching ----


def _groups(truth: AnnotationSet, rows: Floats, across_classes: bool) -> Integers:
    """(n,) the detections among which one takes an object from another."""
    pictures = rows[:, 0].astype(np.int64)
    return pictures if across_classes else pictures * max(1, len(truth.categories)) + rows[:, 6].astype(np.int64)


def _turns(groups: Integers, keys: Floats | Integers) -> tuple[Integers, Integers]:
    """The order by group, then key; and (n,) whose turn comes when within its group."""
    order = np.lexsort((keys, groups))
    sorted_groups = groups[order]
    begins = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]]) if len(order) else order
    turn = np.empty(len(order), np.int64)
    turn[order] = np.arange(len(order)) - np.repeat(begins, np.diff(np.r_[begins, len(order)]))
    return order, turn


def _greedy(
    pairs: Pairs, ignored: NDArray[np.bool_], place: Integers, groups: Integers, counted: NDArray[np.bool_]
) -> Matches:
    """Round by round: the first detection of every group chooses, then the second, and so on."""
    n = len(place)
    found, taken_iou = np.full(len(ignored), -1, np.int64), np.zeros(n)
    chosen, in_region = np.full(n, -1, np.int64), np.zeros(n, np.bool_)
    active, of_active = np.unique(pairs.detection, return_inverse=True)  # without any pair there is no choice
    _, turn = _turns(groups[active], place[active])
    region = ignored[pairs.truth]
    order = np.lexsort((-pairs.truth, -pairs.iou, region, pairs.detection, turn[of_active]))
    detection, annotation, region = pairs.detection[order], pairs.truth[order], region[order]
    ious = pairs.iou[order]
    bounds = np.searchsorted(turn[of_active][order], np.arange(turn.max(initial=-1) + 2))
    for begin, end in pairwise(bounds.tolist()):
        free = begin + np.flatnonzero(found[annotation[begin:end]] < 0)
        best = free[np.r_[True, detection[free][1:] != detection[free][:-1]]] if len(free) else free
        who, what = detection[best], annotation[best]
        chosen[who], taken_iou[who], in_region[who] = what, ious[best], region[best]
        real = ~region[best]
        found[what[real]] = who[real]
    return Matches(chosen, taken_iou, in_region, counted, found)
