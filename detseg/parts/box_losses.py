"""IoU-type box losses, differentiable: 1 - IoU, GIoU, DIoU or CIoU of matched pairs.

The same formulas as `geometry/boxes.py`, for pairs instead of all against all, in torch. `n` pairs of xyxy boxes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

IoUKind = Literal["iou", "giou", "diou", "ciou"]


def paired_iou(a: Tensor, b: Tensor, kind: IoUKind = "iou", eps: float = 1e-7) -> Tensor:
    """(n, 4), (n, 4) xyxy -> (n,) IoU of each pair, less the penalty that `kind` adds.

    GIoU: Rezatofighi et al. 2019, eq. 1. DIoU, CIoU: Zheng et al. 2020, eq. 7 and 10; as there, the weight of the
    aspect-ratio term is a constant for the gradient.
    """
    shared_sides = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    shared = shared_sides.prod(dim=1)
    a_sides, b_sides = a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]
    union = a_sides.prod(dim=1) + b_sides.prod(dim=1) - shared + eps
    iou = shared / union
    if kind == "iou":
        return iou
    hull_sides = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    if kind == "giou":
        hull = hull_sides.prod(dim=1) + eps
        return iou - (hull - union) / hull
    apart = ((a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) / 2).pow(2).sum(dim=1)
    diou = iou - apart / (hull_sides.pow(2).sum(dim=1) + eps)
    if kind == "diou":
        return diou
    angles = torch.atan(a_sides[:, 0] / (a_sides[:, 1] + eps)) - torch.atan(b_sides[:, 0] / (b_sides[:, 1] + eps))
    v = 4 / math.pi**2 * angles.pow(2)
    with torch.no_grad():
        weight = v / (1 - iou + v + eps)
    return diou - weight * v


def box_loss(predicted: Tensor, truth: Tensor, kind: IoUKind = "ciou") -> Tensor:
    """(n, 4), (n, 4) xyxy -> (n,) losses 1 - IoU of the given kind, in [0, 2] (CIoU: a little more)."""
    return 1 - paired_iou(predicted, truth, kind)
