"""DeepLabV3 and V3+: dilated convolutions look at a map from several distances at once, and at the picture as a whole.

L.-C. Chen, G. Papandreou, F. Schroff, H. Adam: Rethinking Atrous Convolution for Semantic Image Segmentation, 2017,
arXiv 1706.05587 ("V3"); L.-C. Chen, Y. Zhu, G. Papandreou, F. Schroff, H. Adam: Encoder-Decoder with Atrous Separable
Convolution for Semantic Image Segmentation, 2018, arXiv 1802.02611 ("V3+").

    paper                                              here
    V3 sec. 3.1, atrous convolution, output stride     `backbones.dilation`, `DeepLabConfig.output_stride`
    V3 sec. 3.3, atrous spatial pyramid pooling        `ASPP`
    V3 sec. 3.3, image-level features                  `ASPP.pooled`
    V3+ sec. 3.1, atrous separable convolution         `parts.map_heads.separable`
    V3+ sec. 3.1 and 4.1, decoder                      `Decoder`

Differences from the papers:
- Any backbone of the shared module that can be dilated. V3 also repeats the last stage with growing dilations
  (sec. 3.2, multi-grid); here the stages are the backbone's own. V3+'s modified Xception is not there.
- `refine`, a 3x3 convolution behind the pyramid, dropout before it, and an auxiliary loss on an earlier map are
  torchvision's; V3 has none of them. With a decoder there is no `refine`: it has its own convolutions.
- The mean of the picture is normalised by the running statistics while a batch has but one picture: the mean of one
  number says nothing.

Shapes: N pictures of H x W pixels, K classes, h x w cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from detseg.backbones.dense_maps import UNDILATED, build_dense_backbone
from detseg.backbones.spec import Backbone
from detseg.parts.class_rows import ClassRows
from detseg.parts.grouped_settings import flat, grouped
from detseg.parts.label_maps import enlarged
from detseg.parts.map_configs import Pixels, configured
from detseg.parts.map_heads import conv_norm, initialise, score_head, separable
from detseg.parts.map_losses import LossConfig
from detseg.segmenters.contract import Segmenter

_LOW_STRIDE = 4  # of the map that the decoder sharpens with, V3+ sec. 3.1
_AUXILIARY_DROPOUT = 0.1  # torchvision's


@dataclass(frozen=True)
class DeepLabConfig:
    """What makes a DeepLab; stored in its checkpoint. The defaults are V3's numbers, where it has them."""

    num_classes: int
    backbone: str = "resnet101"
    output_stride: Literal[8, 16, 32] = 16  # V3 sec. 3.1; 8 is finer and slower
    rates: tuple[int, ...] = (6, 12, 18)  # dilations of the pyramid, V3 sec. 3.3; twice as large at output stride 8
    width: int = 256  # channels of each of its branches, V3 sec. 3.3
    image_pooling: bool = True  # the picture's mean as one more branch, V3 sec. 3.3
    separable: bool = False  # convolutions of pyramid and decoder, V3+ sec. 3.1
    dropout: float = 0.5  # behind the pyramid
    refine: bool = True  # a 3x3 convolution behind the pyramid, where there is no decoder
    low_level: int = 0  # channels that the decoder takes of the map of stride 4: 48 in V3+ sec. 4.1; 0: no decoder
    widened: bool = False  # MobileNetV3's own maps, as in `lraspp`
    reduced_tail: bool = False  # of these, the last stage at half width
    auxiliary_weight: float = 0.0  # of what scores on an earlier map learn beside the answer; 0: there are none
    auxiliary_stride: Literal[8, 16] = 16  # of that map, undilated
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        if self.num_classes < 1 or self.width < 1:
            raise ValueError("num_classes and width must be at least 1")
        if any(rate < 1 for rate in self.rates) or self.low_level < 0 or self.auxiliary_weight < 0:
            raise ValueError("rates must be at least 1, low_level and auxiliary_weight at least 0")
        if not 0 <= self.dropout < 1:
            raise ValueError("dropout must be in [0, 1)")
        if self.reduced_tail and not self.widened:
            raise ValueError("only widened maps of a MobileNetV3 have a reduced tail")
        if self.widened and self.output_stride != 16:
            raise ValueError("widened maps of a MobileNetV3 have output_stride 16")

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the backbone's maps, undilated: the decoder's, the auxiliary scores', the pyramid's."""
        low = (_LOW_STRIDE,) if self.low_level else ()
        beside = (self.auxiliary_stride,) if self.auxiliary_weight else ()
        return (*low, *beside, UNDILATED)


class DeepLab(Segmenter):
    """Backbone, pyramid, in V3+ a decoder, scores. Built by `build`."""

    def __init__(self, config: DeepLabConfig, backbone: Backbone) -> None:
        super().__init__(config.loss)
        self.config, self.backbone = config, backbone
        self.auxiliary_weight = config.auxiliary_weight
        channels = [spec.channels for spec in backbone.features]
        width, classes = config.width, config.num_classes
        self.aspp = ASPP(channels[-1], config)
        self.decoder = Decoder(channels[0], config) if config.low_level else None
        refines = config.refine and not config.low_level
        self.refine = conv_norm(width, width, 3) if refines else nn.Identity()
        self.scores = nn.Conv2d(width, classes, 1)
        heads: list[nn.Module] = [self.aspp, self.refine, self.scores]
        self.auxiliary = None
        if config.auxiliary_weight:
            self.auxiliary = score_head(channels[-2], classes, _AUXILIARY_DROPOUT)
            heads.append(self.auxiliary)
        initialise(*heads, *([] if self.decoder is None else [self.decoder]))

    def class_rows(self) -> dict[str, ClassRows]:
        """The scores, also of the auxiliary head."""
        return dict.fromkeys(("scores", "auxiliary.4"), ClassRows())

    def answer(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, h, w) logits: at the output stride, with a decoder at stride 4."""
        return self._said(self.backbone(images))

    def lessons(self, images: Tensor) -> list[Tensor]:
        """The answer and, where there is an auxiliary head, its scores."""
        maps = self.backbone(images)
        beside = [] if self.auxiliary is None else [self.auxiliary(maps[-2])]
        return [self._said(maps), *beside]

    def _said(self, maps: list[Tensor]) -> Tensor:
        x = self.refine(self.aspp(maps[-1]))
        if self.decoder is not None:
            x = self.decoder(maps[0], x)
        scores: Tensor = self.scores(x)
        return scores


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: branches of different reach side by side, brought to `width` channels."""

    def __init__(self, channels: int, config: DeepLabConfig) -> None:
        super().__init__()
        width, conv = config.width, separable if config.separable else conv_norm
        branches = [conv_norm(channels, width), *(conv(channels, width, 3, rate) for rate in config.rates)]
        self.branches = nn.ModuleList(branches)
        self.picture_mean = nn.AdaptiveAvgPool2d(1)  # a layer, so that tiles can be told (`runtimes.picture_means`)
        self.pooled = conv_norm(channels, width) if config.image_pooling else None
        count = len(branches) + config.image_pooling
        self.project = nn.Sequential(*conv_norm(count * width, width), nn.Dropout(config.dropout))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, width, h, w)."""
        seen = [branch(x) for branch in self.branches]
        if self.pooled is not None:
            seen.append(self.pooled(self.picture_mean(x)).expand_as(seen[0]))
        y: Tensor = self.project(torch.cat(seen, dim=1))
        return y


