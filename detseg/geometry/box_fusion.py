"""Weighted boxes fusion: boxes that agree become one, their mean, instead of one of them.

R. Solovyev, W. Wang, T. Gabruseva: Weighted boxes fusion, 2021, arXiv 1910.13302 (sec. 3). n boxes, m clusters;
boxes compete within a class only. Nothing is changed in place.
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


def _cluster(
    boxes: NDArray[np.float64], scores: NDArray[np.float64], overlap: float
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]]:
    """(m, 4) weighted means, (m,) the box that founded each, and (n,) which one each box joined."""
    n = len(boxes)
    sums, totals, means = np.zeros((n, 4)), np.zeros(n), np.zeros((n, 4))
    founders, joined = np.zeros(n, np.intp), np.zeros(n, np.intp)
    weights = np.maximum(scores, np.finfo(np.float64).tiny)  # boxes with score 0 still have a mean
    m = 0
    for row in np.argsort(-scores, kind="stable").tolist():
        overlaps = iou(boxes[row][None], means[:m])[0]
        cluster = int(overlaps.argmax()) if m else 0
        if not m or overlaps[cluster] <= overlap:
            founders[m] = row
            cluster, m = m, m + 1
        sums[cluster] += weights[row] * boxes[row]
        totals[cluster] += weights[row]
        means[cluster] = sums[cluster] / totals[cluster]
        joined[row] = cluster
    return means[:m], founders[:m], joined
