"""Losses of label maps, by name, alone or added: `cross_entropy`, `focal`, `cross_entropy+0.5*dice`.

    name               what                                             paper
    cross_entropy      -log of the probability of the right class
    focal              the same, what is answered well counts little    Lin et al. 2017, arXiv 1708.02002, eq. 4
    dice               1 - Dice of soft maps, squares below             Milletari et al. 2016 (V-Net), arXiv 1606.04797
    generalised_dice   one Dice over all classes, rare ones up          Sudre et al. 2017, arXiv 1707.03237
    jaccard            1 - IoU of soft maps                             Rahman & Wang 2016, Intersection-over-Union
    tversky            the same, what is missed and what is too much    Salehi et al. 2017, arXiv 1706.05721
                       count differently
    lovasz             the IoU itself, made continuous                  Berman et al. 2018, arXiv 1705.08790

    weighting          a class counts by                                paper
    median             median frequency / its own                       Eigen & Fergus 2015, arXiv 1411.4734; SegNet
    inverse            1 / its share of the pixels
    effective          1 / its effective number of pixels               Cui et al. 2019, arXiv 1901.05555, eq. 2

Pixels that are IGNORE count in none of them; a batch without a pixel that counts has the loss 0. The first two are
means over pixels, each with its own weight and its class's. The others compare regions, summed over the batch; those
of a class that the batch does not show are left out, and weights count in none of them.

Shapes: logits (N, K, H, W); P pixels that count.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detseg.parts.batch_share import normaliser, of_whole
from detseg.parts.label_maps import IGNORE, LabelMaps
from detseg.parts.soft_regions import SoftRegions

Weighting = Literal["none", "median", "inverse", "effective"]


@dataclass(frozen=True)
class LossConfig:
    """Which losses are added, and how classes count.

    terms: names joined by "+", each with a number and "*" before it where it counts other than 1. class_weights: one a
    class, or none for all alike; where there are none `weighting` says how `resolved` makes them from the data.
    """

    terms: str = "cross_entropy"
    weighting: Weighting = "none"
    class_weights: tuple[float, ...] = ()
    gamma: float = 2.0  # of focal: Lin et al., eq. 4
    too_much: float = 0.3  # of tversky: alpha, what wrongly found pixels count
    missed: float = 0.7  # of tversky: beta, what missed pixels count
    # of effective weights; Cui et al. have 0.9 to 0.9999 for thousands of pictures, pixels are counted in millions
    effective_beta: float = 0.9999999

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name not in _TERMS]
        if unknown:
            raise ValueError(f"terms: there is no loss {', '.join(unknown)}; there are: {', '.join(_TERMS)}")
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"terms: each loss once, got {self.terms!r}")
        if not all(math.isfinite(weight) and weight >= 0 for weight in self.class_weights):
            raise ValueError("class_weights must be finite and at least 0")
        if min(self.gamma, self.too_much, self.missed) < 0 or not 0 <= self.effective_beta < 1:
            raise ValueError("gamma, too_much and missed must be at least 0, effective_beta within [0, 1)")

    @property
    def names(self) -> list[str]:
        """The losses one by one."""
        return [name for _, name in self.weighted]

    @property
    def weighted(self) -> list[tuple[float, str]]:
        """Each loss with what it counts. Raises ValueError for what is not NUMBER*NAME."""
        return [_weighted(term.strip()) for term in self.terms.split("+")]


def _weighted(term: str) -> tuple[float, str]:
    number, star, name = term.rpartition("*")
    try:
        weight = float(number) if star else 1.0
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"terms: {term!r} is neither NAME nor NUMBER*NAME with a number above 0")
    return weight, name.strip()


class Criterion:
    """The losses of `config`: logits (N, K, H, W) and their truth -> a number for each term.

    Calling it raises ValueError where there are class weights for another number of classes.
    """

    def __init__(self, config: LossConfig) -> None:
        self.config = config

    def __call__(self, logits: Tensor, truth: LabelMaps) -> dict[str, Tensor]:
        """Each term by its name, times what it counts."""
        count = len(self.config.class_weights)
        if count and count != logits.shape[1]:
            raise ValueError(f"{count} class weights for {logits.shape[1]} classes")
        maps = Maps(logits, truth)
        return {n: weight * _TERMS[n](maps, self.config) for weight, n in self.config.weighted}


class Maps:
    """What the losses are made of: logits (N, K, H, W), never in half precision, and their truth."""

    def __init__(self, logits: Tensor, truth: LabelMaps) -> None:
        self._given, self.truth = logits, truth

    @cached_property
    def logits(self) -> Tensor:
        """(N, K, H, W) in single precision or better."""
        return self._given.to(torch.promote_types(self._given.dtype, torch.float32))

    @cached_property
    def soft(self) -> SoftRegions:
        """Their probabilities, summed up once for all losses."""
        return SoftRegions.of(self._given, self.truth)

    @cached_property
    def regions(self) -> SoftRegions:
        """The same, the sums those of the whole batch where processes share it."""
        right, *sums = self.soft
        return SoftRegions(right, *of_whole(torch.stack(sums)))


def cross_entropy(maps: Maps, config: LossConfig) -> Tensor:
    """-log of the probability of the right class; the mean over pixels, each with its own weight and its class's."""
    return _mean_of_pixels(-maps.soft.right, maps.truth, config)


