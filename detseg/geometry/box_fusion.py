"""Weighted boxes fusion: boxes that agree become one, their mean, instead of one of them.

R. Solovyev, W. Wang, T. Gabruseva: Weighted boxes fusion, 2021, arXiv 1910.13302 (sec. 3). n boxes, m clusters,
M members of an ensemble, K classes; boxes compete within a class only. Nothing is changed in place.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detseg.geometry.boxes import Boxes, iou


class Fused(NamedTuple):
    """boxes (m, 4) float64 and scores (m,) float64, best first; `founders` (m,) the row of each one's best box."""

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    founders: NDArray[np.intp]

    @classmethod
    def none(cls) -> Fused:
        """No cluster."""
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.intp))


def fuse_boxes(
    boxes: Boxes,
    scores: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    overlap: float,
    *,
    views: int = 1,
    score: Literal["mean", "best"] = "mean",
) -> Fused:
    """(n, 4) xyxy, (n,), (n,) of all views together -> one box a cluster.

    Best first, each box joins the cluster whose present mean it overlaps most, if by more than `overlap`, or founds
    one. A cluster's box is the mean of its boxes weighted with their scores (eq. 2-3). "mean": its score is their
    mean score (eq. 1), less where it was seen in few of the `views`, times min(T, N) / N (eq. 5). "best": the best
    of their scores, for the many candidates of one view, whose number says nothing.
    Raises ValueError for an overlap outside [0, 1] or fewer than one view.
    """
    if not 0 <= overlap <= 1:
        raise ValueError(f"the overlap threshold must lie in [0, 1], got {overlap}")
    if views < 1:
        raise ValueError(f"there must be at least one view, got {views}")
    exact, weights = np.asarray(boxes, np.float64), np.asarray(scores, np.float64)
    parts = [Fused.none()]
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        parts.append(_fuse_class(exact, weights, rows, overlap, views if score == "mean" else None))
    means, new_scores, founders = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.lexsort((founders, -new_scores))
    return Fused(means[order], new_scores[order], founders[order])


def _fuse_class(
    boxes: NDArray[np.float64], scores: NDArray[np.float64], rows: NDArray[np.intp], overlap: float, views: int | None
) -> Fused:
    """The clusters of one class, whose boxes are at `rows`; `views` None: the best score, else the mean."""
    means, founders, joined = _cluster(boxes[rows], scores[rows], overlap)
    if views is None:
        return Fused(means, scores[rows[founders]], rows[founders])
    sizes = np.bincount(joined, minlength=len(means))
    mean_scores = np.bincount(joined, scores[rows], len(means)) / sizes
    return Fused(means, mean_scores * np.minimum(sizes, views) / views, rows[founders])


def fuse_members(
    boxes: Boxes,
    scores: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    members: NDArray[np.integer[Any]],
    trust: NDArray[np.floating[Any]],
    overlap: float,
    *,
    agnostic: bool = False,
) -> Fused:
    """(n, 4) xyxy, (n,), (n,) and (n,) which member found each -> one box a cluster, scores in [0, 1].

    `trust` (M, K): the weight of a member's word on a class, 0 for a class that it does not know. Boxes and scores are
    means as in `fuse_boxes`, weighted with it besides; a cluster's score is the sum of its weighted scores by the trust
    in all members that know its class, so that who did not find the object counts with 0 (eq. 5).

    Not the paper's: a cluster takes no more than one box of each member, which has told its objects apart already.
    Equal scores are taken in the order of their places, so that the order of the members plays no part.
    Raises ValueError for an overlap outside [0, 1].
    """
    if not 0 <= overlap <= 1:
        raise ValueError(f"the overlap threshold must lie in [0, 1], got {overlap}")
    exact, weighted = np.asarray(boxes, np.float64), np.asarray(scores, np.float64) * trust[members, labels]
    of_class = trust.sum(axis=0)
    parts = [Fused.none()]
    rivals = np.zeros_like(labels) if agnostic else labels
    for rival in np.unique(rivals):
        rows = np.flatnonzero(rivals == rival)
        means, founders, joined = _cluster(exact[rows], weighted[rows], overlap, np.asarray(members)[rows])
        found = rows[founders]
        total = np.bincount(joined, weighted[rows], len(means))
        parts.append(Fused(means, np.clip(total / of_class[labels[found]], 0, 1), found))
    means, new_scores, founders = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.lexsort((*means.T[::-1], labels[founders], -new_scores))
    return Fused(means[order], new_scores[order], founders[order])


def _cluster(
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    overlap: float,
    members: NDArray[np.integer[Any]] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]]:
    """(m, 4) weighted means, (m,) the box that founded each, and (n,) which one each box joined.

    `members` (n,): a cluster takes one box of each at most, and equal scores go by their boxes' places.
    """
    n = len(boxes)
    sums, totals, means = np.zeros((n, 4)), np.zeros(n), np.zeros((n, 4))
    founders, joined = np.zeros(n, np.intp), np.zeros(n, np.intp)
    weights = np.maximum(scores, np.finfo(np.float64).tiny)  # boxes with score 0 still have a mean
    taken = None if members is None else np.zeros((n, int(members.max(initial=-1)) + 1), np.bool_)
    order = np.argsort(-scores, kind="stable") if members is None else np.lexsort((*boxes.T[::-1], -scores))
    m = 0
    for row in order.tolist():
        overlaps = iou(boxes[row][None], means[:m])[0]
        if taken is not None and members is not None:
            overlaps = np.where(taken[:m, members[row]], 0.0, overlaps)
        cluster = int(overlaps.argmax()) if m else 0
        if not m or overlaps[cluster] <= overlap:
            founders[m] = row
            cluster, m = m, m + 1
        sums[cluster] += weights[row] * boxes[row]
        totals[cluster] += weights[row]
        means[cluster] = sums[cluster] / totals[cluster]
        joined[row] = cluster
        if taken is not None and members is not None:
            taken[cluster, members[row]] = True
    return means[:m], founders[:m], joined
