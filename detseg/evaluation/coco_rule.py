"""COCO's way from overlaps to precision and recall, for overlaps that hotcoco does not know.

The rule is that of pycocotools' `COCOeval` (`evaluateImg`, `accumulate`): the same matches, and the same numbers to
the last bit. d: detections of one class in one picture, best first; g: its objects; A: 4 ranges of area; T: 10
overlap thresholds; R: 101 recall points; K: classes; D: caps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
_FAR = 1e5**2
AREAS = np.array([(0, _FAR), (0, 32**2), (32**2, 96**2), (96**2, _FAR)], np.float64)  # all, small, medium, large

# (rows of detections (d,), rows of objects (g,)) of one class in one picture -> (d, g) overlaps; an ignored
# region's is the share of the detection that lies in it
Overlaps = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]


class _Group(NamedTuple):
    """One class in one picture: scores (d,), found and ignored (A, T, d), and the objects that count (A,)."""

    scores: NDArray[np.float64]
    found: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    objects: NDArray[np.int64]


def curves(
    truth: AnnotationSet,
    rows: NDArray[np.float64],
    *,
    areas: NDArray[np.float64],
    caps: Sequence[int],
    overlaps: Overlaps,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(T, R, K, A, D) precision and (T, K, A, D) recall, -1 where there is no object. See `evaluate_rows`."""
    size = len(truth.categories)
    precision = np.full((len(THRESHOLDS), len(RECALLS), size, len(AREAS), len(caps)), -1.0)
    recall = np.full((len(THRESHOLDS), size, len(AREAS), len(caps)), -1.0)
    groups: dict[int, list[_Group]] = defaultdict(list)
    for place, _, found, there in _together(truth, rows, caps[-1]):
        groups[place].append(_matched(truth, rows, areas, found, there, overlaps))
    for place, mine in groups.items():
        for at, cap in enumerate(caps):
            for area in range(len(AREAS)):
                answer = _accumulated(mine, area, cap)
                if answer is not None:
                    precision[:, :, place, area, at], recall[:, place, area, at] = answer
    return precision, recall


def _together(
    truth: AnnotationSet, rows: NDArray[np.float64], cap: int
) -> Iterator[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]]:
    """(rank of the class, rank of the picture, rows of detections best first, rows of objects), in that order."""
    picture_rank = np.argsort(np.argsort(truth.image_ids))
    class_rank = np.argsort(np.argsort(np.asarray(truth.categories.ids, np.int64)))
    members: dict[tuple[int, int], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    pairs = zip(class_rank[rows[:, 6].astype(int)].tolist(), picture_rank[rows[:, 0].astype(int)].tolist(), strict=True)
    for row, key in enumerate(pairs):
        members[key][0].append(row)
    pairs = zip(class_rank[truth.labels].tolist(), picture_rank[truth.image_index].tolist(), strict=True)
    for row, key in enumerate(pairs):
        members[key][1].append(row)
    for place, picture in sorted(members):
        found, there = (np.array(side, np.int64) for side in members[place, picture])
        best = np.argsort(-rows[found, 5], kind="stable")[:cap]
        yield place, picture, found[best], there


def _matched(
    truth: AnnotationSet,
    rows: NDArray[np.float64],
    areas: NDArray[np.float64],
    found: NDArray[np.int64],
    there: NDArray[np.int64],
    overlaps: Overlaps,
) -> _Group:
    """The detections of one class in one picture, each with the object it found."""
    crowd = truth.ignored[there]
    sizes = truth.areas[there]
    ignore = crowd | (sizes < AREAS[:, :1]) | (sizes > AREAS[:, 1:])  # (A, g)
    iou = overlaps(found, there) if len(found) and len(there) else np.zeros((len(found), len(there)))
    matched, ignored = _match(iou, ignore, crowd)
    outside = (areas[found] < AREAS[:, :1]) | (areas[found] > AREAS[:, 1:])  # (A, d)
    ignored |= ~matched & outside[:, None, :]
    return _Group(rows[found, 5], matched, ignored, np.count_nonzero(~ignore, axis=1))


def _match(
    iou: NDArray[np.float64], ignore: NDArray[np.bool_], crowd: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """iou (d, g), ignore (A, g), crowd (g,) -> (A, T, d) matched, and matched with what is ignored.

    The best first, each detection takes of the free objects that it overlaps enough the one it overlaps most
    (of equals the last), one that counts before one that is ignored; a crowd is always free.
    """
    count, objects = iou.shape
    shape = (len(AREAS), len(THRESHOLDS))
    matched, ignored = np.zeros((*shape, count), np.bool_), np.zeros((*shape, count), np.bool_)
    if not objects:
        return matched, ignored
    taken = np.zeros((*shape, objects), np.bool_)
    enough = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    for row in range(count):
        fits = (iou[row] >= enough) & (~taken | crowd)  # (A, T, g)
        counts = fits & ~ignore[:, None, :]
        usable = np.where(counts.any(axis=2, keepdims=True), counts, fits)
        best = objects - 1 - np.argmax(np.where(usable, iou[row], -1.0)[..., ::-1], axis=2)  # (A, T)
        hit = usable.any(axis=2)
        matched[..., row] = hit
        ignored[..., row] = hit & np.take_along_axis(ignore, best, axis=1)
        area, threshold = np.nonzero(hit)
        taken[area, threshold, best[hit]] = True
    return matched, ignored
    taken = np.zeros((*shape, objects), np.bool_)
    enough = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    for row in range(count):
        fits = (iou[row] >= enough) & (~taken | crowd)  # (A, T, g)
        counts = fits & ~ignore[:, None, :]
        usable = np.where(counts.any(axis=2, keepdims=True), counts, fits)
        best = objects - 1 - np.argmax(np.where(usable, iou[row], -1.0)[..., ::-1], axis=2)  # (A, T)
        hit = usable.any(axis=2)
        matched[..., row] = hit
        ignored[..., row] = hit & np.take_along_axis(ignore, best, axis=1)
        np.put_along_axis(
            taken, best[..., None], (hit | np.take_along_axis(taken, best[..., None], 2)[..., 0])[..., None], 2
        )
    return matched, ignored


def _accumulated(
    groups: Sequence[_Group], area: int, cap: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(T, R) precision and (T,) recall of one class; None where no object counts."""
    objects = sum(int(group.objects[area]) for group in groups)
    if objects == 0:
        return None
    scores = np.concatenate([group.scores[:cap] for group in groups])
    order = np.argsort(-scores, kind="stable")
    found = np.concatenate([group.found[area, :, :cap] for group in groups], axis=1)[:, order]
    ignored = np.concatenate([group.ignored[area, :, :cap] for group in groups], axis=1)[:, order]
    right = np.cumsum(found & ~ignored, axis=1).astype(np.float64)
    wrong = np.cumsum(~found & ~ignored, axis=1).astype(np.float64)
    precision, recall = np.zeros((len(THRESHOLDS), len(RECALLS))), np.zeros(len(THRESHOLDS))
    for t in range(len(THRESHOLDS)):
        recalled = right[t] / objects
        recall[t] = recalled[-1] if len(recalled) else 0
        precise = right[t] / (right[t] + wrong[t] + np.spacing(1))
        precise = np.maximum.accumulate(precise[::-1])[::-1]
        at = np.searchsorted(recalled, RECALLS, side="left")
        reached = at < len(precise)
        precision[t, reached] = precise[at[reached]]
    return precision, recall
