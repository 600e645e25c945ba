"""V-Net in two dimensions: a U-Net of residual stages without pooling, which learns from Dice.

F. Milletari, N. Navab, S.-A. Ahmadi: V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image
Segmentation, 2016, arXiv 1606.04797 ("paper"); K. He et al.: Delving Deep into Rectifiers, 2015, arXiv 1502.01852
(PReLU).

    paper                                              here
    fig. 2, left side, residual stages                 `CompressionPath`, `ResidualStage`
    convolutions of 2 x 2 x 2 with stride 2            `_Stage.step`, instead of pooling
    right side, de-convolutions, forwarded features    `VNet.answer`
    dice loss layer                                    `parts.map_losses.dice`

Differences from the paper:
- Two dimensions and three colours: kernels of 5 x 5 and 2 x 2. The picture, which the paper adds to each of the first
  stage's channels as it is, has three of its own, and a 1x1 convolution makes them as many.
- Batch norm after each convolution with `norm`, as `-m vnet` has it; the paper has none.
- Dice is the mean over all classes that a batch shows; the paper has a foreground only.
- A frame of any size: it is mirrored at its right and lower border up to a multiple of what the steps down divide.

Shapes: N pictures, H x W pixels of the frame, K classes, C channels of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from detseg.backbones.spec import Backbone, FeatureSpec, Stage
from detseg.parts.class_rows import ClassRows
from detseg.parts.grouped_settings import flat, grouped
from detseg.parts.map_configs import Pixels, configured
from detseg.parts.map_losses import LossConfig
from detseg.parts.mirrored import mirrored
from detseg.parts.norms import BatchNorm
from detseg.parts.own_backbone import ITS_OWN, expect_no_weights, expect_own
from detseg.segmenters.contract import Segmenter


@dataclass(frozen=True)
class VNetConfig:
    """What makes a V-Net; stored in its checkpoint. The defaults are the paper's numbers."""

    num_classes: int
    backbone: str = ITS_OWN
    width: int = 16  # channels at full resolution, twice as many after each step down, fig. 2
    convolutions: tuple[int, ...] = (1, 2, 3, 3, 3)  # of each stage, finest first, fig. 2; on the way up likewise
    kernel: int = 5
    norm: bool = False  # batch norm
    loss: LossConfig = field(default_factory=lambda: LossConfig("dice"))

    def __post_init__(self) -> None:
        expect_own(self.backbone, "V-Net")
        if min(self.num_classes, self.width, *self.convolutions) < 1 or len(self.convolutions) < 2:
            raise ValueError("num_classes and width must be at least 1, and convolutions at least 1 in two stages")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError("kernel must be odd: an even one would shift the map")


class VNet(Segmenter):
    """Compression and decompression in residual stages. Built by `build`."""

    def __init__(self, config: VNetConfig) -> None:
        super().__init__(config.loss)
        self.config = config
        self.backbone = CompressionPath(config)
        self.larger, self.up = nn.ModuleList(), nn.ModuleList()
        x = self.backbone.features[-1].channels
        for spec, count in zip(self.backbone.features[-2::-1], config.convolutions[-2::-1], strict=True):
            larger = nn.ConvTranspose2d(x, spec.channels, 2, stride=2, bias=not config.norm)
            self.larger.append(nn.Sequential(larger, *_normed(spec.channels, config.norm), nn.PReLU(spec.channels)))
            x = 2 * spec.channels
            self.up.append(ResidualStage(x, x, count, config))
        self.classes = nn.Conv2d(x, config.num_classes, 1)

    def class_rows(self) -> dict[str, ClassRows]:
        """The last layer."""
        return {"classes": ClassRows()}

    def answer(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, H, W)."""
        height, width = images.shape[2:]
        multiple = self.backbone.features[-1].stride
        *skips, x = self.backbone(mirrored(images, (0, -height % multiple), (0, -width % multiple)))
        for skip, larger, up in zip(reversed(skips), self.larger, self.up, strict=True):
            x = up(torch.cat([larger(x), skip], dim=1))
        maps: Tensor = self.classes(x)
        return maps[:, :, :height, :width]


class CompressionPath(Backbone):
    """The left side of fig. 2: a map for each stage, of `width` channels at stride 1 and on."""

    def __init__(self, config: VNetConfig) -> None:
        super().__init__()
        self.features = tuple(FeatureSpec(config.width * 2**i, 2**i) for i in range(len(config.convolutions)))
        self.parts = nn.ModuleList()
        inputs = 3
        for i, (spec, count) in enumerate(zip(self.features, config.convolutions, strict=True)):
            self.parts.append(_Stage(inputs, spec.channels, count, i > 0, config))
            inputs = spec.channels

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W), multiples of the last stride -> [(N, C, h, w), ...]."""
        x, maps = images, []
        for part in self.parts:
            x = part(x)
            maps.append(x)
        return maps

    def stages(self) -> list[Stage]:
        """The first two together, then one by one; see `Backbone.stages`."""
        parts = list(self.parts)
        return [parts[:2], *parts[2:]]