def focal(maps: Maps, config: LossConfig) -> Tensor:
    """The cross entropy times (1 - p)^gamma, p the probability of the right class (Lin et al. 2017, eq. 4)."""
    each = -maps.soft.right
    wrong = -torch.expm1(-each)  # 1 - p
    # the gradient of x^gamma at 0 is infinite where gamma < 1
    return _mean_of_pixels(wrong.clamp(min=1e-6) ** config.gamma * each, maps.truth, config)


def _mean_of_pixels(each: Tensor, truth: LabelMaps, config: LossConfig) -> Tensor:
    """(N, H, W) losses -> their mean over the pixels that count, each with its own weight and its class's."""
    counted = truth.labels != IGNORE
    shares = counted.to(each.dtype)
    if config.class_weights:
        shares = shares * each.new_tensor(config.class_weights)[truth.labels.where(counted, 0)]
    if truth.weights is not None:
        shares = shares * truth.weights
    return (each * shares).sum() / normaliser(shares.sum(), torch.finfo(each.dtype).tiny)


def dice(maps: Maps, config: LossConfig) -> Tensor:
    """1 - 2 sum(p g) / (sum(p^2) + sum(g^2)) (Milletari et al. 2016, "Dice loss layer"); the mean over classes."""
    soft = maps.regions
    return _mean_of_classes(soft, 2 * soft.both, soft.squared + soft.true)


def generalised_dice(maps: Maps, config: LossConfig) -> Tensor:
    """1 - 2 sum_c w_c sum(p g) / sum_c w_c sum(p + g), w_c = 1 / (sum g)^2 (Sudre et al. 2017)."""
    soft = maps.regions
    shown = soft.true > 0
    weights = shown / torch.where(shown, soft.true, 1.0) ** 2
    above, below = (2 * weights * soft.both).sum(), (weights * (soft.found + soft.true)).sum()
    return (below - above) / torch.where(shown.any(), below, 1.0)


def jaccard(maps: Maps, config: LossConfig) -> Tensor:
    """1 - sum(p g) / (sum p + sum g - sum(p g)) (Rahman & Wang 2016); the mean over classes."""
    soft = maps.regions
    return _mean_of_classes(soft, soft.both, soft.found + soft.true - soft.both)


def tversky(maps: Maps, config: LossConfig) -> Tensor:
    """1 - sum(p g) / (sum(p g) + alpha sum(p (1 - g)) + beta sum((1 - p) g)) (Salehi et al. 2017); over classes."""
    soft = maps.regions
    too_much, missed = soft.found - soft.both, soft.true - soft.both
    return _mean_of_classes(soft, soft.both, soft.both + config.too_much * too_much + config.missed * missed)


