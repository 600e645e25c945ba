"""Which pictures an epoch shows, and how often, so that rare classes are seen more.

A. Gupta, P. Dollár, R. Girshick: LVIS, 2019, arXiv 1908.03195: repeat factor sampling.
L. Shen, Z. Lin, Q. Huang: Relay Backpropagation, 2016, arXiv 1512.05830: class-aware sampling.

n: pictures, K: classes. What is drawn comes from the generator that is handed in, and from nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet
from detseg.annotations.semantic import IGNORE, SemanticSet
from detseg.errors import DataError

Balance = Literal["none", "repeat", "classes"]
Flags = NDArray[np.bool_]
Order = NDArray[np.intp]


class Draw(ABC):
    """The pictures of an epoch: always `length` of them, some perhaps twice, others not at all."""

    length: int

    @abstractmethod
    def order(self, rng: np.random.Generator) -> Order:
        """(length,) the pictures of one epoch, shuffled."""

    @property
    @abstractmethod
    def rates(self) -> NDArray[np.float64]:
        """(n,) how often each picture is shown in an epoch, on average."""


@dataclass(frozen=True)
class Once(Draw):
    """Every picture once."""

    length: int

    def order(self, rng: np.random.Generator) -> Order:
        """A permutation."""
        return rng.permutation(self.length)

    @property
    def rates(self) -> NDArray[np.float64]:
        """One each."""
        return np.ones(self.length)


@dataclass(frozen=True, eq=False)
class Repeated(Draw):
    """Every picture as often as its factor says; of a fraction, in that share of the epochs."""

    factors: NDArray[np.float64]

    @property
    def length(self) -> int:  # type: ignore[override]
        """The sum of the factors, to the next whole number."""
        return max(1, round(float(self.factors.sum())))

    def order(self, rng: np.random.Generator) -> Order:
        """Marks at even distances along the factors laid end to end: a picture is taken for each mark on it."""
        shuffled = rng.permutation(len(self.factors))
        ends = np.cumsum(self.factors[shuffled])
        marks = (np.arange(self.length) + rng.random()) * (ends[-1] / self.length)
        return rng.permutation(shuffled[np.searchsorted(ends, marks, side="right")])

    @property
    def rates(self) -> NDArray[np.float64]:
        """The factors, so that they add up to the length."""
        return self.factors * (self.length / self.factors.sum())


@dataclass(frozen=True, eq=False)
class ByClass(Draw):
    """Classes in turns, of each its pictures in turns; pictures that show none are a class of their own.

    shown (n, K): which picture shows which class.
    """

    shown: Flags

    @property
    def length(self) -> int:  # type: ignore[override]
        """As many as there are pictures."""
        return len(self.shown)

    def order(self, rng: np.random.Generator) -> Order:
        """Each class as often as the others, give or take one; of a class each picture, too."""
        groups = self._groups()
        turns = np.arange(self.length) // len(groups)
        classes = np.concatenate([rng.permutation(len(groups)) for _ in range(turns[-1] + 1)])[: self.length]
        chosen = np.zeros(self.length, np.intp)
        for number, pictures in enumerate(groups):
            places = np.flatnonzero(classes == number)
            rounds = [rng.permutation(pictures) for _ in range(-(-len(places) // len(pictures)))]
            chosen[places] = np.concatenate([*rounds, np.zeros(0, np.intp)])[: len(places)]
        return chosen

    @property
    def rates(self) -> NDArray[np.float64]:
        """What its classes give each picture."""
        rates, groups = np.zeros(self.length), self._groups()
        for pictures in groups:
            rates[pictures] += self.length / len(groups) / len(pictures)
        return rates

    def _groups(self) -> list[Order]:
        columns = [*self.shown.T, ~self.shown.any(axis=1)]
        return [np.flatnonzero(column) for column in columns if column.any()]


def draw_of(balance: Balance, truth: AnnotationSet | SemanticSet, threshold: float | None = None) -> Draw:
    """How the pictures of `truth` are drawn; `threshold` as `repeat_factors` takes it."""
    if balance == "none":
        return Once(len(truth))
    shown = classes_shown(truth)
    return Repeated(repeat_factors(shown, threshold)) if balance == "repeat" else ByClass(shown)


@dataclass(frozen=True)
class ClassCount:
    """A class in the data set, and in an epoch on average. Of label maps objects are pictures."""

    name: str
    pictures: int
    objects: int
    pictures_shown: float
    objects_shown: float


def effective_counts(draw: Draw, truth: AnnotationSet | SemanticSet) -> list[ClassCount]:
    """What each class has and is shown."""
    counts = _objects(truth) if isinstance(truth, AnnotationSet) else classes_shown(truth).astype(np.int64)
    seen = counts > 0
    columns = (seen.sum(axis=0), counts.sum(axis=0), draw.rates @ seen, draw.rates @ counts)
    rows = zip(truth.categories.names, *(column.tolist() for column in columns), strict=True)
    return [ClassCount(*row) for row in rows]


def repeat_factors(shown: Flags, threshold: float | None = None) -> NDArray[np.float64]:
    """(n, K) which picture shows which class -> (n,) how often each is to be shown, 1 at least.

    A class that a share f of the pictures shows asks for max(1, sqrt(threshold / f)), a picture gets the most that one
    of its classes asks for. The paper's threshold is 0.001, for a hundred thousand pictures; None: the median f of the
    classes, so that the rarer half is repeated whatever the size of the data.
    """
    share = shown.mean(axis=0)
    there = share > 0
    if not there.any():
        return np.ones(len(shown))
    wanted = float(np.median(share[there])) if threshold is None else threshold
    asked = np.where(there, np.maximum(1.0, np.sqrt(wanted / np.where(there, share, 1.0))), 1.0)
    factors: NDArray[np.float64] = np.where(shown, asked, 1.0).max(axis=1)
    return factors


def classes_shown(truth: AnnotationSet | SemanticSet) -> Flags:
    """(n, K): which picture shows which class; ignored objects do not count. Reads label maps, where those are it."""
    if isinstance(truth, AnnotationSet):
        return _objects(truth) > 0
    shown = np.zeros((len(truth), len(truth.categories)), np.bool_)
    for image in range(len(truth)):
        with suppress(DataError):  # named when training comes to it
            values = np.unique(truth.label_map(image))
            shown[image, values[values != IGNORE]] = True
    return shown


def _objects(truth: AnnotationSet) -> NDArray[np.int64]:
    """(n, K) how many objects of each class are learnt from each picture."""
    counts = np.zeros((len(truth), len(truth.categories)), np.int64)
    learnt = ~truth.ignored
    np.add.at(counts, (truth.image_index[learnt], truth.labels[learnt]), 1)
    return counts
