"""The patch classifier: a network that names the pixel in the middle of a window, asked about every pixel.

D. Ciresan, A. Giusti, L. Gambardella, J. Schmidhuber: Deep Neural Networks Segment Neuronal Membranes in Electron
Microscopy Images, NIPS 2012 ("paper"); A. Giusti, D. Ciresan, J. Masci, L. Gambardella, J. Schmidhuber: Fast Image
Scanning with Deep Max-Pooling Convolutional Neural Networks, 2013, arXiv 1302.1700 ("Scanning"); F. Yu, V. Koltun:
Multi-Scale Context Aggregation by Dilated Convolutions, 2016, arXiv 1511.07122.

    paper                                              here
    convolutions and max pooling over a square window  `WindowNet`
    fully connected layers, softmax                    `PatchClassifier.judge`
    windows beyond the border, mirrored                `PatchClassifier.beyond`, `parts.mirrored`
    as many training windows of each class             `balanced_pixels`
    window by window                                   `PatchClassifier.window_by_window`
    all windows in one pass (Scanning)                 `PatchClassifier.dense`

Neighbouring windows share nearly all of their pixels, and so nearly all of the work. What stands in the way of sharing
is that pooling steps: the windows of odd and even pixels pool other pairs. Scanning keeps a fragment of the map for
each offset; here pooling does not step, and what lies behind it looks twice as far instead, which holds the same
numbers in one map. Nothing in the network pads, so that both ways give every pixel the same answer.

Differences from the paper:
- Colours, any number of classes, ReLU, weights drawn for it; batch norm with `norm`, as `-m patch-classifier` has it,
  which is smaller than the paper's networks, too.
- Classes are drawn alike for the lessons, as in the paper, and what that does to the probabilities is not calibrated
  away; `balanced=false` draws pixels as they come. Neither foveation nor the mean of several networks.
- `stride`: only each s-th pixel of each s-th row is asked about, and the answers are enlarged.

Shapes: N pictures, H x W pixels of the frame, M windows of S x S pixels, K classes, C channels of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detseg.backbones.spec import Backbone, FeatureSpec, Stage
from detseg.parts.class_rows import ClassRows
from detseg.parts.grouped_settings import flat, grouped
from detseg.parts.label_maps import IGNORE, LabelMaps, enlarged
from detseg.parts.map_configs import Pixels, configured
from detseg.parts.map_losses import LossConfig
from detseg.parts.mirrored import mirrored
from detseg.parts.own_backbone import ITS_OWN, expect_no_weights, expect_own
from detseg.parts.skip_maps import started
from detseg.segmenters.contract import Segmenter

BATCH = 256  # windows that are judged at once, window by window


@dataclass(frozen=True)
class PatchClassifierConfig:
    """What makes a patch classifier; stored in its checkpoint. The defaults are the paper's largest network."""

    num_classes: int
    backbone: str = ITS_OWN
    side: int = 95  # S
    kernels: tuple[int, ...] = (4, 5, 4, 4)  # of the convolutions; a 2x2 maximum behind each
    maps: int = 48
    hidden: tuple[int, ...] = (200,)  # sizes of the fully connected layers before the last
    norm: bool = False  # batch norm
    stride: int = 1  # pixels from one that is asked about to the next, a power of two
    windows: int = 64  # of each picture, to learn from
    balanced: bool = True  # as many of each class that a picture shows
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        expect_own(self.backbone, "The patch classifier")
        if min(self.num_classes, self.maps, self.windows, *self.kernels, *self.hidden) < 1:
            raise ValueError("num_classes, maps, windows, kernels and hidden must be at least 1")
        if self.cells < 1:
            raise ValueError(f"side {self.side}: nothing is left of a window after {len(self.kernels)} poolings")
        if self.stride not in [2**i for i in range(len(self.kernels) + 1)] or self.stride > self.side // 2:
            raise ValueError(f"stride must be a power of two up to {2 ** len(self.kernels)}, got {self.stride}")

    @property
    def cells(self) -> int:
        """Rows that are left of a window after the last pooling. Raises ValueError where one would pool an odd map."""
        rows = self.side
        for kernel in self.kernels:
            rows -= kernel - 1
            if rows % 2:
                raise ValueError(f"side {self.side}: {rows} rows after a convolution of {kernel} cannot be halved")
            rows //= 2
        return rows

    @property
    def context(self) -> int:
        """Pixels around a tile that its answer rests on: a window's, and with a stride those of the next one."""
        return self.side // 2 + self.stride - 1


