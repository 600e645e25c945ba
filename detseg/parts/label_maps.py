"""`LabelMaps`: a class for every pixel, what segmenters learn from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from detseg.annotations.semantic import IGNORE

__all__ = ["IGNORE", "LabelMaps", "enlarged"]


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """The truth of a batch in the network's frame.

    labels (N, H, W) int64, class index 0..K-1 or IGNORE. weights (N, H, W) float32: how much each pixel counts, 1
    where there are none.
    """

    labels: Tensor
    weights: Tensor | None = None

    def to(self, device: torch.device | str) -> LabelMaps:
        """The same truth on `device`."""
        return LabelMaps(self.labels.to(device), None if self.weights is None else self.weights.to(device))


def enlarged(maps: Tensor, size_hw: tuple[int, int] | torch.Size) -> Tensor:
    """(N, K, h, w) -> (N, K, *size_hw), by bilinear interpolation between the middles of pixels."""
    if maps.shape[2:] == tuple(size_hw):
        return maps
    return F.interpolate(maps, size=tuple(size_hw), mode="bilinear", align_corners=False)
