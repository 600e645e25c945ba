"""Suppression that judges otherwise than by plain overlap: soft NMS, and NMS by distance IoU.

N. Bodla et al.: Soft-NMS, Improving Object Detection With One Line of Code, 2017, arXiv 1704.04503 (fig. 2): a box
that overlaps a better one is not thrown away, its score fades. Z. Zheng et al.: Distance-IoU Loss, 2020,
arXiv 1911.08287 (sec. 3.3): two boxes with their centres apart are two objects although they overlap.

n boxes; boxes compete within a class only (equal labels for all of them: agnostic). Nothing is changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from detseg.geometry.boxes import Boxes, diou, iou

Rows = NDArray[np.intp]
Reals = NDArray[np.float64]
Labels = NDArray[np.integer[Any]]


def soft_nms(
    boxes: Boxes,
    scores: NDArray[np.floating[Any]],
    labels: Labels,
    overlap: float,
    *,
    decay: Literal["linear", "gaussian"] = "gaussian",
    sigma: float = 0.5,
    floor: float = 0.0,
    limit: int | None = None,
) -> tuple[Rows, Reals]:
    """(n, 4) xyxy, (n,), (n,) -> indices of the boxes whose faded score is above `floor`, best first; these scores.

    The best box is taken, the scores of the others fade with their overlap, and so on. "linear" multiplies by
    1 - IoU from the overlap given on (eq. 2), "gaussian" by exp(-IoU^2 / sigma) always (eq. 3). `limit`: no more
    of a class. Raises ValueError for an overlap outside [0, 1] or a sigma that is not positive.
    """
    _expect_overlap(overlap)
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")

    def factor(overlaps: Reals) -> Reals:
        if decay == "gaussian":
            return np.exp(-(overlaps**2) / sigma)
        return np.where(overlaps >= overlap, 1 - overlaps, 1.0)

    exact, weights = np.asarray(boxes, np.float64), np.asarray(scores, np.float64)
    taken, faded = [np.zeros(0, np.intp)], [np.zeros(0)]
    for rows in _classes(labels):
        order, new = _fade(exact[rows], weights[rows], factor, floor, len(rows) if limit is None else limit)
        taken.append(rows[order])
        faded.append(new)
    return _best_first(np.concatenate(taken), np.concatenate(faded))


def diou_nms(
    boxes: Boxes, scores: NDArray[np.floating[Any]], labels: Labels, overlap: float, *, limit: int | None = None
) -> Rows:
    """(n, 4) xyxy, (n,), (n,) -> indices of the boxes that stay, best first.

    Greedy: a box goes when its IoU with a better one, less the squared distance of their centres over the squared
    diagonal of the box around both, is greater than `overlap`. `limit`: no more of a class. Raises ValueError for an
    overlap outside [0, 1].
    """
    _expect_overlap(overlap)
    exact, weights = np.asarray(boxes, np.float64), np.asarray(scores, np.float64)
    kept = [np.zeros(0, np.intp)]
    for rows in _classes(labels):
        left = rows[np.argsort(-weights[rows], kind="stable")]
        stays: list[int] = []
        while len(left) and (limit is None or len(stays) < limit):
            best, left = left[0], left[1:]
            stays.append(int(best))
            left = left[diou(exact[best][None], exact[left])[0] <= overlap]
        kept.append(np.array(stays, np.intp))
    together = np.concatenate(kept)
    return _best_first(together, weights[together])[0]


def _fade(
    boxes: Boxes, scores: Reals, factor: Callable[[Reals], Reals], floor: float, limit: int
) -> tuple[Rows, Reals]:
    """One class: the rows in the order in which they are taken, and their scores then, which only fall."""
    left = np.flatnonzero(scores > floor)
    scores = scores[left]
    taken: list[int] = []
    final: list[float] = []
    while len(left) and len(taken) < limit:
        best = int(scores.argmax())
        taken.append(int(left[best]))
        final.append(float(scores[best]))
        scores = scores * factor(iou(boxes[taken[-1]][None], boxes[left])[0])
        alive = scores > floor
        alive[best] = False
        left, scores = left[alive], scores[alive]
    return np.array(taken, np.intp), np.array(final)


def _classes(labels: Labels) -> Iterator[Rows]:
    """The rows of each class, in their order."""
    for label in np.unique(labels):
        yield np.flatnonzero(labels == label)


def _best_first(rows: Rows, scores: Reals) -> tuple[Rows, Reals]:
    order = np.lexsort((rows, -scores))
    return rows[order], scores[order]


def _expect_overlap(overlap: float) -> None:
    if not 0 <= overlap <= 1:
        raise ValueError(f"the overlap threshold must lie in [0, 1], got {overlap}")