class PatchClassifier(Segmenter):
    """Convolutions, poolings and fully connected layers that see one window. Built by `build`."""

    def __init__(self, config: PatchClassifierConfig) -> None:
        super().__init__(config.loss)
        self.config = config
        self.backbone = WindowNet(config.kernels, config.maps, config.norm)
        sizes = (config.maps, *config.hidden, config.num_classes)
        # kept as convolutions: the kernel of the first covers what is left of a window
        kernels = (config.cells, *[1] * len(config.hidden))
        self.layers = nn.ModuleList(
            started(nn.Conv2d(i, o, kernel)) for (i, o), kernel in zip(pairwise(sizes), kernels, strict=True)
        )

    def judge(self, maps: Tensor, apart: int = 1) -> Tensor:
        """(N, C, h, w), cells of a window `apart` from each other -> (N, K, h', w'), for each window its classes."""
        for i, layer in enumerate(self.layers):
            dilation = apart if i == 0 else 1
            maps = F.conv2d(F.relu(maps) if i else maps, layer.weight, layer.bias, dilation=dilation)  # type: ignore[arg-type]
        return maps

    def dense(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, h, w): every `stride`-th window that lies in it, from the top left, in one pass."""
        return self.judge(*self.backbone.dense(images, self.config.stride))

    def class_rows(self) -> dict[str, ClassRows]:
        """The last layer."""
        return {f"layers.{len(self.layers) - 1}": ClassRows()}

    def answer(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, H, W)."""
        height, width = images.shape[2:]
        grid, stride = self.dense(self.beyond(images)), self.config.stride
        return enlarged(grid, (grid.shape[2] * stride, grid.shape[3] * stride))[:, :, :height, :width]

    def window_by_window(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, h, w): what `answer` enlarges, each window cut out and judged alone."""
        windows = self._windows(self.beyond(images))[:, :: self.config.stride, :: self.config.stride]
        n, h, w = windows.shape[:3]
        place = torch.arange(n * h * w, device=images.device)
        judged = [self.of_windows(windows[i // (h * w), i // w % h, i % w]) for i in place.split(BATCH)]
        return torch.cat(judged).view(n, h, w, -1).permute(0, 3, 1, 2)

    def of_windows(self, windows: Tensor) -> Tensor:
        """(M, 3, S, S) -> (M, K)."""
        return self.judge(self.backbone(windows)[0]).flatten(1)

    def beyond(self, images: Tensor) -> Tensor:
        """The frame mirrored so far that a window lies about each pixel that is asked about.

        Those are the ones in the middle of each `stride` x `stride` pixels, for an even stride at its upper left.
        """
        side, stride = self.config.side, self.config.stride
        before = side // 2 - (stride - 1) // 2
        after = [side + (-(-length // stride) - 1) * stride - length - before for length in images.shape[2:]]
        return mirrored(images, (before, after[0]), (before, after[1]))

    def losses(self, images: Tensor, truth: LabelMaps) -> dict[str, Tensor]:
        """The losses of windows about pixels drawn from each picture; 0 where no pixel counts."""
        drawn = [balanced_pixels(labels, self.config.windows, self.config.balanced) for labels in truth.labels]
        picture = torch.arange(len(drawn), device=images.device)
        picture = picture.repeat_interleave(torch.tensor([len(some) for some in drawn], device=images.device))
        pixel = torch.cat(drawn)
        at = (picture, pixel // images.shape[3], pixel % images.shape[3])
        before, after = self.config.side // 2, self.config.side - 1 - self.config.side // 2
        windows = self._windows(mirrored(images, (before, after), (before, after)))[at]
        weights = None if truth.weights is None else truth.weights[at][:, None, None]
        said = self.of_windows(windows)[:, :, None, None]  # each as a map of one pixel
        return self.criterion(said, LabelMaps(truth.labels[at][:, None, None], weights))

    def _windows(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, H - S + 1, W - S + 1, 3, S, S), a view."""
        side = self.config.side
        return images.unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5)