class Decoder(nn.Module):
    """What the pyramid says, enlarged and joined with few channels of a fine map, then two 3x3 convolutions."""

    def __init__(self, low_channels: int, config: DeepLabConfig) -> None:
        super().__init__()
        width, conv = config.width, separable if config.separable else conv_norm
        self.low = conv_norm(low_channels, config.low_level)  # few, so that they do not outweigh the pyramid
        self.mix = nn.Sequential(conv(config.low_level + width, width, 3), conv(width, width, 3))

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """(N, C, h, w) at stride 4 and the pyramid's (N, width, h', w') -> (N, width, h, w)."""
        y: Tensor = self.mix(torch.cat([self.low(low), enlarged(high, low.shape[2:])], dim=1))
        return y


def build(
    config: DeepLabConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> DeepLab:
    """The segmenter of `config`; `backbone_weights` and `progress` as `build_backbone` takes them.

    Raises BackboneError for a backbone that has not these maps, or cannot be dilated.
    """
    backbone = build_dense_backbone(
        config.backbone,
        strides=config.strides,
        output_stride=config.output_stride,
        widened=config.widened,
        reduced_tail=config.reduced_tail,
        weights=backbone_weights,
        progress=progress,
    )
    return DeepLab(config, backbone)


def configure(num_classes: int, options: Mapping[str, Any], pixels: Pixels | None) -> DeepLabConfig:
    """The config for new data: `options` over the defaults; `pixels` and errors as `configured` has them."""
    return configured("DeepLab", DeepLabConfig(num_classes), options, pixels)


def config_from_json(values: dict[str, Any]) -> DeepLabConfig:
    """The config from a checkpoint's JSON (lists become tuples); what is left out is as in `DeepLabConfig`."""
    return grouped(values, DeepLabConfig(1))


def config_to_json(config: DeepLabConfig) -> dict[str, Any]:
    """The config as plain JSON values, flat."""
    return flat(config)
