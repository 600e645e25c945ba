"""SegNet: the encoder remembers where each maximum stood, the decoder puts it back there.

V. Badrinarayanan, A. Kendall, R. Cipolla: SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image
Segmentation, 2017, arXiv 1511.00561 ("paper").

    paper                                              here
    sec. 3, encoder: the 13 convolutions of VGG16      `Encoder`, `vgg_blocks`
    sec. 3, upsampling by the maxima's places          `unpooled`
    sec. 3, decoder, one for each encoder              `decoder_block`
    sec. 3, soft-max classifier at each pixel          `SegNet.scores`
    SegNet-Basic: four blocks of 7x7, 64 channels      `basic_blocks`, backbone "basic"

Differences from the paper:
- Sides that are odd are pooled with a window that reaches over the edge, and unpooled to their own size, so that
  frames of any size work and no row is lost.
- SegNet-Basic's encoder has no local contrast normalisation of its input in front; frames are normalised as others'.

Shapes: N pictures of H x W pixels, K classes, h x w cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from detseg.backbones.spec import Backbone, BackboneError, FeatureSpec, Stage, stage_index
from detseg.backbones.torchvision_zoo import TorchvisionBackbone
from detseg.parts.class_rows import ClassRows
from detseg.parts.grouped_settings import flat, grouped
from detseg.parts.map_configs import Pixels, configured
from detseg.parts.map_losses import LossConfig
from detseg.parts.norms import BatchNorm
from detseg.segmenters.contract import Segmenter

BASIC = "basic"  # the backbone of SegNet-Basic
_BASIC_BLOCKS, _BASIC_KERNEL = 4, 7


@dataclass(frozen=True)
class SegNetConfig:
    """What makes a SegNet; stored in its checkpoint. The defaults are the paper's."""

    num_classes: int
    backbone: str = "vgg16_bn"  # sec. 3; any VGG with batch norm, or "basic"
    width: int = 64  # channels of SegNet-Basic; a VGG has its own
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        if self.num_classes < 1 or self.width < 1:
            raise ValueError("num_classes and width must be at least 1")


class SegNet(Segmenter):
    """Encoder, the decoder that mirrors it, scores. Built by `build`."""

    def __init__(self, config: SegNetConfig, backbone: Encoder) -> None:
        super().__init__(config.loss)
        self.config, self.backbone = config, backbone
        rectified = config.backbone != BASIC  # SegNet-Basic's decoder is linear
        self.decoder = nn.ModuleList(decoder_block(block, rectified) for block in reversed(list(backbone.blocks)))
        self.scores = nn.Conv2d(_convolutions(backbone.blocks[0])[0].out_channels, config.num_classes, 1)
        for layer in self.decoder.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def class_rows(self) -> dict[str, ClassRows]:
        """The scores."""
        return {"scores": ClassRows()}

    def answer(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, H, W) logits."""
        x, places = self.backbone.encode(images)
        for block, place in zip(self.decoder, reversed(places), strict=True):
            x = block(unpooled(x, *place))
        scores: Tensor = self.scores(x)
        return scores


Place = tuple[Tensor, tuple[int, int]]  # of a pooling: where in each channel the maxima stood, the map's height, width


class Encoder(Backbone):
    """Blocks of convolutions, each pooled by 2; its one feature map is what leaves the last pooling."""

    def __init__(self, blocks: Iterable[nn.Sequential]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        last = _convolutions(self.blocks[-1])[-1]
        self.features = (FeatureSpec(last.out_channels, 2 ** len(self.blocks)),)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> its one map."""
        return [self.encode(images)[0]]

    def encode(self, images: Tensor) -> tuple[Tensor, list[Place]]:
        """(N, 3, H, W) -> the last map, and for each pooling where its maxima stood."""
        x, places = images, []
        for block in self.blocks:
            x = block(x)
            height, width = x.shape[2:]
            x, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
            places.append((indices, (height, width)))
        return x, places

    def stages(self) -> list[Stage]:
        """A stage for each stride; see `Backbone.stages`."""
        stages: list[list[nn.Module]] = []
        for i, block in enumerate(self.blocks):
            if stage_index(2**i) == len(stages):
                stages.append([])
            stages[-1].append(block)
        return list(stages)


