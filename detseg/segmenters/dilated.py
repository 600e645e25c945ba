"""Dilated convolutions: a classifier that keeps its resolution, and a module that looks far around each place.

F. Yu, V. Koltun: Multi-Scale Context Aggregation by Dilated Convolutions, 2016, arXiv 1511.07122 ("paper").

    paper                                              here
    sec. 4, front end: VGG without pool4 and pool5     `backbones.convolutional_vgg`, `Dilated.scores`
    sec. 3 and table 1, context module                 `ContextModule`, `DILATIONS`
    eq. 4 and 5, it starts as the identity             `start_as_identity`

Differences from the paper:
- Front end and context module are learnt together; the paper trains the front end first. So that it learns at once,
  its own scores have a loss, too (`auxiliary_weight`).
- The context module pads its maps with zeros and keeps their size; the paper surrounds the picture with a border.
- VGG's frames are padded with zeros to whole cells, at right and bottom, and what is said of the padding is cut off.
- Any backbone of the shared module that can be dilated (`fc=0`): its last map at stride 8 is the front end's.

Shapes: N pictures of H x W pixels, K classes, h x w cells of stride 8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from detseg.backbones.convolutional_vgg import ConvolutionalVGG
from detseg.backbones.dense_maps import UNDILATED, build_dense_backbone
from detseg.backbones.spec import Backbone
from detseg.parts.class_rows import ClassRows
from detseg.parts.frames import padded
from detseg.parts.grouped_settings import flat, grouped
from detseg.parts.label_maps import enlarged
from detseg.parts.map_configs import Pixels, configured
from detseg.parts.map_losses import LossConfig
from detseg.segmenters.contract import Segmenter

DILATIONS = (1, 1, 2, 4, 8, 16, 1)  # of the 3x3 layers, table 1: together they see 67 x 67 cells
WIDTHS = {"basic": (1,) * 7, "large": (2, 2, 4, 8, 16, 32, 32)}  # channels of these layers in multiples of K, table 1
_NOISE = 0.01  # sigma of eq. 5 in shares of the weights beside it; the paper says only that it is much smaller
_CELL = 8


@dataclass(frozen=True)
class DilatedConfig:
    """What makes a dilated network; stored in its checkpoint. The defaults are the paper's."""

    num_classes: int
    backbone: str = "vgg16"  # sec. 4
    fc: int = 4096  # channels of VGG's fc6 and fc7, sec. 4; 0: the scores stand on the last map of a dilated backbone
    context_module: Literal["none", "basic", "large"] = "basic"  # table 1
    dropout: float = 0.5  # behind fc6 and fc7, as in VGG
    auxiliary_weight: float = 0.5  # of what the front end's own scores learn; does not count without a context module
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ValueError("num_classes must be at least 1")
        if not 0 <= self.dropout < 1 or self.fc < 0 or self.auxiliary_weight < 0:
            raise ValueError("dropout must be in [0, 1), fc and auxiliary_weight at least 0")