def _mean_of_classes(soft: SoftRegions, above: Tensor, below: Tensor) -> Tensor:
    """1 - above / below, the mean over the classes that the batch shows; 0 where it shows none."""
    shown = soft.true > 0
    scores = above / torch.where(shown, below, 1.0)
    return ((1 - scores) * shown).sum() / shown.sum().clamp(min=1)


def lovasz(maps: Maps, config: LossConfig) -> Tensor:
    """The Lovasz-Softmax (Berman et al. 2018): for each class its pixels' errors, largest first, each times what the
    Jaccard loss grows by when that pixel is wrong, too. The mean over the classes that the batch shows. Where processes
    share a batch each sorts its own part.
    """
    counted = maps.truth.labels != IGNORE
    p, labels = maps.logits.softmax(dim=1).movedim(1, -1)[counted], maps.truth.labels[counted]
    losses = [_lovasz_of_class(p[:, c], labels == c) for c in labels.unique().tolist()]
    return torch.stack(losses).mean() if losses else p.sum()


def _lovasz_of_class(p: Tensor, true: Tensor) -> Tensor:
    """(P,) probabilities of a class, (P,) bool where it is."""
    errors, order = (true.to(p.dtype) - p).abs().sort(descending=True)
    among = true[order].to(p.dtype)
    both, either = among.sum() - among.cumsum(0), among.sum() + (1 - among).cumsum(0)
    steps = torch.diff(1 - both / either, prepend=p.new_zeros(1))
    return errors @ steps


_TERMS: dict[str, Callable[[Maps, LossConfig], Tensor]] = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "dice": dice,
    "generalised_dice": generalised_dice,
    "jaccard": jaccard,
    "tversky": tversky,
    "lovasz": lovasz,
}


@dataclass(frozen=True, eq=False)
class PixelCounts:
    """Of a data set, for each class: `pixels` (K,) its own; `in_pictures` (K,) all that count in pictures with it."""

    pixels: NDArray[np.int64]
    in_pictures: NDArray[np.int64]


def class_weights(weighting: Weighting, counts: PixelCounts, beta: float = 0.9999999) -> tuple[float, ...]:
    """What a pixel of each class counts.

    median: median_freq / freq, where freq is a class's share of the pictures that show it. inverse, effective: 1 / n
    and (1 - beta) / (1 - beta^n), so scaled that the pixels (of inverse) or the classes (of effective) have the mean
    1. A class that never occurs gets 1: here no pixel is weighed by it, and in data where it does occur 0 would
    keep it from being learnt.
    """
    pixels = np.asarray(counts.pixels, np.float64)
    found = pixels > 0
    weights = np.ones(len(pixels))
    if weighting != "none" and found.any():
        weights[found] = _WEIGHTINGS[weighting](pixels[found], np.asarray(counts.in_pictures, np.float64)[found], beta)
    return tuple(float(f"{weight:.6g}") for weight in weights)


def _median(pixels: NDArray[np.float64], in_pictures: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    frequencies = pixels / in_pictures
    return np.asarray(np.median(frequencies) / frequencies)


def _inverse(pixels: NDArray[np.float64], in_pictures: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    return np.asarray(pixels.sum() / (len(pixels) * pixels))


def _effective(pixels: NDArray[np.float64], in_pictures: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    weights = (1 - beta) / (-np.expm1(pixels * np.log(beta)) if beta else np.ones_like(pixels))
    return np.asarray(weights * len(weights) / weights.sum())


_WEIGHTINGS = {"median": _median, "inverse": _inverse, "effective": _effective}


def resolved(loss: LossConfig, pixels: Callable[[], PixelCounts] | None) -> LossConfig:
    """`loss` with class weights as its `weighting` wants them, from the counts that `pixels()` answers.

    As it is where it wants none, has some already, or nobody can count.
    """
    if loss.weighting == "none" or loss.class_weights or pixels is None:
        return loss
    return replace(loss, class_weights=class_weights(loss.weighting, pixels(), loss.effective_beta))
