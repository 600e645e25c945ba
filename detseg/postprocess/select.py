"""From a network's dense candidates to the few that count: threshold, best scores, suppression.

One for all runtimes. A: candidates, K: classes, n: what remains. A candidate may stay for several classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from detseg.geometry.box_fusion import fuse_boxes
from detseg.geometry.box_voting import vote_boxes
from detseg.geometry.nms import class_aware_nms
from detseg.geometry.soft_nms import diou_nms, soft_nms

NMS = Literal["hard", "vote", "soft", "soft-linear", "diou", "wbf"]
VOTERS_OVERLAP = 0.65  # with the box they vote on; 0.5 in the paper: measured on blood cells and animals (yolo.md)
NMS_KINDS: tuple[str, ...] = get_args(NMS)


class Selected(NamedTuple):
    """What stays, best first: boxes (n, 4) float32 xyxy, scores (n,) float32, labels (n,) int64.

    candidates (n,): which candidate each came from, of a mean of several the best one. masks (n, M, M): those of the
    candidates, where a network gives any and somebody put them here.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    candidates: NDArray[np.int64]
    masks: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Selection:
    """What to keep of a network's candidates.

    `conf`: only scores above it; `iou`: overlap above which the lesser box goes; `max_det`: objects per
    picture; `top_k`: the best scores that enter suppression, of each class no more than `top_k_per_class`;
    `agnostic`: boxes of different classes compete too; `classes`: only these class indices, all if None.

    `nms` says how: "hard" keeps the best of what overlaps; "vote" then puts in its place the mean of all that overlap
    it by `VOTERS_OVERLAP`, weighted with the scores; "soft" lets the scores of the others fade with
    exp(-IoU^2 / `sigma`), "soft-linear" with 1 - IoU from `iou` on; "diou" counts centres apart as less overlap;
    "wbf" replaces the best by the mean of what overlaps the mean so far. Raises ValueError when out of
    range.
    """

    conf: float = 0.25
    iou: float = 0.5
    max_det: int = 300
    top_k: int = 1000
    agnostic: bool = False
    classes: tuple[int, ...] | None = None
    nms: NMS = "hard"
    sigma: float = 0.5  # Soft-NMS, sec. 5.1
    top_k_per_class: int | None = None

    @classmethod
    def for_measuring(cls, nms: NMS = "hard") -> Selection:
        """As detectors are usually measured on COCO, so that recall is not cut short.

        Boxes that vote compete from an overlap of 0.5 on, others from 0.6: what measured best (yolo.md).
        """
        return cls(conf=0.001, iou=0.5 if nms == "vote" else 0.6, max_det=100, nms=nms)

    def __post_init__(self) -> None:
        if self.nms not in NMS_KINDS:
            raise ValueError(f"nms must be one of {', '.join(NMS_KINDS)}, got {self.nms!r}")
        if not self.sigma > 0:
            raise ValueError(f"sigma must be positive, got {self.sigma}")
        for name in ("conf", "iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        for name in ("max_det", "top_k", "top_k_per_class"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def select(boxes: NDArray[Any], scores: NDArray[Any], selection: Selection) -> Selected:
    """(A, 4) or (A, K, 4) xyxy, (A, K) -> what stays, best first.

    The order of the candidates plays no part, but that of two equal scores. Scores and boxes that are not
    finite numbers never stay.
    """
    scores = np.asarray(scores, np.float32)
    if selection.classes is not None:
        scores = scores[:, list(selection.classes)]
    flat = scores.reshape(-1)
    # compared in single precision: a score equal to the threshold as written stays out on every runtime
    above = flat > np.float32(selection.conf)
    if selection.top_k_per_class is not None:
        above &= _best_of_each_class(scores, selection.top_k_per_class).reshape(-1)
    entries = np.flatnonzero(above)
    entries = entries[_best(flat[entries], selection.top_k)]
    candidates, labels = np.divmod(entries, max(scores.shape[1], 1))
    if selection.classes is not None:
        labels = np.asarray(selection.classes, np.int64)[labels]
    where = (candidates, labels) if np.ndim(boxes) == 3 else candidates
    chosen, chosen_scores = np.asarray(boxes)[where].astype(np.float32), flat[entries]
    finite = np.isfinite(chosen).all(axis=1)
    if not finite.all():
        chosen, chosen_scores, labels = chosen[finite], chosen_scores[finite], labels[finite]
        candidates = candidates[finite]
    found = suppress(chosen, chosen_scores, labels.astype(np.int64), selection)
    return found._replace(candidates=candidates[found.candidates])


def suppress(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64], selection: Selection
) -> Selected:
    """(n, 4) xyxy, (n,), (n,) -> what stays of them, or takes their place, by the selection's kind of NMS, best first.

    The selection's `conf` and `max_det` hold for the scores that come out. Candidates are the rows given.
    """
    if selection.nms in ("hard", "vote"):
        return _best_stay(boxes, scores, labels, selection)
    found = _gently(boxes, scores, labels, selection)
    stays = np.flatnonzero(found.scores > np.float32(selection.conf))[: selection.max_det]
    return Selected(found.boxes[stays], found.scores[stays], found.labels[stays], found.candidates[stays])


def _best_stay(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64], selection: Selection
) -> Selected:
    """The best of what overlaps, moved by the vote of the others where they have one."""
    rivals = np.zeros_like(labels) if selection.agnostic else labels
    stays = class_aware_nms(boxes, scores, rivals, selection.iou)[: selection.max_det]
    chosen = boxes[stays]
    if selection.nms == "vote":
        chosen = vote_boxes(stays, boxes, scores, rivals, VOTERS_OVERLAP).astype(np.float32)
    return Selected(chosen, scores[stays], labels[stays], stays)


def _gently(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64], selection: Selection
) -> Selected:
    """The kinds that are not `nms`'s own: best first, not yet cut to the selection's numbers."""
    rivals = np.zeros_like(labels) if selection.agnostic else labels
    if selection.nms == "wbf":
        fused = fuse_boxes(boxes, scores, rivals, selection.iou, score="best")
        rows = fused.founders
        return Selected(fused.boxes.astype(np.float32), scores[rows], labels[rows], rows)
    if selection.nms == "diou":
        rows = diou_nms(boxes, scores, rivals, selection.iou, limit=selection.max_det)
        return Selected(boxes[rows], scores[rows], labels[rows], rows)
    rows, faded = soft_nms(
        boxes,
        scores,
        rivals,
        selection.iou,
        decay="linear" if selection.nms == "soft-linear" else "gaussian",
        sigma=selection.sigma,
        floor=selection.conf,
        limit=selection.max_det,
    )
    return Selected(boxes[rows], faded.astype(np.float32), labels[rows], rows)


def _best_of_each_class(scores: NDArray[np.float32], k: int) -> NDArray[np.bool_]:
    """(A, K) -> (A, K) True where a score is among the k best of its class."""
    best = np.zeros(scores.shape, np.bool_)
    for label in range(scores.shape[1]):
        best[_best(scores[:, label], k), label] = True
    return best


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """(n,) -> positions of the k best, in their order; of equal scores at the edge the first ones."""
    if len(scores) <= k:
        return np.arange(len(scores))
    edge = np.partition(scores, -k)[-k]
    above = scores > edge
    above[np.flatnonzero(scores == edge)[: k - np.count_nonzero(above)]] = True
    return np.flatnonzero(above)
