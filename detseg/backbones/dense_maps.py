"""The maps that segmenters look at: a backbone's, kept fine by dilation, and MobileNetV3's as its paper segments.

A. Howard, M. Sandler, G. Chu, L.-C. Chen, B. Chen, M. Tan, W. Wang, Y. Zhu, R. Pang, V. Vasudevan, Q. V. Le, H. Adam:
Searching for MobileNetV3, 2019, arXiv 1905.02244, section 6.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from detseg.backbones.catalog import build_backbone
from detseg.backbones.spec import Backbone, BackboneError, FeatureSpec, Stage, choose_strides
from detseg.backbones.torchvision_zoo import TorchvisionBackbone

Progress = Callable[[int, int | None], None]
UNDILATED = 32  # the output stride of every backbone as it is


def build_dense_backbone(
    name: str,
    *,
    strides: Sequence[int],
    output_stride: int = UNDILATED,
    widened: bool = False,
    reduced_tail: bool = False,
    weights: str | Path | None = None,
    progress: Progress | None = None,
) -> Backbone:
    """The maps of the backbone `name` at `strides`, none coarser than `output_stride`: 8, 16, or 32 for no dilation.

    `strides` name the undilated ones. `widened`, `reduced_tail`: `DilatedMobileNetV3`, whose output stride is 16.
    `weights`, `progress` and errors as `build_backbone` has them.
    """
    if widened:
        return DilatedMobileNetV3(name, strides, reduced_tail=reduced_tail, weights=weights, progress=progress)
    dilate = output_stride if output_stride < UNDILATED else None
    try:
        return build_backbone(name, strides=strides, weights=weights, dilate=dilate, progress=progress)
    except BackboneError as error:
        if "dilat" not in str(error):
            raise
        raise BackboneError(f"{error}; without dilation it works with the option output_stride={UNDILATED}") from error


class DilatedMobileNetV3(Backbone):
    """A MobileNetV3 at output stride 16: the whole last stage dilated, the convolution kept that widens its last map.

    Features at 2, 4, 8 and 16 are what leaves the first block of that stride, those at "32" the widened map. (With
    `dilate=16` of `build_backbone` they are what leaves the last block, and the first block of the last stage, which
    no longer steps, is not dilated; the paper's network, as torchvision builds it, dilates that one, too.)
    `reduced_tail`: the last stage at half width (sec. 6.4), for which nobody publishes weights.
    """

    def __init__(
        self,
        name: str,
        strides: Sequence[int] = (8, 32),
        *,
        reduced_tail: bool = False,
        weights: str | Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        if not name.startswith("mobilenet_v3"):
            raise BackboneError(f"the widened map is that of mobilenet_v3_large or mobilenet_v3_small, not of {name}")
        if reduced_tail and weights is not None:
            raise BackboneError(f"{name} with a reduced tail has no ImageNet weights; use --backbone-weights none")
        self.layers = self._made(name, reduced_tail, weights, progress)
        self._starts = [i for i, layer in enumerate(self.layers) if _steps(layer)]
        for layer in self.layers[self._starts[-1] :]:
            _dilate(layer)
        last_at = dict(zip((2, 4, 8, 16, 32), [*self._starts[:4], len(self.layers) - 1], strict=True))
        chosen = choose_strides(name, list(last_at), strides)
        self._taps = [last_at[stride] for stride in chosen]
        self.features = tuple(
            FeatureSpec(_channels(self.layers[tap]), min(stride, 16))
            for tap, stride in zip(self._taps, chosen, strict=True)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> one map per spec."""
        x, maps = images, []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self._taps:
                maps.append(x)
        return maps

    def stages(self) -> list[Stage]:
        """A stage for each step of the undilated network; see `Backbone.stages`."""
        return [list(self.layers)[start:end] for start, end in pairwise([*self._starts, len(self.layers)])]

    def _made(
        self, name: str, reduced_tail: bool, weights: str | Path | None, progress: Progress | None
    ) -> nn.Sequential:
        """The undilated layers up to the widening convolution; sets what their weights are normalised by."""
        layers: Any
        if reduced_tail:
            from torchvision import models

            layers = models.get_model(name, weights=None, reduced_tail=True).features
        else:
            source = TorchvisionBackbone(name, (32,), weights=weights, head_conv=True, progress=progress)
            self.mean, self.std = source.mean, source.std
            layers = source.net.get_submodule("features")
        return nn.Sequential(*layers)


def _steps(layer: nn.Module) -> bool:
    return any(isinstance(m, nn.Conv2d) and m.stride == (2, 2) for m in layer.modules())


def _dilate(layer: nn.Module) -> None:
    for conv in layer.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size != (1, 1):
            reach = 2 * (conv.kernel_size[0] // 2)
            conv.stride, conv.dilation, conv.padding = (1, 1), (2, 2), (reach, reach)


def _channels(layer: nn.Module) -> int:
    return int([m for m in layer.modules() if isinstance(m, nn.Conv2d)][-1].out_channels)