class WindowNet(Backbone):
    """Convolutions without padding, each with ReLU and a 2x2 maximum behind it."""

    def __init__(self, kernels: tuple[int, ...], maps: int, norm: bool) -> None:
        super().__init__()
        self.features = (FeatureSpec(maps, 2 ** len(kernels)),)
        self.convolutions = nn.ModuleList(
            started(nn.Conv2d(maps if i else 3, maps, kernel, bias=not norm)) for i, kernel in enumerate(kernels)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(maps) if norm else nn.Identity() for _ in kernels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(M, 3, S, S) -> [(M, C, cells, cells)]."""
        return [self.dense(images, self.features[0].stride)[0]]

    def dense(self, images: Tensor, stride: int) -> tuple[Tensor, int]:
        """(N, 3, H, W) -> (N, C, h, w) of windows `stride` pixels apart, and how far the cells of one are apart in it.

        Up to that stride pooling steps. From there on it does not, and what follows looks twice as far.
        """
        x, step, apart = images, 1, 1
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.conv2d(x, convolution.weight, convolution.bias, dilation=apart)  # type: ignore[arg-type]
            x = F.relu(norm(x))
            if step < stride:
                x, step = F.max_pool2d(x, 2), 2 * step
            else:
                x, apart = F.max_pool2d(x, 2, stride=1, dilation=apart), 2 * apart
        return x, apart

    def stages(self) -> list[Stage]:
        """One for each convolution; pooling learns nothing."""
        return [list(pair) for pair in zip(self.convolutions, self.norms, strict=True)]


def balanced_pixels(labels: Tensor, count: int, balanced: bool = True) -> Tensor:
    """(H, W) labels -> (count,) places, row by row, of pixels drawn at random; none where all are IGNORE.

    `balanced`: every class that is there has the same chance; otherwise every pixel.
    """
    places = labels.flatten().argsort()
    classes, counts = labels.flatten().unique(return_counts=True)  # in the order of `places`
    shown = classes != IGNORE
    if not bool(shown.any()):
        return places[:0]
    chances = (shown if balanced else shown * counts).float()
    drawn = chances.multinomial(count, replacement=True)
    within = (torch.rand(count, device=labels.device, dtype=torch.float64) * counts[drawn]).long()
    return places[(counts.cumsum(0) - counts)[drawn] + within]


def build(
    config: PatchClassifierConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> PatchClassifier:
    """The segmenter of `config`, its weights random. Raises DetsegError where it is to start from others."""
    expect_no_weights(backbone_weights, "The patch classifier")
    return PatchClassifier(config)


def configure(num_classes: int, options: Mapping[str, Any], pixels: Pixels | None) -> PatchClassifierConfig:
    """The config for new data: `options`, flat, over the defaults; class weights, if any, from what `pixels` counts.

    Raises DetsegError for an unknown option or one that does not fit.
    """
    usual = PatchClassifierConfig(num_classes)
    return configured("The patch classifier", usual, options, pixels)


def config_from_json(values: dict[str, Any]) -> PatchClassifierConfig:
    """The config from a checkpoint's JSON (lists become tuples); `context` follows from the rest."""
    return grouped({name: value for name, value in values.items() if name != "context"}, PatchClassifierConfig(1))


def config_to_json(config: PatchClassifierConfig) -> dict[str, Any]:
    """The config as plain JSON values, flat, and with it the `context` that whoever cuts tiles must know."""
    return {**flat(config), "context": config.context}
