"""Label maps as results: a folder with a picture file for each picture, whose pixels hold the data set's class values.

Palette and grey pictures of 8 or 16 bits count; 255 stands for "no class" unless it is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detseg.annotations.categories import Categories
from detseg.annotations.semantic import IGNORE, SemanticSet
from detseg.errors import DataError
from detseg.evaluation.lookup import UNKNOWN, Pictures
from detseg.evaluation.reading import files_in

SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif", ".webp")
_MODES = {"P": np.uint8, "L": np.uint8, "1": np.uint8, "I;16": np.uint16, "I": np.int32}
_VALUES = 2**16


class MaskFolder:
    """The label maps of a folder, in the order of the data set's pictures, each read when it is its turn.

    `missing`: how many pictures have none; all their pixels count as missed. Raises DataError when the folder holds
    none at all.
    """

    def __init__(self, folder: Path, truth: SemanticSet) -> None:
        self._truth = truth
        pictures = Pictures(truth.image_files, truth.image_ids)
        self._files: dict[int, Path] = {}
        for file in mask_files(folder):
            index = pictures.of_stem(file.relative_to(folder).with_suffix("").as_posix())
            if index in self._files:
                raise DataError(f"{file}: {self._files[index]} is a label map of the same picture; keep one of them")
            if index != UNKNOWN:
                self._files[index] = file
        if not self._files:
            raise DataError(
                f"{folder}: no label map in it is of a picture of {truth.root}; they are named like pictures"
            )
        self._table = class_table(truth.categories)

    @property
    def missing(self) -> int:
        """Pictures without a label map."""
        return len(self._truth) - len(self._files)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self.read(image) for image in range(len(self._truth)))

    def read(self, image: int) -> NDArray[np.uint8]:
        """The label map of one picture; nothing but IGNORE where it has none."""
        if image in self._files:
            return read_label_map(self._files[image], self._table)
        return np.full_like(self._truth.label_map(image), IGNORE)


def mask_files(folder: Path) -> list[Path]:
    """The folder's files that may be label maps."""
    return [file for suffix in SUFFIXES for file in files_in(folder, suffix)]


def class_table(categories: Categories) -> NDArray[np.int64]:
    """(65536,) pixel value -> class index, IGNORE for 255, -1 for a value that is no class."""
    table = np.full(_VALUES, -1)
    table[IGNORE] = IGNORE
    for index, value in enumerate(categories.ids):
        if 0 <= value < _VALUES:
            table[value] = index
    return table


def read_label_map(file: Path, table: NDArray[np.int64]) -> NDArray[np.uint8]:
    """(h, w) class index of each pixel of a file. Raises DataError when it is no label map or has unknown values."""
    try:
        with Image.open(file) as image:
            if image.mode not in _MODES:
                raise DataError(f"{file}: is a picture of colours ({image.mode}); a label map has one value a pixel")
            values = np.asarray(image).astype(np.int64)
    except DataError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on broken files
        raise DataError(f"{file}: cannot be read as a picture: {error}") from error
    if values.min(initial=0) < 0 or values.max(initial=0) >= _VALUES:
        raise DataError(f"{file}: holds the value {values.max()}, which is no class of the data set")
    labels = table[values]
    if (labels < 0).any():
        unknown = sorted(set(values[labels < 0].tolist()))
        named = ", ".join(map(str, unknown[:5]))
        raise DataError(f"{file}: holds {named}, which {'is' if len(unknown) == 1 else 'are'} no class of the data set")
    return labels.astype(np.uint8)
