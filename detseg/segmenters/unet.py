"""U-Net: down to what is seen, up again to where it is, each step up beside the map of its own size from the way down.

O. Ronneberger, P. Fischer, T. Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015, arXiv
1505.04597 ("paper").

    paper                                              here
    sec. 2, fig. 1, contracting path                   `ContractingPath`
    sec. 2, fig. 1, expansive path, cropped skips      `ValidUNet.tile`
    sec. 2, fig. 2, overlap-tile strategy              `ValidUNet.answer`, `parts.mirrored`
    sec. 2, input sizes that divide evenly             `least_tile`
    sec. 3, eq. 1, cross entropy with weights          `parts.map_losses.cross_entropy`
    sec. 3, eq. 2, weights of the gaps between cells   `augment.border_weights`
    sec. 3, drawing the first weights                  `parts.skip_maps.started`
    sec. 3.1, drop-out                                 `UNetConfig.dropout`
    the same on any backbone                           `UNet`

Two networks. With `padding` "valid" it is the paper's: convolutions that answer only where they saw no border, and a
frame that is mirrored at its borders so that the answer covers it. With "same" the way down is a backbone of the
shared module with its ImageNet weights, and the way up is made light, for CPUs.

Differences from the paper, of the first:
- A frame of any size: at its right and lower border it is mirrored up to the next size that the network can halve.
  Where a frame is smaller than its margin it is mirrored again and again.
- Three colours. The share of units that drop out is not told in the paper; it is 0.5 here, at the deepest map.
Of the second:
- Batch norm (S. Ioffe, C. Szegedy 2015), padding, fewer channels, separable convolutions, bilinear enlargement. The
  answer has the resolution of the finest skip, and is enlarged to the frame. With `stem`, each cell of the finest skip
  sees the pixels it stands for, and answers for every one of them (pixel shuffle, W. Shi et al. 2016, 1609.05158).
  A skip of full resolution instead makes a step on a CPU twice as long.

Shapes: N pictures, H x W pixels of the frame, K classes, C channels of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detseg.backbones.catalog import build_backbone
from detseg.backbones.spec import Backbone, FeatureSpec, Stage
from detseg.parts.class_rows import ClassRows
from detseg.parts.grouped_settings import flat, grouped
from detseg.parts.map_configs import Pixels, configured
from detseg.parts.map_losses import LossConfig
from detseg.parts.mirrored import mirrored
from detseg.parts.own_backbone import ITS_OWN, expect_no_weights, expect_own
from detseg.parts.skip_maps import Convolutions, Larger, Upsampling, started, with_skips
from detseg.segmenters.contract import Segmenter


@dataclass(frozen=True)
class UNetConfig:
    """What makes a U-Net; stored in its checkpoint. The defaults are the paper's numbers."""

    num_classes: int
    backbone: str = ITS_OWN
    padding: Literal["valid", "same"] = "valid"  # sec. 2; "same": on a backbone of the shared module
    # of the paper's network
    width: int = 64  # channels at full resolution, twice as many after each step down, fig. 1
    steps: int = 4  # down, fig. 1
    dropout: float = 0.5  # at the end of the contracting path, sec. 3.1
    # of the one on a backbone
    strides: tuple[int, ...] = (2, 4, 8, 16, 32)  # the skips; the finest is left out where the backbone has none
    widths: tuple[int, ...] = (32, 48, 64, 96)  # channels of the way up beside each skip, finest first
    stem: int = 0  # channels made of the frame's pixels, beside the finest skip; 0: none, and one answer a cell
    separable: bool = True
    upsampling: Upsampling = "bilinear"
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        if min(self.num_classes, self.width, self.steps, *self.widths) < 1 or self.stem < 0:
            raise ValueError("num_classes, width, steps and widths must be at least 1, stem at least 0")
        if not 0 <= self.dropout < 1:
            raise ValueError("dropout must lie within [0, 1)")
        if self.padding == "valid":
            expect_own(self.backbone, "the U-Net of the paper")
        elif self.backbone == ITS_OWN:
            raise ValueError('padding "same" wants a backbone; the network of the paper is -m unet-valid')
        elif len(self.strides) < 2 or len(self.widths) < len(self.strides) - 1:
            raise ValueError(f"{len(self.strides)} strides: there must be two, and a width for each but the last")

    @property
    def context(self) -> int:
        """Pixels around a tile, of a `least_tile`'s size, that its answer rests on; 0 with padding "same"."""
        return 6 * 2**self.steps - 4 if self.padding == "valid" else 0


