"""The contract of every backbone: images in, feature maps out, finest first, each with its `FeatureSpec`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from torch import Tensor, nn

from detseg.errors import DetsegError

Stage = nn.Module | list[nn.Module]


class BackboneError(DetsegError, ValueError):
    """An unknown backbone, or one asked for what it does not have."""


@dataclass(frozen=True)
class FeatureSpec:
    """One feature map: its channels and its stride, that is network pixels per step.

    The stride is nominal: a map has about H / stride rows, and where a network does not pad, fewer.
    """

    channels: int
    stride: int


class Backbone(nn.Module, ABC):
    """A network without its head. images (N, 3, H, W) float, (pixel - mean) / std -> one map per spec.

    `features` says what `forward` returns, finest first; `mean` and `std` are what the weights expect, per
    RGB channel in units of 0..255. What is frozen stays frozen under `train()`.
    """

    features: tuple[FeatureSpec, ...]
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # ImageNet's, times 255
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def __init__(self) -> None:
        super().__init__()
        self._frozen_stages = 0
        self._frozen_whole = False
        self._norms_fixed = False
        self._rests = False

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> [(N, C, h, w), ...] as `features` says."""

    @abstractmethod
    def stages(self) -> list[Stage]:
        """The parts in order, stem first; stages 0 to i together are everything up to stride 2 ** (i + 1).

        A network whose first step is longer than 2 has that step alone as its stem.
        """

    def freeze(self, stages: int | Literal["all"]) -> None:
        """Fixes the first `stages` stages, or all there is, for good: no gradients, evaluation mode.

        Evaluation mode keeps the running statistics of batch norms as they are. BackboneError where there are not as
        many stages.
        """
        if stages == "all":
            self._frozen_whole = True
        elif stages:
            if not 0 < stages <= len(self.stages()):
                raise BackboneError(f"can freeze 0 to {len(self.stages())} stages, not {stages}")
            self._frozen_stages = max(stages, self._frozen_stages)
        self._fix()

    def freeze_batch_norm(self) -> None:
        """Fixes running statistics, scale and shift of every batch norm for good."""
        self._norms_fixed = True
        self._fix()

    def rest(self, resting: bool) -> None:
        """While it rests nothing of it learns, as if it were frozen whole; then what is not frozen learns again."""
        if resting != self._rests:
            self._rests = resting
            self.requires_grad_(not resting)
            self._fix()

    def train(self, mode: bool = True) -> Self:
        """As nn.Module, but what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in (*self._frozen_modules(), *(self.children() if self._rests else ())):
            module.eval()
        if self._norms_fixed:
            for norm in self._batch_norms():
                norm.eval()
        return self

    def _fix(self) -> None:
        """Takes the gradients of what is frozen, and puts it into evaluation mode."""
        for module in (*self._frozen_modules(), *(self._batch_norms() if self._norms_fixed else ())):
            module.requires_grad_(False)
        self.train(self.training)

    def _frozen_modules(self) -> Iterator[nn.Module]:
        if self._frozen_whole:
            yield from self.children()
        elif self._frozen_stages:
            for stage in self.stages()[: self._frozen_stages]:
                yield from stage if isinstance(stage, list) else [stage]

    def _batch_norms(self) -> Iterator[nn.Module]:
        return (module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))


def choose_strides(name: str, available: Sequence[int], wanted: Sequence[int]) -> tuple[int, ...]:
    """The strides asked for, ascending; BackboneError names those there are otherwise."""
    missing = sorted(set(wanted) - set(available))
    if missing or not wanted:
        has, asked = (", ".join(map(str, strides)) or "none" for strides in (available, missing))
        raise BackboneError(f"{name} has features at strides {has}; asked for {asked}")
    return tuple(sorted(set(wanted)))


def stage_index(stride: int) -> int:
    """The stage that holds what works at `stride`: 0 up to 2, 1 for 4, 2 for 8, ..."""
    return max(stride.bit_length() - 2, 0)


def times_255(values: Sequence[float]) -> tuple[float, float, float]:
    """A mean or deviation per RGB channel, from the scale 0..1 to 0..255."""
    red, green, blue = (round(255 * value, 4) for value in values)
    return red, green, blue
