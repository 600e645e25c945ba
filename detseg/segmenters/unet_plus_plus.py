"""U-Net++: U-Nets of every depth, nested, whose nodes all see one another along each row.

Z. Zhou, M. M. Rahman Siddiquee, N. Tajbakhsh, J. Liang: UNet++: A Nested U-Net Architecture for Medical Image
Segmentation, 2018, arXiv 1807.10165 ("paper").

    paper                                              here
    re-designed skip pathways, eq. 1, X^{i,j}          `UNetPlusPlus.top_row`
    deep supervision                                   `UNetPlusPlus.lessons`
    loss of the four outputs                           `UNetPlusPlusConfig.loss`, `.auxiliary_weight`
    accurate mode, the mean of all outputs             `UNetPlusPlusConfig.average`
    fast mode, pruning                                 `.average` False, `.depth`

Differences from the paper:
- The column X^{i,0} is a backbone of the shared module with its ImageNet weights; X^{0,0} has its finest stride, 2 as
  a rule, and the answer is enlarged to the frame.
- Nodes have batch norm and, by default, separable convolutions; enlarging is bilinear.
- The logits of the outputs are averaged, not their probabilities.
- The Dice part is that of `parts.map_losses`, the mean over the classes that a batch shows.

Shapes: N pictures, K classes, C channels. X^{i,j}: row i by resolution, finest first; column j by what it has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from detseg.backbones.catalog import build_backbone
from detseg.backbones.spec import Backbone
from detseg.parts.class_rows import ClassRows
from detseg.parts.grouped_settings import flat, grouped
from detseg.parts.map_configs import Pixels, configured
from detseg.parts.map_losses import LossConfig
from detseg.parts.skip_maps import Convolutions, Larger, Upsampling, with_skips
from detseg.segmenters.contract import Segmenter


@dataclass(frozen=True)
class UNetPlusPlusConfig:
    """What makes a U-Net++; stored in its checkpoint. The defaults are the paper's numbers, on a light backbone."""

    num_classes: int
    backbone: str = "efficientnet_lite0"
    strides: tuple[int, ...] = (2, 4, 8, 16, 32)  # of X^{i,0}; the finest is left out where the backbone has none
    widths: tuple[int, ...] = (32, 64, 128, 256)  # channels of X^{i,j} with j > 0, 32 * 2^i
    separable: bool = True
    upsampling: Upsampling = "bilinear"
    depth: int = 0  # answers rest on X^{0,1} .. X^{0,depth}, the rest is pruned; 0: on all
    average: bool = True  # the mean of these; False: the last of them alone
    auxiliary_weight: float = 1.0  # what each output but the deepest counts
    loss: LossConfig = field(default_factory=lambda: LossConfig("0.5*cross_entropy+dice"))

    def __post_init__(self) -> None:
        if len(self.strides) < 2 or len(self.widths) < len(self.strides) - 1:
            raise ValueError(f"{len(self.strides)} strides: there must be two, and a width for each but the last")
        if min(self.num_classes, *self.widths) < 1 or self.auxiliary_weight < 0:
            raise ValueError("num_classes and widths must be at least 1, auxiliary_weight at least 0")
        if not 0 <= self.depth < len(self.strides):
            raise ValueError(f"depth must be 0 to {len(self.strides) - 1} with {len(self.strides)} strides")


class UNetPlusPlus(Segmenter):
    """Nodes above the diagonal of a triangle whose first column is the backbone. Built by `build`."""

    def __init__(self, config: UNetPlusPlusConfig, backbone: Backbone) -> None:
        super().__init__(config.loss)
        self.config, self.backbone = config, backbone
        rows = len(backbone.features)
        self.deepest = rows - 1
        self.depth = min(config.depth or self.deepest, self.deepest)
        self.auxiliary_weight = config.auxiliary_weight * (self.deepest - 1)  # the contract shares it out
        self.larger, self.nodes = nn.ModuleDict(), nn.ModuleDict()
        for i in range(rows - 1):
            own, width = backbone.features[i].channels, config.widths[i]
            for j in range(1, rows - i):
                below = backbone.features[i + 1].channels if j == 1 else config.widths[i + 1]
                self.larger[f"{i}_{j}"] = Larger(below, config.upsampling)
                self.nodes[f"{i}_{j}"] = Convolutions(own + (j - 1) * width + below, width, config.separable)
        self.classes = nn.ModuleList(nn.Conv2d(config.widths[0], config.num_classes, 1) for _ in range(self.deepest))

    def class_rows(self) -> dict[str, ClassRows]:
        """The last layer of each depth."""
        return {f"classes.{i}": ClassRows() for i in range(self.deepest)}

    def answer(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, h, w) of the size of X^{0,0}."""
        outputs = self.outputs(images, self.depth)
        return torch.stack(outputs).mean(dim=0) if self.config.average else outputs[-1]

    def lessons(self, images: Tensor) -> list[Tensor]:
        """Every output, of whatever depth answers are, the deepest first."""
        return self.outputs(images, self.deepest)[::-1]

    def outputs(self, images: Tensor, depth: int) -> list[Tensor]:
        """(N, 3, H, W) -> (N, K, h, w) from each of X^{0,1} .. X^{0,depth}."""
        return [head(x) for head, x in zip(self.classes, self.top_row(images, depth), strict=False)]

    def top_row(self, images: Tensor, depth: int) -> list[Tensor]:
        """X^{0,1} .. X^{0,depth}; each node is made from all before it in its row and the one below them (eq. 1)."""
        rows = [[x] for x in self.backbone(images)]
        for j in range(1, depth + 1):
            for i in range(depth - j + 1):
                below = self.larger[f"{i}_{j}"](rows[i + 1][j - 1], rows[i][0].shape[2:])
                rows[i].append(self.nodes[f"{i}_{j}"](torch.cat([*rows[i], below], dim=1)))
        return rows[0][1:]


def build(
    config: UNetPlusPlusConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> UNetPlusPlus:
    """The segmenter of `config`; `backbone_weights` and `progress` as `build_backbone` takes them."""

    def built(strides: Sequence[int]) -> Backbone:
        return build_backbone(config.backbone, strides=strides, weights=backbone_weights, progress=progress)

    return UNetPlusPlus(config, with_skips(config.strides, built))


def configure(num_classes: int, options: Mapping[str, Any], pixels: Pixels | None) -> UNetPlusPlusConfig:
    """The config for new data: `options`, flat, over the defaults; class weights, if any, from what `pixels` counts.

    Raises DetsegError for an unknown option or one that does not fit.
    """
    return configured("U-Net++", UNetPlusPlusConfig(num_classes), options, pixels)


def config_from_json(values: dict[str, Any]) -> UNetPlusPlusConfig:
    """The config from a checkpoint's JSON (lists become tuples); what is left out is as in `UNetPlusPlusConfig`."""
    return grouped(values, UNetPlusPlusConfig(1))


def config_to_json(config: UNetPlusPlusConfig) -> dict[str, Any]:
    """The config as plain JSON values, flat."""
    return flat(config)
