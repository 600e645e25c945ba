"""`AnnotationSet`: the truth of a data set as columns, whatever format it came from.

Columns (arrays), not lists of dicts: hundreds of thousands of annotations load fast, and worker processes share
them instead of copying. N pictures, M annotations; annotations are sorted by picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from detseg.annotations.categories import Categories
from detseg.annotations.file_names import FileNames
from detseg.annotations.outlines import Outlines
from detseg.geometry import boxes as box_geometry


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a data set: which file, which annotation, what, and what was done about it."""

    severity: Literal["error", "warning"]
    kind: str  # a short stable word, such as "degenerate-box"
    file: str
    message: str
    annotation: int | None = None  # the data set's own annotation id, or the position in the file

    def __str__(self) -> str:
        where = self.file if self.annotation is None else f"{self.file}, annotation {self.annotation}"
        return f"{where}: {self.message}"


@dataclass(frozen=True, eq=False)
class AnnotationSet:
    """Pictures and their truth.

    image_files: N paths relative to `root`; image_ids (N,) the data set's own; image_hw (N, 2) of the upright
    picture, 0 where the files do not say; starts (N + 1,): the annotations of picture i are rows
    starts[i]:starts[i + 1]; boxes (M, 4) float64 xyxy in the pixels of the upright picture (double precision, so
    that what a file says is not rounded; models get float32); labels (M,) class index; areas (M,) in square
    pixels (COCO's `area`, the mask's where there is one); ids (M,) the data set's annotation ids; crowd,
    difficult (M,): both mean "ignored region" (CONVENTIONS.md); outlines (M) the masks, where the data set has
    them, else none. `faults` is what the reader found and did.
    """

    root: Path
    format: str
    categories: Categories
    image_files: Sequence[str]
    image_ids: NDArray[np.int64]
    image_hw: NDArray[np.int32]
    starts: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    ids: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    outlines: Outlines
    faults: tuple[Fault, ...] = ()

    @classmethod
    def from_columns(
        cls,
        *,
        root: Path,
        format: str,
        categories: Categories,
        image_files: Sequence[str],
        image_hw: Any,
        image_index: Any,
        boxes: Any,
        labels: Any,
        image_ids: Any = None,
        areas: Any = None,
        ids: Any = None,
        crowd: Any = None,
        difficult: Any = None,
        outlines: Outlines | None = None,
        faults: Sequence[Fault] = (),
    ) -> AnnotationSet:
        """From annotations in any order: `image_index` (M,) says which picture each belongs to.

        Left out, picture and annotation ids count from 1, areas are the boxes', nothing is ignored or outlined.
        """
        n = len(image_files)
        index = np.asarray(image_index, np.int64).reshape(-1)
        m = len(index)
        order = np.argsort(index, kind="stable")
        xyxy = np.asarray(boxes, np.float64).reshape(-1, 4)
        if outlines is not None and len(outlines) != m:
            raise ValueError(f"{len(outlines)} outlines where {m} annotations are given")

        def column(values: Any, default: NDArray[Any], dtype: type[Any]) -> NDArray[Any]:
            array = default if values is None else np.asarray(values, dtype).reshape(-1)
            if len(array) != m:
                raise ValueError(f"a column has {len(array)} rows where {m} annotations are given")
            return array[order].astype(dtype)

        return cls(
            root=Path(root),
            format=format,
            categories=categories,
            image_files=FileNames(image_files),
            image_ids=np.arange(1, n + 1) if image_ids is None else np.asarray(image_ids, np.int64),
            image_hw=np.asarray(image_hw, np.int32).reshape(n, 2),
            starts=np.concatenate([[0], np.cumsum(np.bincount(index, minlength=n))]).astype(np.int64),
            boxes=xyxy[order],
            labels=column(labels, np.zeros(m), np.int64),
            areas=column(areas, box_geometry.area(xyxy), np.float64),
            ids=column(ids, np.arange(1, m + 1), np.int64),
            crowd=column(crowd, np.zeros(m), np.bool_),
            difficult=column(difficult, np.zeros(m), np.bool_),
            outlines=Outlines.none(m) if outlines is None else outlines[order],
            faults=tuple(faults),
        )

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.image_files)

    @property
    def ignored(self) -> NDArray[np.bool_]:
        """(M,) True where an annotation is an ignored region: crowd or difficult."""
        return self.crowd | self.difficult

    @property
    def image_index(self) -> NDArray[np.int64]:
        """(M,) the picture each annotation belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def rows(self, image: int) -> slice:
        """The rows of the annotations of picture `image`."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))

    def image_path(self, image: int) -> Path:
        """Where picture `image` lies."""
        return self.root / self.image_files[image]

    def subset(self, images: Sequence[int] | NDArray[np.integer[Any]]) -> AnnotationSet:
        """The set of the given pictures, in the given order, with their annotations."""
        chosen = np.asarray(images, np.int64)
        counts = np.diff(self.starts)[chosen]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.repeat(self.starts[chosen] - starts[:-1], counts) + np.arange(starts[-1])
        return replace(
            self,
            image_files=FileNames(self.image_files[i] for i in chosen.tolist()),
            image_ids=self.image_ids[chosen],
            image_hw=self.image_hw[chosen],
            starts=starts,
            **{name: getattr(self, name)[rows] for name in _ANNOTATION_COLUMNS},
        )

    def fingerprint(self) -> str:
        """A short hash of file names, categories and annotations: the same truth gives the same word."""
        digest = hashlib.sha256("\n".join(self.image_files).encode("utf-8", "surrogateescape"))
        digest.update(repr(self.categories).encode())
        for name in ("starts", *_PLAIN_COLUMNS):
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        for text in self.outlines.texts():
            digest.update(text)
        return digest.hexdigest()[:16]


_PLAIN_COLUMNS = ("boxes", "labels", "areas", "ids", "crowd", "difficult")
_ANNOTATION_COLUMNS = (*_PLAIN_COLUMNS, "outlines")