class ValidUNet(Segmenter):
    """The network of the paper. Built by `build`."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config.loss)
        self.config = config
        self.backbone = ContractingPath(config.width, config.steps, config.dropout)
        channels = [spec.channels for spec in self.backbone.features]
        self.larger, self.up = nn.ModuleList(), nn.ModuleList()
        for fine, coarse in zip(channels[-2::-1], channels[:0:-1], strict=True):  # deepest first
            self.larger.append(nn.ConvTranspose2d(coarse, fine, 2, stride=2))
            self.up.append(valid_convolutions(2 * fine, fine))
        self.classes = nn.Conv2d(channels[0], config.num_classes, 1)

    def class_rows(self) -> dict[str, ClassRows]:
        """The last layer."""
        return {"classes": ClassRows()}

    def answer(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, H, W): the frame mirrored at its borders, as one tile (fig. 2)."""
        context, (height, width) = self.config.context, images.shape[2:]
        below, right = (least_tile(side, self.config.steps) - side + context for side in (height, width))
        return self.tile(mirrored(images, (context, below), (context, right)))[:, :, :height, :width]

    def tile(self, images: Tensor) -> Tensor:
        """(N, 3, H + 2 c, W + 2 c) with c = `config.context` -> (N, K, H, W), where H and W are `least_tile`s.

        Tiles of one picture agree where they overlap if their offsets are multiples of 2 ** steps.
        """
        *skips, x = self.backbone(images)
        for skip, larger, up in zip(reversed(skips), self.larger, self.up, strict=True):
            x = larger(x)
            x = up(torch.cat([cropped(skip, x.shape[2], x.shape[3]), x], dim=1))
        maps: Tensor = self.classes(x)
        return maps


class ContractingPath(Backbone):
    """The left side of fig. 1: after each pair of convolutions a map, of `width` channels at stride 1 and on.

    Nothing is padded: each map is smaller than the frame's size by its stride.
    """

    def __init__(self, width: int, steps: int, dropout: float) -> None:
        super().__init__()
        self.features = tuple(FeatureSpec(width * 2**i, 2**i) for i in range(steps + 1))
        channels = [3, *(spec.channels for spec in self.features)]
        self.levels = nn.ModuleList(valid_convolutions(i, o) for i, o in pairwise(channels))
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> [(N, C, h, w), ...]."""
        x, maps = images, []
        for i, level in enumerate(self.levels):
            x = level(F.max_pool2d(x, 2) if i else x)
            maps.append(x)
        return [*maps[:-1], self.dropout(maps[-1])]

    def stages(self) -> list[Stage]:
        """The first two levels, then one by one; see `Backbone.stages`."""
        levels = list(self.levels)
        return [levels[:2], *levels[2:]]


def valid_convolutions(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions without padding, each with ReLU: four rows and columns are lost."""
    return nn.Sequential(
        started(nn.Conv2d(inputs, outputs, 3)),
        nn.ReLU(inplace=True),
        started(nn.Conv2d(outputs, outputs, 3)),
        nn.ReLU(inplace=True),
    )


def cropped(skip: Tensor, height: int, width: int) -> Tensor:
    """(N, C, h, w) -> its middle (N, C, height, width); as much is lost on either side."""
    top, left = (skip.shape[2] - height) // 2, (skip.shape[3] - width) // 2
    return skip[:, :, top : top + height, left : left + width]


