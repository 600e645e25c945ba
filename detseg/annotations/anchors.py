"""Anchor boxes from a data set: k-means with d = 1 - IoU of (w, h) (Redmon & Farhadi 2017, sec. 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detseg.annotations.dataset import AnnotationSet
from detseg.geometry.boxes import is_degenerate

WH = NDArray[np.float64]  # (M, 2) widths and heights

_MAX_ROUNDS = 300
_STARTS = 5  # k-means finds a local best: the best of a few starts is kept
_MAX_RATIO = 4.0  # a truth counts as reachable when no side differs from its best anchor's by this factor


@dataclass(frozen=True, eq=False)
class Anchors:
    """Anchor sizes and how well they fit.

    wh (k, 2) pixels of the frame, sorted by area; mean_iou of each box with its best anchor (YOLO9000,
    table 1); best_possible_recall the share of boxes whose best anchor is less than 4 times wider, narrower,
    higher or lower.
    """

    wh: WH
    mean_iou: float
    best_possible_recall: float


def sizes_in_frame(
    annotations: AnnotationSet,
    frame_hw: tuple[int, int],
    fit: Literal["letterbox", "stretch", "shorter"] = "letterbox",
) -> WH:
    """(M, 2) widths and heights of the set's boxes in the network's frame, as `preprocess.Placement` scales.

    Ignored and degenerate boxes, and those of pictures of unknown size, are left out.
    """
    hw = annotations.image_hw[annotations.image_index].astype(np.float64)
    use = ~annotations.ignored & ~is_degenerate(annotations.boxes) & (hw > 0).all(axis=1)
    hw, boxes = hw[use], annotations.boxes[use]
    frame = np.asarray(frame_hw, np.float64)
    content = np.broadcast_to(frame, hw.shape)
    if fit == "letterbox":
        scale = (frame / hw).min(axis=1, keepdims=True)
        content = np.clip(np.round(hw * scale), 1, frame)  # whole pixels, as the picture is resized to
    elif fit == "shorter":
        least, most = frame
        scale = np.minimum(least / hw.min(axis=1), most / hw.max(axis=1))
        content = np.maximum(np.floor(hw * scale[:, None]), 1)
    return (boxes[:, 2:] - boxes[:, :2]) * (content / hw)[:, ::-1]


def kmeans_anchors(wh: NDArray[np.floating], k: int, seed: int = 0) -> Anchors:
    """k anchors for boxes of (M, 2) sizes, the same for the same seed.

    The centre of a cluster is the mean of its sizes, as in the paper. Raises ValueError when k is not
    positive or there are fewer than k boxes.
    """
    sizes = np.asarray(wh, np.float64).reshape(-1, 2)
    sizes = sizes[np.isfinite(sizes).all(axis=1) & (sizes > 0).all(axis=1)]
    if k < 1:
        raise ValueError(f"the number of anchors must be at least 1, got {k}")
    if len(sizes) < k:
        raise ValueError(f"{k} anchors need at least {k} boxes, got {len(sizes)}")
    rng = np.random.default_rng(seed)
    tries = [_kmeans(sizes, _start(sizes, k, rng), rng) for _ in range(_STARTS)]
    best = max(tries, key=lambda centres: shape_iou(sizes, centres).max(axis=1).mean())
    centres = best[np.argsort(best.prod(axis=1), kind="stable")]
    return Anchors(centres, *fit_of(sizes, centres))


def fit_of(wh: WH, anchors: WH) -> tuple[float, float]:
    """(mean IoU, best possible recall) of any anchors on boxes of (M, 2) sizes; both 0 without boxes."""
    if not len(wh) or not len(anchors):
        return 0.0, 0.0
    ratio = wh[:, None] / anchors[None]
    worst_side = np.maximum(ratio, 1 / ratio).max(axis=2).min(axis=1)
    return float(shape_iou(wh, anchors).max(axis=1).mean()), float((worst_side < _MAX_RATIO).mean())


def shape_iou(a: WH, b: WH) -> NDArray[np.float64]:
    """(m, 2), (k, 2) -> (m, k) IoU of boxes that share their centre."""
    shared = np.minimum(a[:, None, 0], b[None, :, 0]) * np.minimum(a[:, None, 1], b[None, :, 1])
    return shared / (a.prod(axis=1)[:, None] + b.prod(axis=1)[None, :] - shared)


def _start(sizes: WH, k: int, rng: np.random.Generator) -> WH:
    """k of the sizes, each new one the likelier the farther from those already chosen (k-means++)."""
    chosen = [int(rng.integers(len(sizes)))]
    distance = 1 - shape_iou(sizes, sizes[chosen])[:, 0]
    while len(chosen) < k:
        weight = np.maximum(distance, 0) ** 2
        total = weight.sum()
        # fewer different sizes than anchors: any will do
        pick = rng.choice(len(sizes), p=weight / total) if total > 0 else rng.integers(len(sizes))
        chosen.append(int(pick))
        distance = np.minimum(distance, 1 - shape_iou(sizes, sizes[chosen[-1:]])[:, 0])
    return sizes[chosen]


def _kmeans(sizes: WH, centres: WH, rng: np.random.Generator) -> WH:
    nearest = np.full(len(sizes), -1)
    for _ in range(_MAX_ROUNDS):
        assigned = shape_iou(sizes, centres).argmax(axis=1)
        if (assigned == nearest).all():
            break
        nearest = assigned
        centres = _means(sizes, nearest, len(centres), rng)
    return centres


def _means(sizes: WH, nearest: NDArray[np.int64], k: int, rng: np.random.Generator) -> WH:
    counts = np.bincount(nearest, minlength=k)
    sums = np.stack([np.bincount(nearest, sizes[:, side], k) for side in (0, 1)], axis=1)
    centres = sums / np.maximum(counts, 1)[:, None]
    empty = np.flatnonzero(counts == 0)
    centres[empty] = sizes[rng.integers(len(sizes), size=len(empty))]  # a new try elsewhere
    return centres
