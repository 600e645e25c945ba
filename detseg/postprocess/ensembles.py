"""Ensembles: what several detectors found in one picture becomes one answer, boxes of the picture fused.

R. Solovyev, W. Wang, T. Gabruseva: Weighted boxes fusion, 2021, arXiv 1910.13302. See `geometry.box_fusion`.
M members, K classes of all of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.geometry.box_fusion import fuse_members
from detseg.postprocess.select import Selection
from detseg.results import Detections, Masks

WEAK = 0.1  # times the lowest score that is reported: from here on a member supports what others found


def trust(weights: Sequence[float], classes: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """(M, K) the weight of each member where it knows a class, else 0.

    `classes`: for each member the number, among all classes together, of each of its own.
    """
    table = np.zeros((len(weights), 1 + max(int(own.max(initial=-1)) for own in classes)))
    for row, weight, own in zip(table, weights, classes, strict=True):
        row[own] = weight
    return table


def weak(selection: Selection) -> Selection:
    """The same for what a member is less sure of than is reported."""
    return replace(selection, conf=selection.conf * WEAK)


def with_support(sure: Detections, all_found: Detections, conf: float) -> Detections:
    """What a member says of a picture: its detections as it would report them, and weaker ones of `all_found`."""
    return _joined([sure, all_found[all_found.scores <= np.float32(conf)]])


def fuse(found: Sequence[Detections], trusted: NDArray[np.float64], selection: Selection) -> Detections:
    """What the members found, in the pixels and labels that they share -> detections, best first.

    `trusted` (M, K) as of `trust`; of the `selection` its `iou`, `conf`, `max_det` and `agnostic` hold for what comes
    out. Where all members outline their objects, a fused one has the mask of the box that counted most.
    """
    every = _joined(found)
    members = np.repeat(np.arange(len(found)), [len(one) for one in found])
    fused = fuse_members(
        every.boxes, every.scores, every.labels, members, trusted, selection.iou, agnostic=selection.agnostic
    )
    scores = fused.scores.astype(np.float32)
    keep = np.flatnonzero(scores > np.float32(selection.conf))[: selection.max_det]
    chosen = every[fused.founders[keep]]
    return replace(chosen, boxes=fused.boxes[keep].astype(np.float32), scores=scores[keep])


def _joined(parts: Sequence[Detections]) -> Detections:
    """All of them after one another; masks where all have them."""
    first, masks = parts[0], [part.masks for part in parts if part.masks is not None]
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "labels")
    }
    every = Masks.concatenate(masks) if len(masks) == len(parts) else None
    return Detections(first.image_hw, **columns, path=first.path, masks=every)
