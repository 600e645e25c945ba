"""Feature pyramid: coarse, meaningful maps handed down to the finer ones.

T.-Y. Lin, P. Dollár, R. Girshick, K. He, B. Hariharan, S. Belongie: Feature Pyramid Networks for Object
Detection, CVPR 2017 (arXiv 1612.03144). Section 3: 1x1 lateral convolutions, nearest neighbour upsampling,
addition, a 3x3 convolution on each merged map, no non-linearities. Extra levels: P6 by subsampling P5
(section 4.1, footnote), or P6 and P7 by strided convolutions (Lin et al., Focal Loss for Dense Object
Detection, ICCV 2017, footnote 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from detseg.backbones.spec import FeatureSpec


class FeaturePyramid(nn.Module):
    """Maps of any channels, finest first -> `channels` each at the same strides, then the extra levels.

    `norm`: each convolution has a batch norm instead of a bias (Y. Li et al. 2021, arXiv 2111.11429).
    `extra`: None; "pool" adds one level by taking every second pixel of the coarsest; "conv" adds two by 3x3
    convolutions of stride 2, the first on the coarsest output, the second after a ReLU.
    """

    def __init__(
        self,
        in_specs: Sequence[FeatureSpec],
        channels: int = 256,
        extra: Literal["pool", "conv"] | None = None,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(_conv(spec.channels, channels, 1, norm) for spec in in_specs)
        self.output = nn.ModuleList(_conv(channels, channels, 3, norm) for _ in in_specs)
        self.extra = extra
        steps = {"pool": 1, "conv": 2}.get(extra or "", 0)
        self.down = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(steps) if extra == "conv"
        )
        strides = [spec.stride for spec in in_specs]
        strides += [strides[-1] * 2 ** (i + 1) for i in range(steps)]
        self.features = tuple(FeatureSpec(channels, stride) for stride in strides)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_uniform_(conv.weight, a=1)
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """[(N, C_i, h_i, w_i)] -> [(N, channels, h_i, w_i)] and extra levels, half the one before each."""
        merged = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for i in range(len(merged) - 2, -1, -1):
            merged[i] = merged[i] + F.interpolate(merged[i + 1], size=merged[i].shape[-2:], mode="nearest")
        outputs = [conv(x) for conv, x in zip(self.output, merged, strict=True)]
        return outputs + self._extra_levels(outputs[-1])

    def _extra_levels(self, coarsest: Tensor) -> list[Tensor]:
        if self.extra == "pool":
            return [F.max_pool2d(coarsest, kernel_size=1, stride=2)]
        levels: list[Tensor] = []
        for conv in self.down:
            levels.append(conv(F.relu(levels[-1]) if levels else coarsest))
        return levels


def _conv(cin: int, cout: int, kernel: int, norm: bool) -> nn.Module:
    conv = nn.Conv2d(cin, cout, kernel, padding=kernel // 2, bias=not norm)
    return nn.Sequential(conv, nn.BatchNorm2d(cout)) if norm else conv