def least_tile(length: int, steps: int) -> int:
    """The least side of an answer, at least `length`, whose maps are even wherever they are halved.

    A deepest map of b rows is an answer of 2^steps b - 4 (2^steps - 1).
    """
    step, lost = 2**steps, 4 * (2**steps - 1)
    return -(-(length + lost) // step) * step - lost


class UNet(Segmenter):
    """A backbone's maps as the way down, a light way up. Built by `build`."""

    def __init__(self, config: UNetConfig, backbone: Backbone) -> None:
        super().__init__(config.loss)
        self.config, self.backbone = config, backbone
        *skips, x = (spec.channels for spec in backbone.features)
        widths = [*config.widths[: len(skips)]]
        self.stem: nn.Module | None = None
        cell = 1
        if config.stem:
            cell = backbone.features[0].stride
            self.stem = nn.Sequential(Unshuffled(cell), Convolutions(3 * cell**2, config.stem, separable=False))
            skips[0] += config.stem
        self.larger, self.up = nn.ModuleList(), nn.ModuleList()
        for skip, width in zip(reversed(skips), reversed(widths), strict=True):
            self.larger.append(Larger(x, config.upsampling))
            self.up.append(Convolutions(skip + x, width, config.separable))
            x = width
        self.cell = cell  # rows and columns that a cell of the finest skip answers for
        self.classes = nn.Conv2d(x, config.num_classes * cell**2, 1)

    def class_rows(self) -> dict[str, ClassRows]:
        """The last layer."""
        return {"classes": ClassRows(each=self.cell**2)}

    def answer(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, h, w) of the size of the finest skip; with a stem, of the frame."""
        *skips, x = self.backbone(images)
        if self.stem is not None:
            skips[0] = torch.cat([skips[0], self.stem(images)], dim=1)
        for skip, larger, up in zip(reversed(skips), self.larger, self.up, strict=True):
            x = up(torch.cat([skip, larger(x, skip.shape[2:])], dim=1))
        maps: Tensor = self.classes(x)
        if self.cell > 1:
            maps = F.pixel_shuffle(maps, self.cell)[:, :, : images.shape[2], : images.shape[3]]
        return maps


class Unshuffled(nn.Module):
    """The pixels of every cell as channels; where a cell juts out of the frame, its last pixels again."""

    def __init__(self, cell: int) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3 * cell**2, H / cell, W / cell), rounded up."""
        below, right = (-length % self.cell for length in images.shape[2:])
        if below or right:
            images = F.pad(images, (0, right, 0, below), mode="replicate")
        return F.pixel_unshuffle(images, self.cell)


def build(
    config: UNetConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Segmenter:
    """The segmenter of `config`; `backbone_weights` and `progress` as `build_backbone` takes them.

    Raises DetsegError for backbone weights of the paper's network, BackboneError as `build_backbone` does.
    """
    if config.padding == "valid":
        expect_no_weights(backbone_weights, "the U-Net of the paper")
        return ValidUNet(config)

    def built(strides: Sequence[int]) -> Backbone:
        return build_backbone(config.backbone, strides=strides, weights=backbone_weights, progress=progress)

    return UNet(config, with_skips(config.strides, built))


def configure(num_classes: int, options: Mapping[str, Any], pixels: Pixels | None) -> UNetConfig:
    """The config for new data: `options`, flat, over the defaults; class weights, if any, from what `pixels` counts.

    Raises DetsegError for an unknown option or one that does not fit.
    """
    return configured("U-Net", UNetConfig(num_classes), options, pixels)


def config_from_json(values: dict[str, Any]) -> UNetConfig:
    """The config from a checkpoint's JSON (lists become tuples); `context` follows from the rest."""
    return grouped({name: value for name, value in values.items() if name != "context"}, UNetConfig(1))


def config_to_json(config: UNetConfig) -> dict[str, Any]:
    """The config as plain JSON values, flat, and with it the `context` that whoever cuts tiles must know."""
    return {**flat(config), "context": config.context}
