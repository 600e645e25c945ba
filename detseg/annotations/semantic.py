"""`SemanticSet`: pictures with a class for every pixel, from mask files or drawn from the outlines of objects."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detseg.annotations.categories import Categories
from detseg.annotations.dataset import AnnotationSet, Fault
from detseg.errors import DataError
from detseg.geometry import rle as run_lengths

IGNORE = 255  # the value of pixels that are counted neither way
MAX_CLASSES = 255


class MapSource(Protocol):
    """Where label maps come from."""

    def read(self, image: int) -> NDArray[np.uint8]:
        """(h, w) class index 0..K-1 of each pixel of the upright picture, IGNORE where there is none.

        Raises DataError naming the file when it cannot be read, holds unknown values or has another size.
        """
        ...

    def subset(self, images: NDArray[np.int64]) -> MapSource:
        """The source of the given pictures, in the given order."""
        ...

    def digest(self) -> bytes:
        """A hash of all that the maps are made from."""
        ...


@dataclass(frozen=True, eq=False)
class SemanticSet:
    """Pictures and their label maps; maps are read when they are asked for, so that a set of any size is small.

    image_files: N paths relative to `root`; image_ids (N,); image_hw (N, 2) of the upright picture, 0 where
    unknown; `categories.ids` are the values that stand in the data set's own masks (or its category ids).
    `faults` is what the reader found and did.
    """

    root: Path
    format: str
    categories: Categories
    image_files: Sequence[str]
    image_ids: NDArray[np.int64]
    image_hw: NDArray[np.int32]
    source: MapSource
    faults: tuple[Fault, ...] = ()

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.image_files)

    def image_path(self, image: int) -> Path:
        """Where picture `image` lies."""
        return self.root / self.image_files[image]

    def label_map(self, image: int) -> NDArray[np.uint8]:
        """(h, w) class index of each pixel of picture `image`, IGNORE where none counts. See `MapSource.read`."""
        return self.source.read(image)

    def fingerprint(self) -> str:
        """A short hash of file names, categories and maps: the same truth gives the same word. Reads every map."""
        digest = hashlib.sha256("\n".join(self.image_files).encode("utf-8", "surrogateescape"))
        digest.update(repr(self.categories).encode())
        digest.update(self.source.digest())
        return digest.hexdigest()[:16]

    def subset(self, images: Sequence[int] | NDArray[np.integer[Any]]) -> SemanticSet:
        """The set of the given pictures, in the given order."""
        chosen = np.asarray(images, np.int64)
        return replace(
            self,
            image_files=tuple(self.image_files[i] for i in chosen),
            image_ids=self.image_ids[chosen],
            image_hw=self.image_hw[chosen],
            source=self.source.subset(chosen),
        )


@dataclass(frozen=True, eq=False)
class Painted:
    """Label maps drawn from outlines: class 0 is what no object covers, object classes count from 1.

    Larger objects are drawn first, so that what lies on them is seen; ignored regions (crowd, difficult) are IGNORE
    where no other object lies. An object without outline fills its box. With `apart` pixels beside those of another
    object are background, so that objects which touch are two.
    """

    truth: AnnotationSet
    apart: bool = False

    def read(self, image: int) -> NDArray[np.uint8]:
        """See `MapSource.read`."""
        truth = self.truth
        hw = (int(truth.image_hw[image, 0]), int(truth.image_hw[image, 1]))
        if min(hw) < 1:
            raise DataError(f"{truth.image_path(image)}: its size is unknown, so that no label map can be drawn")
        drawn = np.zeros(hw[::-1], np.uint8).T  # column by column, as run lengths go
        rows = np.arange(truth.starts[image], truth.starts[image + 1])
        owner = np.zeros(hw[::-1], np.int32).T if self.apart else None  # which object each pixel is of
        first_ignored = np.lexsort((-truth.areas[rows], ~truth.ignored[rows]))
        for row in rows[first_ignored].tolist():
            value = IGNORE if truth.ignored[row] else int(truth.labels[row]) + 1
            self._draw(row, value, drawn)
            if owner is not None:
                self._draw(row, row + 1, owner)
        if owner is not None:
            drawn[_beside_others(owner) & (drawn != IGNORE)] = 0
        return np.ascontiguousarray(drawn)

    def _draw(self, row: int, value: int, canvas: NDArray[Any]) -> None:
        """Sets the object's pixels; `canvas` (h, w) lies column by column."""
        truth = self.truth
        if truth.outlines.has[row]:
            hw = (canvas.shape[0], canvas.shape[1])
            canvas.T.reshape(-1)[run_lengths.places(truth.outlines.rle(row, hw))] = value
        else:
            x1, y1, x2, y2 = np.rint(truth.boxes[row]).astype(int).tolist()
            canvas[y1:y2, x1:x2] = value

    def subset(self, images: NDArray[np.int64]) -> Painted:
        """See `MapSource.subset`."""
        return replace(self, truth=self.truth.subset(images))

    def digest(self) -> bytes:
        """See `MapSource.digest`."""
        return self.truth.fingerprint().encode()


def _beside_others(owner: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(h, w) the pixels of an object that have one of another object above, below, left or right."""
    beside = np.zeros(owner.shape, np.bool_)
    for one, other, here, there in (
        (owner[1:], owner[:-1], beside[1:], beside[:-1]),
        (owner[:, 1:], owner[:, :-1], beside[:, 1:], beside[:, :-1]),
    ):
        touch = (one != other) & (one > 0) & (other > 0)
        here |= touch
        there |= touch
    return beside


def paint(truth: AnnotationSet, background: str = "background") -> SemanticSet:
    """The label maps of a set of objects. Category ids are those of the objects, the background's is a free one.

    Raises ValueError for more classes than a label map can hold.
    """
    categories = truth.categories
    if len(categories) >= MAX_CLASSES:
        raise ValueError(f"{len(categories)} classes and a background: a label map holds {MAX_CLASSES} at most")
    free = 0 if 0 not in categories.ids else max(categories.ids) + 1
    while background in categories.names:
        background += "_"
    return SemanticSet(
        root=truth.root,
        format=truth.format,
        categories=Categories((free, *categories.ids), (background, *categories.names)),
        image_files=truth.image_files,
        image_ids=truth.image_ids,
        image_hw=truth.image_hw,
        source=Painted(truth),
        faults=truth.faults,
    )
