"""The maps that a region network looks at: a backbone's, as a feature pyramid or alone.

T.-Y. Lin, P. Dollár, R. Girshick, K. He, B. Hariharan, S. Belongie: Feature Pyramid Networks for Object Detection,
2017, arXiv 1612.03144. C4: only the map of stride 16, its last stage judges the regions (K. He et al. 2016, Deep
Residual Learning, arXiv 1512.03385, appendix A).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from detseg.backbones.catalog import build_backbone
from detseg.backbones.fpn import FeaturePyramid
from detseg.backbones.spec import Backbone, FeatureSpec, Stage
from detseg.backbones.torchvision_zoo import TorchvisionBackbone

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class MapsConfig:
    """Which maps there are; the defaults are light ones."""

    strides: tuple[int, ...] = (8, 16, 32)  # of the backbone's maps
    width: int = 96  # channels of the pyramid (256 in the paper); 0: the backbone's one map as it is
    norm: bool = False  # batch norm in the pyramid
    extra: bool = True  # one coarser map by taking every second pixel of the last, for proposals only
    both_ends: bool = False  # of a MobileNet the first and the last map of stride 32, and no finer ones
    norm_eps: float | None = None  # of the backbone's batch norms, where other than its own

    def __post_init__(self) -> None:
        if not self.strides or (not self.width and len(self.strides) > 1):
            raise ValueError("several maps need a pyramid: width must be above 0")
        if self.both_ends and self.strides != (32, 32):
            raise ValueError("both ends of a MobileNet's last stage have strides (32, 32)")

    @property
    def count(self) -> int:
        """How many maps proposals are made from."""
        return len(self.strides) + (1 if self.width and self.extra else 0)


class RegionMaps(NamedTuple):
    """The parts: backbone, what follows it, channels of every map, and the backbone's next stage where wanted."""

    backbone: Backbone
    neck: nn.Module
    channels: int
    last_stage: list[nn.Module]
    last_channels: int


def build_region_maps(
    name: str, config: MapsConfig, *, last_stage: bool, weights: str | None, progress: Progress | None
) -> RegionMaps:
    """The maps of the backbone `name`; with `last_stage` also the stage behind its only map.

    Errors as `build_backbone` has them.
    """
    stage: list[nn.Module] = []
    channels = 0
    if config.both_ends:
        backbone: Backbone = MobileNetEnds(name, weights=weights, progress=progress)
    else:
        backbone = build_backbone(name, strides=config.strides, weights=weights, progress=progress)
    if last_stage:
        stride = 2 * max(config.strides)
        deeper = build_backbone(name, strides=(stride,), weights=weights, progress=progress)
        behind = deeper.stages()[-1]
        stage, channels = behind if isinstance(behind, list) else [behind], deeper.features[-1].channels
    if config.norm_eps is not None:
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = config.norm_eps
    if not config.width:
        return RegionMaps(backbone, nn.Identity(), backbone.features[-1].channels, stage, channels)
    neck = FeaturePyramid(backbone.features, config.width, "pool" if config.extra else None, norm=config.norm)
    return RegionMaps(backbone, neck, config.width, stage, channels)


class MobileNetEnds(Backbone):
    """A MobileNet's first map of stride 32 and, behind its widening convolution, its last: torchvision's choice."""

    def __init__(self, name: str, *, weights: str | Path | None = None, progress: Progress | None = None) -> None:
        super().__init__()
        source = TorchvisionBackbone(name, (32,), weights=weights, head_conv=True, progress=progress)
        self.mean, self.std = source.mean, source.std
        layers = source.net.get_submodule("features")
        assert isinstance(layers, nn.Sequential)
        self.layers = nn.Sequential(*layers)
        self._starts = [i for i, layer in enumerate(self.layers) if _steps(layer)]
        first, last = (_channels(self.layers[i]) for i in (self._starts[-1], -1))
        self.features = (FeatureSpec(first, 32), FeatureSpec(last, 32))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> two maps at stride 32."""
        end = self._starts[-1] + 1
        first = self.layers[:end](images)
        return [first, self.layers[end:](first)]

    def stages(self) -> list[Stage]:
        """A stage for each step; see `Backbone.stages`."""
        ends = [*self._starts[1:], len(self.layers)]
        return [list(self.layers)[start:end] for start, end in zip(self._starts, ends, strict=True)]


def _steps(layer: nn.Module) -> bool:
    return any(isinstance(m, nn.Conv2d) and m.stride == (2, 2) for m in layer.modules())


def _channels(layer: nn.Module) -> int:
    return int([m for m in layer.modules() if isinstance(m, nn.Conv2d)][-1].out_channels)
