"""Mask files: pictures whose pixels are numbers or colours that stand for classes."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detseg.errors import DataError

MASK_SUFFIXES = frozenset({".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm", ".webp"})
_UNKNOWN = -1
_SHOWN = 8  # unknown values named in a message
_LOOKUP = 65536  # numbers up to here are looked up in a table


@dataclass(frozen=True, eq=False)
class PixelValues:
    """What pixels mean: `numbers` and `colours` (r, g, b) -> class index, or IGNORE."""

    numbers: Mapping[int, int]
    colours: Mapping[tuple[int, int, int], int]
    by_colour: bool = False  # the indices of palettes mean nothing, their colours do

    @cached_property
    def table(self) -> NDArray[np.int16]:
        """(65536,) class index of each number, -1 where it has none."""
        table = np.full(_LOOKUP, _UNKNOWN, np.int16)
        for number, index in self.numbers.items():
            if 0 <= number < _LOOKUP:
                table[number] = index
        return table

    @cached_property
    def packed(self) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
        """Colours as sorted numbers, and their class indices."""
        pairs = sorted((r << 16 | g << 8 | b, index) for (r, g, b), index in self.colours.items())
        return np.array([p[0] for p in pairs], np.int64), np.array([p[1] for p in pairs], np.int16)

    def decode(self, pixels: NDArray[np.integer]) -> NDArray[np.int16]:
        """(h, w) numbers or (h, w, 3) colours -> (h, w) class indices, -1 for what is unknown."""
        if pixels.ndim == 3 and self.colours:
            known, index = self.packed
            packed = pack(pixels)
            place = np.searchsorted(known, packed).clip(max=len(known) - 1)
            return np.where(known[place] == packed, index[place], np.int16(_UNKNOWN))
        numbers = pixels[..., 0] if pixels.ndim == 3 else pixels
        if numbers.dtype in (np.uint8, np.uint16):
            decoded: NDArray[np.int16] = self.table[numbers]
            return decoded
        inside = (numbers >= 0) & (numbers < _LOOKUP)
        return np.where(inside, self.table[np.where(inside, numbers, 0)], np.int16(_UNKNOWN))


def pack(pixels: NDArray[np.integer]) -> NDArray[np.int64]:
    """(..., 3) colours -> one number each."""
    wide = pixels.astype(np.int64)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def read_pixels(file: Path, *, by_colour: bool = False) -> NDArray[np.integer]:
    """(h, w) the numbers of a grey or palette picture, or (h, w, 3) uint8 colours. Raises DataError naming the file.

    A palette is applied only `by_colour`: else its indices are the numbers. Alpha is left out. A colour picture whose
    three channels are one is a grey one, but not `by_colour`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as picture:
                pixels = _as_stored(picture, by_colour)
    except FileNotFoundError:
        raise DataError(f"{file}: there is no such mask") from None
    except Exception as error:  # Pillow's readers raise nearly anything on broken files
        raise DataError(f"{file}: is no mask that can be read: {' '.join(str(error).split())}") from error
    if (
        pixels.ndim == 3
        and not by_colour
        and (pixels[..., 0] == pixels[..., 1]).all()
        and (pixels[..., 1] == pixels[..., 2]).all()
    ):
        return pixels[..., 0]
    return pixels


def _as_stored(picture: Image.Image, by_colour: bool) -> NDArray[np.integer]:
    if picture.mode == "P" and by_colour:
        return np.asarray(picture.convert("RGB"))
    if picture.mode == "1":
        return np.asarray(picture).astype(np.uint8)
    if picture.mode in ("L", "P", "I"):
        return np.asarray(picture)
    if picture.mode.startswith("I;16"):
        return np.asarray(picture).astype(np.uint16)  # either byte order
    if picture.mode in ("LA", "PA", "La"):
        return np.asarray(picture)[..., 0]
    if picture.mode == "F":
        raise ValueError("its pixels are fractions, not numbers of classes")
    return np.asarray(picture.convert("RGB"))


def write_mask(file: Path, numbers: NDArray[np.uint8], palette: NDArray[np.uint8]) -> None:
    """Writes (h, w) numbers as a palette PNG, in one step; palette (256, 3)."""
    from detseg import files

    picture = Image.fromarray(np.ascontiguousarray(numbers))
    picture.putpalette(palette.astype(np.uint8).ravel().tolist())
    with files.replacing(file) as temporary:
        picture.save(temporary, "PNG", optimize=False, compress_level=6)


def voc_palette() -> NDArray[np.uint8]:
    """(256, 3) the colours of PASCAL VOC's masks: bit k of r, g, b is bit 3j, 3j + 1, 3j + 2 of the number."""
    numbers = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for j in range(8):
        for channel in range(3):
            palette[:, channel] |= ((numbers >> (3 * j + channel) & 1) << (7 - j)).astype(np.uint8)
    return palette


@dataclass(frozen=True, eq=False)
class MaskFiles:
    """Label maps from one mask file a picture: a `MapSource`. sizes (N, 2): of the pictures, 0 where unknown."""

    files: tuple[Path, ...]
    sizes: NDArray[np.int32]
    values: PixelValues

    def read(self, image: int) -> NDArray[np.uint8]:
        """See `MapSource.read`."""
        file = self.files[image]
        pixels = read_pixels(file, by_colour=self.values.by_colour)
        h, w = self.sizes[image].tolist()
        if min(h, w) > 0 and pixels.shape[:2] != (h, w):
            size = f"{pixels.shape[1]}x{pixels.shape[0]}"
            raise DataError(f"{file}: the mask is {size}, its picture {w}x{h}; make them the same size")
        indices = self.values.decode(pixels)
        if len(indices) and indices.size and indices.min() < 0:
            raise DataError(_unknown(file, pixels, indices < 0))
        return indices.astype(np.uint8)

    def subset(self, images: NDArray[np.int64]) -> MaskFiles:
        """See `MapSource.subset`."""
        return replace(self, files=tuple(self.files[i] for i in images.tolist()), sizes=self.sizes[images])

    def digest(self) -> bytes:
        """See `MapSource.digest`: of the files as they are, and what their values mean."""
        meaning = (sorted(self.values.numbers.items()), sorted(self.values.colours.items()), self.values.by_colour)
        found = hashlib.sha256(repr(meaning).encode())
        for file in self.files:
            try:
                found.update(file.read_bytes())
            except OSError as error:
                raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
        return found.digest()


def _unknown(file: Path, pixels: NDArray[np.integer], where: NDArray[np.bool_]) -> str:
    strange = pixels[where]
    if strange.ndim == 2:
        values, counts = np.unique(pack(strange), return_counts=True)
        names = [f"({v >> 16}, {v >> 8 & 255}, {v & 255})" for v in values.tolist()]
    else:
        values, counts = np.unique(strange, return_counts=True)
        names = [str(v) for v in values.tolist()]
    most = np.argsort(-counts, kind="stable")[:_SHOWN]
    shown = ", ".join(f"{names[i]} in {counts[i]} pixels" for i in most)
    more = f", and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    kind = "colours" if strange.ndim == 2 else "values"
    return (
        f"{file}: {where.sum()} pixels hold {kind} that stand for no class: {shown}{more}; "
        "name them in classes.txt (`value name` or `name r g b` a line; `void` for what is not to count)"
    )
