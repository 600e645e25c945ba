"""The second stage: what each region is, and how its box must move for each class.

R. Girshick 2015, Fast R-CNN, arXiv 1504.08083, sec. 2.1 to 2.3: fully connected layers, sibling answers, 25 %
positives. A stage of the backbone in their place: K. He et al. 2016, Deep Residual Learning, arXiv 1512.03385,
appendix A. Convolutions before one fully connected layer: Y. Wu, K. He 2018, Group Normalization, arXiv 1803.08494,
sec. 5.2, with batch norm in Y. Li et al. 2021, arXiv 2111.11429.

Shapes: N pictures, S regions sampled over all pictures, K classes (logits have 1 + K: background first).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detseg.parts.batch_share import normaliser
from detseg.parts.box_coder import BoxCoder
from detseg.parts.class_rows import ClassRows
from detseg.parts.ground_truth import Truth
from detseg.parts.matcher import BACKGROUND, Matcher
from detseg.parts.norms import BatchNorm
from detseg.parts.overlaps import inside_any, iou
from detseg.parts.sampler import balanced_sample


@dataclass(frozen=True)
class BoxConfig:
    """The second stage; the defaults are Fast R-CNN's numbers."""

    convs: tuple[int, ...] = ()  # channels of 3x3 convolutions
    norm: bool = False  # batch norm behind each of them
    fcs: tuple[int, ...] = (1024, 1024)  # fully connected layers (4096 in the paper)
    dropout: float = 0.0  # behind each of those in training
    stage: bool = False  # the backbone's last stage instead of all of these
    positive_iou: float = 0.5  # sec. 2.3; below, a region is background
    samples: int = 128  # regions a picture that are learnt: the paper has 64 of each of two
    positives: float = 0.25  # share of them, at most
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)  # of the deltas (the authors' program)
    beta: float = 1.0  # where the box loss turns from square to linear, eq. 3

    def __post_init__(self) -> None:
        if not (self.fcs or self.stage):
            raise ValueError("the head needs a fully connected layer, or a stage of the backbone")
        if self.samples < 1 or not 0 <= self.positives <= 1 or not 0 <= self.dropout < 1:
            raise ValueError("samples must be at least 1, positives in [0, 1], dropout in [0, 1)")


class BoxHead(nn.Module):
    """Pooled features -> one vector a region: convolutions, then fully connected layers. `channels` of the vector."""

    def __init__(self, channels: int, size: int, config: BoxConfig) -> None:
        super().__init__()
        self.convs = conv_blocks(channels, config.convs, config.norm)
        width = (config.convs[-1] if config.convs else channels) * size * size
        layers: list[nn.Module] = []
        for out in config.fcs:
            layers += [nn.Linear(width, out), nn.ReLU(inplace=True)]
            layers += [nn.Dropout(config.dropout)] if config.dropout else []
            width = out
        self.fcs = nn.Sequential(*layers)
        self.channels = width

    def forward(self, x: Tensor) -> Tensor:
        """(S, C, size, size) -> (S, channels)."""
        vectors: Tensor = self.fcs(self.convs(x).flatten(1))
        return vectors


class StageHead(nn.Module):
    """Pooled features -> one vector a region: the last stage of a backbone, averaged over its map.

    Its batch norms stay as the backbone's weights have them.
    """

    def __init__(self, stage: Sequence[nn.Module], channels: int) -> None:
        super().__init__()
        self.stage, self.channels = nn.Sequential(*stage), channels
        for norm in self._norms():
            norm.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(S, C, size, size) -> (S, channels)."""
        vectors: Tensor = self.stage(x).mean(dim=(2, 3))
        return vectors

    def train(self, mode: bool = True) -> Self:
        """As nn.Module, but the batch norms stay in evaluation mode."""
        super().train(mode)
        for norm in self._norms():
            norm.eval()
        return self

    def _norms(self) -> list[nn.Module]:
        return [m for m in self.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


class BoxPredictor(nn.Module):
    """The two sibling answers: 1 + K logits, and for each class a box's deltas (sec. 2.1)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.logits = nn.Linear(channels, 1 + classes)
        self.deltas = nn.Linear(channels, 4 * classes)
        for layer, std in ((self.logits, 0.01), (self.deltas, 0.001)):  # sec. 2.3
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    @staticmethod
    def class_rows(name: str) -> dict[str, ClassRows]:
        """How the rows of one called `name` are arranged."""
        return {f"{name}.logits": ClassRows(shared=1), f"{name}.deltas": ClassRows(each=4)}

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(S, channels) -> logits (S, 1 + K), deltas (S, K, 4)."""
        return self.logits(x).float(), self.deltas(x).float().unflatten(1, (-1, 4))


def conv_blocks(channels: int, widths: Sequence[int], norm: bool) -> nn.Sequential:
    """3x3 convolutions of these widths, each with ReLU, and batch norm where wanted."""
    blocks = []
    for width in widths:
        conv = nn.Conv2d(channels, width, 3, padding=1, bias=not norm)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        blocks.append(nn.Sequential(conv, *([BatchNorm(width)] if norm else []), nn.ReLU(inplace=True)))
        channels = width
    return nn.Sequential(*blocks)


class Sample(NamedTuple):
    """The regions of one picture that are learnt: boxes (S, 4), classes (S,) 0 background or 1 + class.

    truths (S,): the row of the truth that each answers for, 0 where background; deltas (positives, 4) of those that
    answer for one, in their order.
    """

    boxes: Tensor
    classes: Tensor
    truths: Tensor
    deltas: Tensor


class RegionSampler:
    """Which of the proposals teach the second stage what (sec. 2.3)."""

    def __init__(self, config: BoxConfig) -> None:
        self.config = config
        self.coder = BoxCoder(config.weights)
        self.matcher = Matcher(config.positive_iou, config.positive_iou)

    @torch.no_grad()
    def __call__(self, proposals: Tensor, truth: Truth) -> Sample:
        """(P, 4) proposals of a picture, to which its truths are added -> those drawn."""
        boxes = torch.cat([proposals, truth.boxes.to(proposals.dtype)])
        match = self.matcher(iou(truth.boxes, boxes))
        positive = match >= 0
        negative = (match == BACKGROUND) & ~inside_any(boxes, truth.regions)
        rows = torch.cat(balanced_sample(positive, negative, self.config.samples, self.config.positives)).sort().values
        boxes, truths = boxes[rows], match[rows].clamp(min=0)
        classes, chosen = torch.zeros_like(truths), positive[rows]
        classes[chosen] = truth.labels[truths[chosen]] + 1
        return Sample(boxes, classes, truths, self.coder.encode(truth.boxes[truths[chosen]], boxes[chosen]))


def region_losses(logits: Tensor, deltas: Tensor, samples: Sequence[Sample], beta: float) -> dict[str, Tensor]:
    """class: cross entropy; box: smooth L1 of the positives' deltas for their own class; both per region (eq. 1).

    logits (S, 1 + K), deltas (S, K, 4) of the samples' boxes in their order. Without any region both are zero.
    """
    classes, goals = torch.cat([s.classes for s in samples]), torch.cat([s.deltas for s in samples])
    count = normaliser(len(classes))
    positive = classes > 0
    mine = deltas[positive, classes[positive] - 1]
    return {
        "class": F.cross_entropy(logits, classes, reduction="sum") / count,
        "box": F.smooth_l1_loss(mine, goals, reduction="sum", beta=beta) / count,
    }
