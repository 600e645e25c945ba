"""Suppression inside a network: of boxes of one group that overlap too much only the best stays, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from detseg.geometry.nms import class_aware_nms


def grouped_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """(n, 4) xyxy, (n,), (n,) int64 -> rows that stay, best first; boxes compete within their group.

    On the CPU by `geometry.nms`, which keeps the same boxes as torchvision's in a third to half of the time; elsewhere
    by torchvision's.
    """
    if boxes.device.type != "cpu":
        from torchvision.ops import batched_nms

        rows: Tensor = batched_nms(boxes.float(), scores.float(), groups, iou)
        return rows
    kept = class_aware_nms(
        boxes.detach().float().numpy(), scores.detach().float().numpy(), groups.detach().numpy(), iou
    )
    return torch.from_numpy(kept)
