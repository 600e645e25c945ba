"""Losses of label maps, by name, alone or added: `cross_entropy`, `cross_entropy+dice`.

K classes; pixels that are IGNORE count in none of them. A batch without a pixel that counts has the loss 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from detseg.parts.label_maps import IGNORE, LabelMaps


@dataclass(frozen=True, eq=False)
class PixelCounts:
    """Of the training maps: pixels (K,) of each class; in_pictures (K,) all that count in pictures which show it."""

    pixels: NDArray[np.int64]
    in_pictures: NDArray[np.int64]


@dataclass(frozen=True)
class LossConfig:
    """Which losses are added, and how classes count.

    terms: names joined by "+"; class_weights: one a class, or none for all alike.
    """

    terms: str = "cross_entropy"
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name not in _TERMS]
        if unknown:
            raise ValueError(f"terms: there is no loss {', '.join(unknown)}; there are: {', '.join(_TERMS)}")

    @property
    def names(self) -> list[str]:
        """The losses one by one."""
        return [name.strip() for name in self.terms.split("+")]


class Criterion:
    """The losses of `config`: logits (N, K, H, W) and their truth -> a number for each term."""

    def __init__(self, config: LossConfig) -> None:
        self.config = config

    def __call__(self, logits: Tensor, truth: LabelMaps) -> dict[str, Tensor]:
        """Each term by its name."""
        return {name: _TERMS[name](logits.float(), truth, self.config) for name in self.config.names}


def cross_entropy(logits: Tensor, truth: LabelMaps, config: LossConfig) -> Tensor:
    """-log of the probability of the right class; the mean over pixels, each with its own weight and its class's."""
    weight = logits.new_tensor(config.class_weights) if config.class_weights else None
    each = F.cross_entropy(logits, truth.labels, weight, ignore_index=IGNORE, reduction="none")
    counted = truth.labels != IGNORE
    shares = counted.float() if weight is None else weight[truth.labels.where(counted, 0)] * counted
    if truth.weights is not None:
        each, shares = each * truth.weights, shares * truth.weights
    return each.sum() / shares.sum().clamp(min=torch.finfo(each.dtype).tiny)


_TERMS = {"cross_entropy": cross_entropy}