def vgg_blocks(features: Iterable[nn.Module]) -> list[nn.Sequential]:
    """The layers of a VGG, cut at its poolings, which are left out."""
    blocks: list[list[nn.Module]] = [[]]
    for layer in features:
        if isinstance(layer, nn.MaxPool2d):
            blocks.append([])
        else:
            blocks[-1].append(layer)
    return [nn.Sequential(*block) for block in blocks if block]


def basic_blocks(width: int) -> list[nn.Sequential]:
    """SegNet-Basic's encoder: four convolutions of 7x7 without biases, each with batch norm and ReLU."""
    sides = [3, *(width,) * (_BASIC_BLOCKS - 1)]
    blocks = [_block([(inputs, width)], _BASIC_KERNEL) for inputs in sides]
    for block in blocks:
        nn.init.kaiming_normal_(_convolutions(block)[0].weight, nonlinearity="relu")
    return blocks


def decoder_block(encoder_block: nn.Module, rectified: bool) -> nn.Sequential:
    """An encoder's convolutions the other way round; the first block's keep their channels, for the scores."""
    convolutions = _convolutions(encoder_block)
    steps = [(c.out_channels, c.in_channels) for c in reversed(convolutions)]
    if steps[-1][1] == 3:  # the picture's
        steps[-1] = (steps[-1][0], steps[-1][0])
    return _block(steps, convolutions[0].kernel_size[0], rectified)


def unpooled(x: Tensor, indices: Tensor, hw: tuple[int, int]) -> Tensor:
    """(N, C, h, w) and the places of these values in maps of `hw` -> (N, C, *hw), 0 elsewhere."""
    cells = x.new_zeros(x.shape[0], x.shape[1], hw[0] * hw[1])
    return cells.scatter(2, indices.flatten(2), x.flatten(2)).unflatten(2, hw)


def _block(steps: Sequence[tuple[int, int]], kernel: int, rectified: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in steps:
        layers += [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), BatchNorm(outputs)]
        layers += [nn.ReLU(inplace=True)] if rectified else []
    return nn.Sequential(*layers)


def _convolutions(block: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]


def build(
    config: SegNetConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> SegNet:
    """The segmenter of `config`; `backbone_weights` and `progress` as `build_backbone` takes them.

    Raises BackboneError for a backbone that is neither a VGG nor "basic", and for weights of "basic", which nobody
    publishes.
    """
    return SegNet(config, _encoder(config, backbone_weights, progress))


def _encoder(config: SegNetConfig, weights: str | None, progress: Callable[[int, int | None], None] | None) -> Encoder:
    if config.backbone == BASIC:
        if weights is not None:
            raise BackboneError("SegNet-Basic has no ImageNet weights; use --backbone-weights none")
        return Encoder(basic_blocks(config.width))
    if not config.backbone.startswith("vgg"):
        raise BackboneError(
            f"SegNet mirrors a VGG, such as vgg16_bn, or is built on {BASIC!r}, not on {config.backbone}; fcn and "
            "deeplabv3plus take any backbone"
        )
    source = TorchvisionBackbone(config.backbone, (32,), weights=weights, progress=progress)
    encoder = Encoder(vgg_blocks(source.net.get_submodule("features").children()))
    encoder.mean, encoder.std = source.mean, source.std
    return encoder


def configure(num_classes: int, options: Mapping[str, Any], pixels: Pixels | None) -> SegNetConfig:
    """The config for new data: `options` over the defaults; `pixels` and errors as `configured` has them."""
    return configured("SegNet", SegNetConfig(num_classes), options, pixels)


def config_from_json(values: dict[str, Any]) -> SegNetConfig:
    """The config from a checkpoint's JSON; what is left out is as in `SegNetConfig`."""
    return grouped(values, SegNetConfig(1))


def config_to_json(config: SegNetConfig) -> dict[str, Any]:
    """The config as plain JSON values, flat."""
    return flat(config)
