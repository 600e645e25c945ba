"""LR-ASPP: one look at the whole picture tells which features count, two 1x1 convolutions say the classes.

A. Howard, M. Sandler, G. Chu, L.-C. Chen, B. Chen, M. Tan, W. Wang, Y. Zhu, R. Pang, V. Vasudevan, Q. V. Le, H. Adam:
Searching for MobileNetV3, 2019, arXiv 1905.02244 ("paper"), section 6.4 and figure 10.

    paper                                              here
    fig. 10, 1x1 convolution, batch norm, ReLU         `LRASPP.high`
    fig. 10, average pooling, 1x1, sigmoid             `LRASPP.gate`
    fig. 10, 1x1 on the map of stride 8                `LRASPP.low_scores`
    sec. 6.4, last stage dilated                       `backbones.dense_maps.DilatedMobileNetV3`
    sec. 6.4, its filters halved                       `LRASPPConfig.reduced_tail`

Differences from the paper:
- The gate looks at the mean of the whole map (torchvision does so, too); the paper pools 49 x 49 windows.
- Any backbone of the shared module; `widened` takes MobileNetV3's maps as the paper and torchvision do.

Shapes: N pictures of H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from detseg.backbones.dense_maps import UNDILATED, build_dense_backbone
from detseg.backbones.spec import Backbone
from detseg.parts.class_rows import ClassRows
from detseg.parts.grouped_settings import flat, grouped
from detseg.parts.label_maps import enlarged
from detseg.parts.map_configs import Pixels, configured
from detseg.parts.map_heads import conv_norm, initialise
from detseg.parts.map_losses import LossConfig
from detseg.segmenters.contract import Segmenter


@dataclass(frozen=True)
class LRASPPConfig:
    """What makes an LR-ASPP; stored in its checkpoint. The defaults are the paper's numbers."""

    num_classes: int
    backbone: str = "mobilenet_v3_large"
    low_stride: Literal[4, 8] = 8  # of the finer map, fig. 10
    output_stride: Literal[8, 16, 32] = 16  # of the coarser map, sec. 6.4
    width: int = 128  # channels of the gated features, fig. 10
    widened: bool = False  # MobileNetV3's own maps: the first block's at stride 8, the last convolution's at 16
    reduced_tail: bool = False  # of these, the last stage at half width, sec. 6.4
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        if self.num_classes < 1 or self.width < 1:
            raise ValueError("num_classes and width must be at least 1")
        if self.reduced_tail and not self.widened:
            raise ValueError("only widened maps of a MobileNetV3 have a reduced tail")
        if self.widened and self.output_stride != 16:
            raise ValueError("widened maps of a MobileNetV3 have output_stride 16")


class LRASPP(Segmenter):
    """Backbone, gated scores on its coarse map, plain ones on its finer map. Built by `build`."""

    def __init__(self, config: LRASPPConfig, backbone: Backbone) -> None:
        super().__init__(config.loss)
        self.config, self.backbone = config, backbone
        low, high = (spec.channels for spec in backbone.features)
        self.high = conv_norm(high, config.width)
        self.picture_mean = nn.AdaptiveAvgPool2d(1)  # a layer, so that tiles can be told (`runtimes.picture_means`)
        self.gate = nn.Sequential(nn.Conv2d(high, config.width, 1, bias=False), nn.Sigmoid())
        self.scores = nn.Conv2d(config.width, config.num_classes, 1)
        self.low_scores = nn.Conv2d(low, config.num_classes, 1)
        initialise(self.high, self.gate, self.scores, self.low_scores)

    def class_rows(self) -> dict[str, ClassRows]:
        """The scores of both maps."""
        return dict.fromkeys(("scores", "low_scores"), ClassRows())

    def answer(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, h, w) logits on the grid of the finer map."""
        low, high = self.backbone(images)
        features = self.high(high) * self.gate(self.picture_mean(high))
        # scores are enlarged, not features: both are linear, and these are fewer
        return self.low_scores(low) + enlarged(self.scores(features), low.shape[2:])


def build(
    config: LRASPPConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> LRASPP:
    """The segmenter of `config`; `backbone_weights` and `progress` as `build_backbone` takes them.

    Raises BackboneError for a backbone that has not both maps, or cannot be dilated.
    """
    backbone = build_dense_backbone(
        config.backbone,
        strides=(config.low_stride, UNDILATED),
        output_stride=config.output_stride,
        widened=config.widened,
        reduced_tail=config.reduced_tail,
        weights=backbone_weights,
        progress=progress,
    )
    return LRASPP(config, backbone)


def configure(num_classes: int, options: Mapping[str, Any], pixels: Pixels | None) -> LRASPPConfig:
    """The config for new data: `options` over the defaults; `pixels` and errors as `configured` has them."""
    return configured("LR-ASPP", LRASPPConfig(num_classes), options, pixels)


def config_from_json(values: dict[str, Any]) -> LRASPPConfig:
    """The config from a checkpoint's JSON; what is left out is as in `LRASPPConfig`."""
    return grouped(values, LRASPPConfig(1))


def config_to_json(config: LRASPPConfig) -> dict[str, Any]:
    """The config as plain JSON values, flat."""
    return flat(config)
