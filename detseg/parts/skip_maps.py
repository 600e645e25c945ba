"""What a decoder is made of that goes from coarse maps to fine ones along skips: the maps, blocks and steps up.

Shared by the U-Nets (O. Ronneberger et al. 2015, arXiv 1505.04597; Z. Zhou et al. 2018, arXiv 1807.10165). Depthwise
separable convolutions: A. Howard et al., MobileNets, 2017, arXiv 1704.04861; pixel shuffle: W. Shi et al., Efficient
Sub-Pixel Convolution, 2016, arXiv 1609.05158.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeVar

from torch import Tensor, nn

from detseg.parts.label_maps import enlarged
from detseg.parts.norms import BatchNorm

Backbone = TypeVar("Backbone")
Upsampling = Literal["bilinear", "shuffle"]


def with_skips(strides: Sequence[int], built: Callable[[Sequence[int]], Backbone]) -> Backbone:
    """`built(strides)`, a backbone with maps at these; without the finest where it has none so fine.

    A backbone that has not the others, either, is refused in its own words: `built` raises ValueError.
    """
    try:
        return built(strides)
    except ValueError:
        if len(strides) < 3:
            raise
        return built(sorted(strides)[1:])


class Convolutions(nn.Sequential):
    """Two 3x3 convolutions, each with batch norm and ReLU; `separable`: each a depthwise one and a pointwise one."""

    def __init__(self, inputs: int, outputs: int, separable: bool) -> None:
        super().__init__(*_convolution(inputs, outputs, separable), *_convolution(outputs, outputs, separable))


def _convolution(inputs: int, outputs: int, separable: bool) -> Iterator[nn.Module]:
    """Between the two halves of a separable convolution nothing stands: it costs time and helps little."""
    if separable:
        yield started(nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False))
        yield started(nn.Conv2d(inputs, outputs, 1, bias=False))
    else:
        yield started(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
    yield BatchNorm(outputs)
    yield nn.ReLU(inplace=True)


class Larger(nn.Module):
    """A map brought to the size of a finer one: by bilinear interpolation, or by four channels for each, shuffled."""

    def __init__(self, channels: int, how: Upsampling) -> None:
        super().__init__()
        self.shuffle: nn.Module = nn.Identity()
        if how == "shuffle":
            self.shuffle = nn.Sequential(started(nn.Conv2d(channels, 4 * channels, 1)), nn.PixelShuffle(2))

    def forward(self, x: Tensor, size_hw: Sequence[int]) -> Tensor:
        """(N, C, h, w) -> (N, C, *size_hw), about twice as large."""
        return enlarged(self.shuffle(x), (size_hw[0], size_hw[1]))


def started(layer: nn.Conv2d) -> nn.Conv2d:
    """`layer` with weights drawn for ReLU (K. He et al. 2015, arXiv 1502.01852), and no bias yet."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