class Dilated(Segmenter):
    """Front end and context module. Built by `build`."""

    def __init__(self, config: DilatedConfig, backbone: Backbone) -> None:
        super().__init__(config.loss)
        self.config, self.backbone = config, backbone
        self.auxiliary_weight = config.auxiliary_weight
        self.scores = nn.Conv2d(backbone.features[-1].channels, config.num_classes, 1)
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.zeros_(self.scores.bias)  # type: ignore[arg-type]
        self.context: nn.Module = nn.Identity()
        if config.context_module != "none":
            self.context = ContextModule(config.num_classes, WIDTHS[config.context_module])

    def front_end(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, h, w) logits of the front end alone, sec. 4."""
        scores: Tensor = self.scores(self.backbone(padded(images, _CELL) if self.config.fc else images)[-1])
        return scores

    def class_rows(self) -> dict[str, ClassRows]:
        """The scores of the front end, and the context module, whose channels stand for classes one after the other."""
        if not isinstance(self.context, ContextModule):
            return {"scores": ClassRows()}
        sides = pairwise([1, *self.context.widths, 1])
        layers = [name for name, layer in self.context.named_modules() if isinstance(layer, nn.Conv2d)]
        arranged = [ClassRows(each=outputs, inputs=inputs) for inputs, outputs in sides]
        return {"scores": ClassRows(), **{f"context.{n}": a for n, a in zip(layers, arranged, strict=True)}}

    def answer(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, h, w) logits; of a VGG they cover each pixel, H x W."""
        return self._covering(self.context(self.front_end(images)), images)

    def lessons(self, images: Tensor) -> list[Tensor]:
        """The answer and, where there is a context module and they count, the front end's scores."""
        first = self.front_end(images)
        answer = self._covering(self.context(first), images)
        alone = self.config.context_module == "none" or not self.auxiliary_weight
        return [answer] if alone else [answer, self._covering(first, images)]

    def _covering(self, scores: Tensor, images: Tensor) -> Tensor:
        """Of padded frames what is said of the padding is cut off."""
        if not self.config.fc:
            return scores
        height, width = images.shape[2:]
        whole = [-(-side // _CELL) * _CELL for side in (height, width)]
        return enlarged(scores, (whole[0], whole[1]))[:, :, :height, :width]


class ContextModule(nn.Module):
    """Seven 3x3 layers, each dilated as `DILATIONS` says, then one of 1x1: the scores of a place from those around it.

    `widths`: channels of the 3x3 layers in multiples of `channels`. At the start what is not negative comes out as it
    went in; negative scores are cut off by the first layer, as in the paper (table 1, "truncation").
    """

    def __init__(self, channels: int, widths: tuple[int, ...], noise: float = _NOISE) -> None:
        super().__init__()
        self.widths = widths
        sides = [channels, *(channels * width for width in widths)]
        layers: list[nn.Module] = []
        for (inputs, outputs), dilation in zip(pairwise(sides), DILATIONS, strict=True):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(sides[-1], channels, 1))
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                start_as_identity(layer, channels, noise)

    def forward(self, x: Tensor) -> Tensor:
        """(N, K, h, w) -> the same shape."""
        y: Tensor = self.layers(x)
        return y


@torch.no_grad()
def start_as_identity(layer: nn.Conv2d, channels: int, noise: float) -> None:
    """Eq. 5: a filter's middle sums up those inputs that stand for the same of the `channels`, so that they pass.

    The rest is noise, whose deviation is `noise` times the weights in the middle. Where a layer has as many inputs as
    outputs, and both are `channels`, it is eq. 4 but for the noise, of which there is none then.
    """
    outputs, inputs = layer.weight.shape[:2]
    stands_for = [torch.arange(count) * channels // count for count in (outputs, inputs)]
    same = stands_for[0][:, None] == stands_for[1]
    share = channels / outputs
    plain = outputs == inputs == channels
    nn.init.normal_(layer.weight, std=0.0 if plain else noise * share)
    middle = layer.weight[:, :, layer.kernel_size[0] // 2, layer.kernel_size[1] // 2]
    middle[same] = share
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def build(
    config: DilatedConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Dilated:
    """The segmenter of `config`; `backbone_weights` and `progress` as `build_backbone` takes them.

    Raises BackboneError for a backbone that is no VGG where fc6 and fc7 are wanted, or cannot be dilated.
    """
    if config.fc:
        backbone: Backbone = ConvolutionalVGG(
            config.backbone,
            (UNDILATED,),
            width=config.fc,
            dropout=config.dropout,
            dense=True,
            weights=backbone_weights,
            progress=progress,
        )
    else:
        backbone = build_dense_backbone(
            config.backbone, strides=(UNDILATED,), output_stride=_CELL, weights=backbone_weights, progress=progress
        )
    return Dilated(config, backbone)


def configure(num_classes: int, options: Mapping[str, Any], pixels: Pixels | None) -> DilatedConfig:
    """The config for new data: `options` over the defaults; `pixels` and errors as `configured` has them."""
    usual = DilatedConfig(num_classes)
    return configured("The dilated network", usual, options, pixels)


def config_from_json(values: dict[str, Any]) -> DilatedConfig:
    """The config from a checkpoint's JSON; what is left out is as in `DilatedConfig`."""
    return grouped(values, DilatedConfig(1))


def config_to_json(config: DilatedConfig) -> dict[str, Any]:
    """The config as plain JSON values, flat."""
    return flat(config)
