"""FCN: a classifier made of convolutions alone answers everywhere at once; finer maps sharpen what coarse ones say.

J. Long, E. Shelhamer, T. Darrell: Fully Convolutional Networks for Semantic Segmentation, 2015, arXiv 1411.4038
("paper").

    paper                                              here
    sec. 3.1, fully connected layers as convolutions   `backbones.convolutional_vgg`
    sec. 3.3, upsampling by transposed convolution     `Doubled`
    sec. 3.4 and 4.3, loss of every pixel              `Segmenter.losses`
    sec. 4.2, FCN-32s, FCN-16s, FCN-8s                 `FCNConfig.strides`, `FCN.fused`
    sec. 4.3, scores start at zero                     `FCN.__init__`
    sec. 4.3, the last upsampling is fixed             `FCN.answer`

Differences from the paper:
- All scores are learnt at once. The paper trains FCN-32s, then adds pool4 and pool3 one after the other.
- Frames are padded with zeros to whole cells of the coarsest map, at right and bottom, and what is said of the padding
  is cut off. The paper pads by 100 pixels on all sides and crops.
- What is enlarged is continued beyond its border first; without that a bilinear filter lets scores fall to zero there.
- Any backbone of the shared module: scores by 1x1 convolutions on its own maps (`fc=0`), learnt or plain enlargement.
- `output_stride` and `hidden`: one dilated map under a 3x3 convolution, which is what torchvision calls FCN.

Shapes: N pictures of H x W pixels, K classes, h x w cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detseg.backbones.convolutional_vgg import ConvolutionalVGG
from detseg.backbones.dense_maps import UNDILATED, build_dense_backbone
from detseg.backbones.spec import Backbone
from detseg.parts.class_rows import ClassRows
from detseg.parts.frames import padded
from detseg.parts.grouped_settings import flat, grouped
from detseg.parts.label_maps import enlarged
from detseg.parts.map_configs import Pixels, configured
from detseg.parts.map_heads import initialise, score_head
from detseg.parts.map_losses import LossConfig
from detseg.segmenters.contract import Segmenter

_AUXILIARY_STRIDE = 16


@dataclass(frozen=True)
class FCNConfig:
    """What makes an FCN; stored in its checkpoint. The defaults are the paper's FCN-8s."""

    num_classes: int
    backbone: str = "vgg16"  # sec. 4.1
    strides: tuple[int, ...] = (8, 16, 32)  # of the maps that have scores: FCN-8s; (32,) is FCN-32s, sec. 4.2
    fc: int = 4096  # channels of VGG's fc6 and fc7, sec. 4.1; 0: the scores stand on the backbone's last map
    upsampling: Literal["learnt", "bilinear"] = "learnt"  # between those maps, sec. 4.3
    output_stride: Literal[8, 16, 32] = 32  # of the one map where the backbone is dilated
    hidden: bool = False  # a 3x3 convolution to a quarter of the channels before the scores
    dropout: float = 0.5  # behind fc6 and fc7 as in VGG, or before the scores of a hidden layer
    auxiliary_weight: float = 0.0  # of what scores on the map of stride 16 learn beside the answer; 0: there are none
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        steps = tuple(UNDILATED >> i for i in reversed(range(len(self.strides))))
        if self.num_classes < 1:
            raise ValueError("num_classes must be at least 1")
        if not self.strides or self.strides != steps:
            raise ValueError(f"strides must end with 32 and double from one to the next, got {self.strides}")
        if self.fc and (self.hidden or self.output_stride < UNDILATED or self.auxiliary_weight):
            raise ValueError("with fc6 and fc7 (fc above 0) there is no hidden layer, dilation or auxiliary loss")
        if self.output_stride < UNDILATED and len(self.strides) > 1:
            raise ValueError("a dilated backbone has one map: strides must be (32,)")
        if self.auxiliary_weight and (len(self.strides) > 1 or self.auxiliary_weight < 0):
            raise ValueError("auxiliary_weight must be at least 0, and 0 where several maps have scores")
        if not 0 <= self.dropout < 1 or self.fc < 0:
            raise ValueError("dropout must be in [0, 1), fc at least 0")

    @property
    def whole_cells(self) -> bool:
        """Whether frames are padded to whole cells of the coarsest map, so that maps of all strides lie on another."""
        return bool(self.fc) or len(self.strides) > 1


