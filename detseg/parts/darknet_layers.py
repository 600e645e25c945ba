"""Darknet's layers, where they differ from torch's own. Every one keeps Darknet's arithmetic, padding and order.

Shapes: (N, C, H, W) in and out. Source: the layers' definitions in Darknet, J. Redmon and A. Bochkovskiy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Elementwise(nn.Module):
    """An activation that torch has no module for."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        return self.function(x)


def _hard_mish(x: Tensor) -> Tensor:
    return x * (x + 2).clamp(0, 2) / 2


def _loggy(x: Tensor) -> Tensor:
    return 2 * x.sigmoid() - 1


def _ramp(x: Tensor) -> Tensor:
    return x.relu() + 0.1 * x


def _plse(x: Tensor) -> Tensor:
    outside = torch.where(x > 0, 0.01 * (x - 4) + 1, 0.01 * (x + 4))
    return torch.where(x.abs() <= 4, 0.125 * x + 0.5, outside)


def _lhtan(x: Tensor) -> Tensor:
    return torch.where(x < 0, 0.001 * x, torch.where(x > 1, 0.001 * (x - 1) + 1, x))


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "logistic": nn.Sigmoid,
    "relu": partial(nn.ReLU, inplace=True),
    "relu6": partial(nn.ReLU6, inplace=True),
    "leaky": partial(nn.LeakyReLU, 0.1, inplace=True),
    "elu": partial(nn.ELU, inplace=True),
    "selu": partial(nn.SELU, inplace=True),
    "gelu": partial(nn.GELU, approximate="tanh"),
    "mish": partial(nn.Mish, inplace=True),
    "hard_mish": partial(Elementwise, _hard_mish),
    "swish": partial(nn.SiLU, inplace=True),
    "tanh": nn.Tanh,
    "loggy": partial(Elementwise, _loggy),
    "relie": partial(nn.LeakyReLU, 0.01, inplace=True),
    "ramp": partial(Elementwise, _ramp),
    "plse": partial(Elementwise, _plse),
    "lhtan": partial(Elementwise, _lhtan),
    "hardtan": partial(nn.Hardtanh, inplace=True),
    "hard_swish": partial(nn.Hardswish, inplace=True),
    "hard_sigmoid": partial(nn.Hardsigmoid, inplace=True),
}


class Convolution(nn.Module):
    """Convolution, batch norm where there is one, activation. `padding` counts undilated pixels."""

    def __init__(
        self,
        in_channels: int,
        filters: int,
        size: int,
        stride_yx: tuple[int, int] = (1, 1),
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        norm: bool = True,
        activation: str = "leaky",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, filters, size, stride_yx, padding * dilation, dilation, groups, bias=not norm
        )
        self.norm = nn.BatchNorm2d(filters, eps=1e-5) if norm else nn.Identity()
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, filters, R, C)."""
        return self.activation(self.norm(self.conv(x)))


class MaxPool(nn.Module):
    """Maximum of a window; `padding` in all, half of it (rounded down) at the top and left, the rest opposite.

    So a window of 2 with stride 1 keeps the size: it looks one pixel over the right and the lower edge.
    """

    def __init__(self, size: int, stride_yx: tuple[int, int], padding: int) -> None:
        super().__init__()
        self.size, self.stride_yx, self.padding = size, stride_yx, padding

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, R, C)."""
        before, after = self.padding // 2, self.padding - self.padding // 2
        if before == after and 2 * before <= self.size:
            return F.max_pool2d(x, self.size, self.stride_yx, padding=before)
        x = F.pad(x, (before, after, before, after), value=torch.finfo(x.dtype).min)
        return F.max_pool2d(x, self.size, self.stride_yx)


class MeanPool(nn.Module):
    """Mean of those pixels of a window that are there; padding as in `MaxPool`."""

    def __init__(self, size: int, stride_yx: tuple[int, int], padding: int) -> None:
        super().__init__()
        self.size, self.stride_yx, self.padding = size, stride_yx, padding

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, R, C)."""
        return self._window_mean(x) / self._window_mean(torch.ones_like(x[:1, :1]))

    def _window_mean(self, x: Tensor) -> Tensor:
        before, after = self.padding // 2, self.padding - self.padding // 2
        return F.avg_pool2d(F.pad(x, (before, after, before, after)), self.size, self.stride_yx)


class GlobalMean(nn.Module):
    """One number a channel."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 1, 1)."""
        return x.mean(dim=(2, 3), keepdim=True)


class Route(nn.Module):
    """Maps one after the other; of each only part `group` of `groups` of its channels."""

    def __init__(self, groups: int = 1, group: int = 0) -> None:
        super().__init__()
        self.groups, self.group = groups, group

    def forward(self, *maps: Tensor) -> Tensor:
        """Maps of one size -> all their channels."""
        if self.groups > 1:
            maps = tuple(m.chunk(self.groups, dim=1)[self.group] for m in maps)
        return torch.cat(maps, dim=1) if len(maps) > 1 else maps[0]


class Shortcut(nn.Module):
    """The sum of maps, in as many channels as the first has; one with fewer adds to the first of them."""

    def __init__(self, activation: str = "linear") -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """Maps of one size -> the shape of the first."""
        for other in others:
            extra = x.shape[1] - other.shape[1]
            x = x + (F.pad(other, (0, 0, 0, 0, 0, extra)) if extra else other)  # a negative pad cuts
        return self.activation(x)


class Upsample(nn.Module):
    """Every pixel `stride` times in both directions, times `scale`."""

    def __init__(self, stride: int, scale: float = 1.0) -> None:
        super().__init__()
        self.stride, self.scale = stride, scale

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, stride * H, stride * W)."""
        x = F.interpolate(x, scale_factor=float(self.stride), mode="nearest")
        return x if self.scale == 1 else x * self.scale


class Reorg(nn.Module):
    """Pixels become channels: (N, C, H, W) -> (N, C * s * s, H / s, W / s).

    `true_blocks`: channel k * C + c holds of channel c the k-th pixel of every s x s block ([reorg3d]).
    Otherwise Darknet's [reorg], whose loop reads the memory as if it were (C / s / s, H * s, W * s), gathers its
    blocks into a (C, H, W), and calls the result (C * s * s, H / s, W / s). YOLOv2 was trained so.
    """

    def __init__(self, stride: int, true_blocks: bool = False) -> None:
        super().__init__()
        self.stride, self.true_blocks = stride, true_blocks

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C * s * s, H / s, W / s)."""
        (_, c, h, w), s = x.shape, self.stride
        if self.true_blocks:
            return self._gathered(x, c, h // s, w // s)
        return self._gathered(x, c // (s * s), h, w).reshape(-1, c * s * s, h // s, w // s)

    def _gathered(self, x: Tensor, channels: int, rows: int, cols: int) -> Tensor:
        """The memory as (channels, rows * s, cols * s) -> (s * s * channels, rows, cols), block by block."""
        s = self.stride
        blocks = x.reshape(-1, channels, rows, s, cols, s).permute(0, 3, 5, 1, 2, 4)
        return blocks.reshape(-1, s * s * channels, rows, cols)


class Scale(nn.Module):
    """An earlier map times this one, which has its shape, or one number a channel, or one a pixel."""

    def __init__(self, activation: str = "linear") -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Two maps -> the shape of the second."""
        return self.activation(x * other)
