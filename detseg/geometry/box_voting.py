"""Box voting: each box that suppression kept becomes the mean of all that agree with it, itself among them.

S. Gidaris, N. Komodakis: Object detection via a multi-region and semantic segmentation-aware CNN model, 2015,
arXiv 1505.01749 (sec. 4, bounding box voting). n boxes, m of them kept; boxes vote within their class only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.geometry.boxes import Boxes, iou


def vote_boxes(
    kept: NDArray[np.integer[Any]],
    boxes: Boxes,
    scores: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    overlap: float,
) -> NDArray[np.float64]:
    """(m,) rows of the kept ones among (n, 4) xyxy, (n,), (n,) -> (m, 4) their boxes after the vote.

    All of a kept box's class that overlap it by `overlap` or more vote with the weight of their scores. Raises
    ValueError for an overlap outside [0, 1].
    """
    if not 0 <= overlap <= 1:
        raise ValueError(f"the overlap threshold must lie in [0, 1], got {overlap}")
    exact = np.asarray(boxes, np.float64)
    voted = exact[kept]
    for label in np.unique(labels[kept]):
        mine, voters = np.flatnonzero(labels[kept] == label), np.flatnonzero(labels == label)
        agree = iou(voted[mine], exact[voters]) >= overlap
        weights = agree * np.maximum(np.asarray(scores, np.float64)[voters], np.finfo(np.float64).tiny)
        voted[mine] = weights @ exact[voters] / weights.sum(axis=1, keepdims=True)
    return voted