class FCN(Segmenter):
    """Backbone, scores on each of its maps, the coarser ones enlarged and added to the finer. Built by `build`."""

    def __init__(self, config: FCNConfig, backbone: Backbone) -> None:
        super().__init__(config.loss)
        self.config, self.backbone = config, backbone
        self.auxiliary_weight = config.auxiliary_weight
        channels = [spec.channels for spec in backbone.features]
        classes, dropout = config.num_classes, config.dropout
        self.auxiliary = score_head(channels.pop(0), classes, dropout) if config.auxiliary_weight else None
        heads = [score_head(c, classes, dropout) if config.hidden else nn.Conv2d(c, classes, 1) for c in channels]
        self.scores = nn.ModuleList(heads)  # finest first
        learnt = config.upsampling == "learnt"
        self.larger = nn.ModuleList(Doubled(classes) if learnt else nn.Identity() for _ in channels[1:])
        initialise(*self.scores, *([] if self.auxiliary is None else [self.auxiliary]))
        for head in heads:
            if isinstance(head, nn.Conv2d):
                nn.init.zeros_(head.weight)

    def class_rows(self) -> dict[str, ClassRows]:
        """The scores of each map, and what enlarges them."""
        last = ".4" if self.config.hidden else ""
        scores = [*(f"scores.{i}{last}" for i in range(len(self.scores))), "auxiliary.4"]
        larger = (f"larger.{i}" for i in range(len(self.larger)))
        return {**dict.fromkeys(scores, ClassRows()), **dict.fromkeys(larger, ClassRows(inputs=1))}

    def answer(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, h, w) logits; where maps are fused they cover each pixel, H x W."""
        return self._said(self._seen(images), images)

    def lessons(self, images: Tensor) -> list[Tensor]:
        """The answer and, where there is an auxiliary head, its scores."""
        maps = self._seen(images)
        beside = [] if self.auxiliary is None else [self.auxiliary(maps[0])]
        return [self._said(maps, images), *beside]

    def fused(self, maps: list[Tensor]) -> Tensor:
        """Maps, finest first -> (N, K, h, w) on the grid of the finest: coarse scores enlarged, finer ones added."""
        *finer, last = (score(x) for score, x in zip(self.scores, maps, strict=True))
        for larger, scores in zip(self.larger, reversed(finer), strict=True):
            last = enlarged(larger(last), scores.shape[2:]) + scores
        return last

    def _seen(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.backbone(padded(images, UNDILATED) if self.config.whole_cells else images)
        return maps

    def _said(self, maps: list[Tensor], images: Tensor) -> Tensor:
        scores = self.fused(maps if self.auxiliary is None else maps[1:])
        if not self.config.whole_cells:
            return scores
        height, width = images.shape[2:]
        whole = [-(-side // UNDILATED) * UNDILATED for side in (height, width)]
        return enlarged(scores, (whole[0], whole[1]))[:, :, :height, :width]


class Doubled(nn.Module):
    """A transposed convolution that doubles a map's sides and starts as bilinear interpolation, sec. 3.3 and 4.3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, channels, 4, 4))
        slope = torch.tensor([0.25, 0.75, 0.75, 0.25])  # shares of a cell in the four pixels around it along one axis
        with torch.no_grad():
            self.weight[range(channels), range(channels)] = torch.outer(slope, slope)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, 2h, 2w)."""
        continued = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(continued, self.weight, stride=2, padding=3)


def build(
    config: FCNConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> FCN:
    """The segmenter of `config`; `backbone_weights` and `progress` as `build_backbone` takes them.

    Raises BackboneError for a backbone that has not these maps, is no VGG where fc6 and fc7 are wanted, or cannot be
    dilated.
    """
    if config.fc:
        backbone: Backbone = ConvolutionalVGG(
            config.backbone,
            config.strides,
            width=config.fc,
            dropout=config.dropout,
            weights=backbone_weights,
            progress=progress,
        )
    else:
        beside = (_AUXILIARY_STRIDE,) if config.auxiliary_weight else ()
        backbone = build_dense_backbone(
            config.backbone,
            strides=(*beside, *config.strides),
            output_stride=config.output_stride,
            weights=backbone_weights,
            progress=progress,
        )
    return FCN(config, backbone)


def configure(num_classes: int, options: Mapping[str, Any], pixels: Pixels | None) -> FCNConfig:
    """The config for new data: `options` over the defaults; `pixels` and errors as `configured` has them."""
    return configured("FCN", FCNConfig(num_classes), options, pixels)


def config_from_json(values: dict[str, Any]) -> FCNConfig:
    """The config from a checkpoint's JSON (lists become tuples); what is left out is as in `FCNConfig`."""
    return grouped(values, FCNConfig(1))


def config_to_json(config: FCNConfig) -> dict[str, Any]:
    """The config as plain JSON values, flat."""
    return flat(config)
