"""The maps that a region network looks at: a backbone's, as a feature pyramid or alone.

T.-Y. Lin, P. Dollár, R. Girshick, K. He, B. Hariharan, S. Belongie: Feature Pyramid Networks for Object Detection,
2017, arXiv 1612.03144. C4: only the map of stride 16, its last stage judges the regions (K. He et al. 2016, Deep
Residual Learning, arXiv 1512.03385, appendix A).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from detseg.backbones.catalog import build_backbone
from detseg.backbones.fpn import FeaturePyramid
from detseg.backbones.spec import Backbone, BackboneError, FeatureSpec, Stage
from detseg.backbones.torchvision_zoo import TorchvisionBackbone

Progress = Callable[[int, int | None], None]


class RegionMaps(NamedTuple):
    """The parts: backbone, what follows it, channels of every map, and the backbone's next stage where wanted."""

    backbone: Backbone
    neck: nn.Module
    channels: int
    last_stage: list[nn.Module]
    last_channels: int


def build_region_maps(
    name: str,
    *,
    strides: Sequence[int],
    width: int,
    norm: bool = False,
    extra: bool = False,
    both_ends: bool = False,
    norm_eps: float | None = None,
    last_stage: bool = False,
    weights: str | None = None,
    progress: Progress | None = None,
) -> RegionMaps:
    """The maps of the backbone `name` at `strides`, as a pyramid of `width` channels; 0: its one map as it is.

    `norm`: batch norm in the pyramid; `extra`: one coarser map by taking every second pixel of the last; `both_ends`:
    of a MobileNet the first and the last map of stride 32; `norm_eps`: of the backbone's batch norms, where other than
    its own; `last_stage`: also the stage behind the one map. `weights`, `progress` and errors as `build_backbone` has
    them.
    """
    if both_ends:
        backbone: Backbone = MobileNetEnds(name, weights=weights, progress=progress)
    else:
        backbone = build_backbone(name, strides=strides, weights=weights, progress=progress)
    if norm_eps is not None:
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = norm_eps
    if width:
        neck = FeaturePyramid(backbone.features, width, "pool" if extra else None, norm=norm)
        return RegionMaps(backbone, neck, width, [], 0)
    stage, channels = _stage_behind(name, max(strides), weights, progress) if last_stage else ([], 0)
    return RegionMaps(backbone, nn.Identity(), backbone.features[-1].channels, stage, channels)


def _stage_behind(
    name: str, stride: int, weights: str | None, progress: Progress | None
) -> tuple[list[nn.Module], int]:
    """The stage that follows the map of this stride, and the channels that it makes."""
    deeper = build_backbone(name, strides=(2 * stride,), weights=weights, progress=progress)
    stage = deeper.stages()[-1]
    return stage if isinstance(stage, list) else [stage], deeper.features[-1].channels


class MobileNetEnds(Backbone):
    """A MobileNet's first map of stride 32 and, behind its widening convolution, its last: torchvision's choice."""

    def __init__(self, name: str, *, weights: str | Path | None = None, progress: Progress | None = None) -> None:
        super().__init__()
        if not name.startswith("mobilenet_"):
            raise BackboneError(f"both ends of the last stage are taken of MobileNets, not of {name}")
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
