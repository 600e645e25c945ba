"""Resolution kept instead of halved: strides turned into dilation, weights unchanged.

F. Yu, V. Koltun: Multi-Scale Context Aggregation by Dilated Convolutions, ICLR 2016 (arXiv 1511.07122); "a
trous" in L.-C. Chen et al., DeepLab, 2016 (arXiv 1606.00915), section 3.1. A step of 2 that is not taken
makes everything behind it look twice as far: each second answer of the dense network is the answer of the
strided one. (Not so where a network averages over the whole map, as squeeze-and-excitation does.)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_Windowed = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


def dilate(net: nn.Module, input_strides: Mapping[str, int], output_stride: int) -> None:
    """Rewrites `net` in place so that no module steps beyond `output_stride`.

    `input_strides` tells, for each convolution and pooling by name, the stride of its input before the
    change.
    """
    for name, stride in input_strides.items():
        module = net.get_submodule(name)
        if isinstance(module, _Windowed):
            factor = max(1, stride // output_stride)
            step = _pair(module.stride)[0]
            kept = min(step, max(1, output_stride // stride))
            if factor > 1 or kept != step:
                net.set_submodule(name, _rewritten(module, factor, kept))


def _rewritten(module: _Windowed, factor: int, step: int) -> nn.Module:
    kernel = _pair(module.kernel_size)
    if kernel == (1, 1):
        module.stride = (step, step)
        return module
    padding = _pair(module.padding)  # type: ignore[arg-type]
    loses_step = step < _pair(module.stride)[0]
    dilation = tuple(factor * d for d in _pair(getattr(module, "dilation", 1)))
    # a window without enough padding of its own would shrink the map once it no longer steps
    reach = [max(d * (k - 1) - 2 * p * factor, 0) for d, k, p in zip(dilation, kernel, padding, strict=True)]
    trailing = (reach[0], reach[1]) if loses_step else (0, 0)
    if isinstance(module, nn.Conv2d):
        module.stride, module.dilation = (step, step), (dilation[0], dilation[1])
        module.padding = (padding[0] * factor, padding[1] * factor)
        return PaddedConv2d.from_conv(module, trailing) if any(trailing) else module
    before = (padding[0] * factor, padding[1] * factor)
    after = (before[0] + trailing[0], before[1] + trailing[1])
    mode = "max" if isinstance(module, nn.MaxPool2d) else "mean"
    return DensePool(mode, kernel, (dilation[0], dilation[1]), before, after)


class PaddedConv2d(nn.Conv2d):
    """A convolution that sees `trailing` further rows and columns of zeros below and right."""

    trailing: tuple[int, int] = (0, 0)

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, trailing: tuple[int, int]) -> PaddedConv2d:
        """The same convolution with the same weights."""
        padded = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            conv.bias is not None,
        )
        padded.weight, padded.bias, padded.trailing = conv.weight, conv.bias, trailing
        return padded

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        return super().forward(F.pad(input, (0, self.trailing[1], 0, self.trailing[0])))


class DensePool(nn.Module):
    """Pooling at every pixel with a dilated window; cells outside the map do not count.

    `before` and `after`: rows and columns that the window may reach beyond the map, top left and bottom
    right.
    """

    def __init__(
        self,
        mode: str,
        kernel: tuple[int, int],
        dilation: tuple[int, int],
        before: tuple[int, int],
        after: tuple[int, int],
    ) -> None:
        super().__init__()
        self.mode, self.kernel, self.dilation, self.before, self.after = mode, kernel, dilation, before, after

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W'), H' = H where before + after = dilation * (kernel - 1)."""
        if self.mode == "max":
            return self._over_window(x, float("-inf"), torch.maximum)
        ones = torch.ones_like(x[:1, :1])
        return self._over_window(x, 0.0, torch.add) / self._over_window(ones, 0.0, torch.add)

    def _over_window(self, x: Tensor, outside: float, combine) -> Tensor:  # type: ignore[no-untyped-def]
        (top, left), (bottom, right) = self.before, self.after
        x = F.pad(x, (left, right, top, bottom), value=outside)
        h = x.shape[2] - self.dilation[0] * (self.kernel[0] - 1)
        w = x.shape[3] - self.dilation[1] * (self.kernel[1] - 1)
        result: Tensor | None = None
        for row in range(0, self.dilation[0] * self.kernel[0], self.dilation[0]):
            for column in range(0, self.dilation[1] * self.kernel[1], self.dilation[1]):
                shifted = x[:, :, row : row + h, column : column + w]
                result = shifted if result is None else combine(result, shifted)
        assert result is not None
        return result


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