class _Stage(nn.Module):
    """A step down where there is one, a residual stage behind it."""

    def __init__(self, inputs: int, channels: int, count: int, steps: bool, config: VNetConfig) -> None:
        super().__init__()
        self.step: nn.Module = nn.Identity()
        if steps:
            halving = nn.Conv2d(inputs, channels, 2, stride=2, bias=not config.norm)
            self.step = nn.Sequential(halving, *_normed(channels, config.norm), nn.PReLU(channels))
            inputs = channels
        self.residual = ResidualStage(inputs, channels, count, config)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / 2, W / 2), or of the same size without a step."""
        maps: Tensor = self.residual(self.step(x))
        return maps


class ResidualStage(nn.Module):
    """`count` convolutions; what went in is added before the last PReLU, by a 1x1 convolution where channels differ."""

    def __init__(self, inputs: int, outputs: int, count: int, config: VNetConfig) -> None:
        super().__init__()
        self.along: nn.Module = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        layers: list[nn.Module] = []
        for i in range(count):
            before = inputs if i == 0 else outputs
            layers += [nn.PReLU(outputs)] if i else []
            layers += [nn.Conv2d(before, outputs, config.kernel, padding=config.kernel // 2, bias=not config.norm)]
            layers += _normed(outputs, config.norm)
        self.layers = nn.Sequential(*layers)
        self.last = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H, W)."""
        maps: Tensor = self.last(self.layers(x) + self.along(x))
        return maps


def _normed(channels: int, norm: bool) -> list[nn.Module]:
    return [BatchNorm(channels)] if norm else []


def _start(model: nn.Module) -> None:
    """Weights for PReLU (He et al. 2015, eq. 15, with PyTorch's first slope of 0.25)."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, a=0.25, nonlinearity="leaky_relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def build(
    config: VNetConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> VNet:
    """The segmenter of `config`, its weights random. Raises DetsegError where it is to start from others."""
    expect_no_weights(backbone_weights, "V-Net")
    model = VNet(config)
    _start(model)
    return model


def configure(num_classes: int, options: Mapping[str, Any], pixels: Pixels | None) -> VNetConfig:
    """The config for new data: `options`, flat, over the defaults; class weights, if any, from what `pixels` counts.

    Raises DetsegError for an unknown option or one that does not fit.
    """
    return configured("V-Net", VNetConfig(num_classes), options, pixels)


def config_from_json(values: dict[str, Any]) -> VNetConfig:
    """The config from a checkpoint's JSON (lists become tuples); what is left out is as in `VNetConfig`."""
    return grouped(values, VNetConfig(1))


def config_to_json(config: VNetConfig) -> dict[str, Any]:
    """The config as plain JSON values, flat."""
    return flat(config)
