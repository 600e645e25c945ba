"""`RoIFeatures`: from a region of the frame to a small square of features, whatever the region's size.

RoI pooling: R. Girshick 2015, Fast R-CNN, arXiv 1504.08083, sec. 2.1. RoIAlign: K. He et al. 2017, Mask R-CNN,
arXiv 1703.06870, sec. 3. Which map of a pyramid: T.-Y. Lin et al. 2017, arXiv 1612.03144, eq. 1.
Shapes: N pictures, S regions over all pictures, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops import roi_pool

from detseg.parts.overlaps import area
from detseg.parts.roi_gradient import aligned_regions

_MARGIN = 1e-6  # a region of exactly the size where the maps change belongs to the coarser one


@dataclass(frozen=True)
class PoolConfig:
    """How regions are pooled."""

    size: int = 7  # of the square, in cells
    kind: Literal["align", "pool"] = "align"
    sampling: int = 2  # points that RoIAlign reads along each side of a cell; 0: as many as the region has pixels
    canonical: float = 224.0  # a region of this side is taken from the map of stride 16 (Lin et al., eq. 1)


class RoIFeatures(nn.Module):
    """Regions -> (S, C, size, size), each from the map that suits its size. Nothing is learnt here."""

    def __init__(self, strides: Sequence[int], config: PoolConfig) -> None:
        super().__init__()
        self.strides, self.config = tuple(strides), config

    def forward(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """[(N, C, R, C)] a map for each stride (more are not looked at), for each picture (S_i, 4) xyxy -> pooled.

        Picture by picture, in the order of the boxes.
        """
        counts = torch.tensor([len(b) for b in boxes], device=maps[0].device)
        picture = torch.arange(len(boxes), device=maps[0].device).repeat_interleave(counts)
        regions = torch.cat([picture[:, None].to(boxes[0].dtype), torch.cat(list(boxes))], dim=1)
        if len(self.strides) == 1:
            return self._pooled(maps[0], regions, self.strides[0])
        level_of = self.level_of(regions[:, 1:])
        size = self.config.size
        result = maps[0].new_zeros(len(regions), maps[0].shape[1], size, size, dtype=torch.float32)
        for level, stride in enumerate(self.strides):
            rows = (level_of == level).nonzero()[:, 0]
            if len(rows):
                result[rows] = self._pooled(maps[level], regions[rows], stride)
        return result

    def blank(self, maps: Sequence[Tensor], count: int) -> Tensor:
        """Zeros in the place of `count` pooled regions: (count, C, size, size)."""
        return maps[0].new_zeros(count, maps[0].shape[1], self.config.size, self.config.size)

    def level_of(self, boxes: Tensor) -> Tensor:
        """(S, 4) -> (S,) index of the map that each box is taken from."""
        low, high = (stride.bit_length() - 1 for stride in (self.strides[0], self.strides[-1]))
        level = torch.floor(4 + torch.log2(area(boxes).sqrt() / self.config.canonical) + _MARGIN)
        return level.clamp(low, high).long() - low

    def _pooled(self, x: Tensor, regions: Tensor, stride: int) -> Tensor:
        size, scale = self.config.size, 1 / stride
        pooled: Tensor
        if self.config.kind == "pool":
            pooled = roi_pool(x.float(), regions, size, scale)
        else:
            pooled = aligned_regions(x.float(), regions, size, scale, self.config.sampling)
        return pooled
