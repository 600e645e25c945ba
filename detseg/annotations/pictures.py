"""What the readers need to know of pictures without decoding them: where they lie, and how large they are."""

from __future__ import annotations

import os
import warnings
from functools import cache
from pathlib import Path

from PIL import Image
from PIL.ImageFile import ImageFile

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"}
)
MAX_SIDE = 2**31 - 1  # a size beyond this is no size

_EXIF_ORIENTATION = 0x0112
_ON_ITS_SIDE = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def header_hw(path: str | Path) -> tuple[int, int] | None:
    """(h, w) of the upright picture, from its header alone; None when there is no readable picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a large picture is no reason to speak here
            with Image.open(path) as image:
                w, h = image.size
                if _exif(image).get(_EXIF_ORIENTATION) in _ON_ITS_SIDE:
                    w, h = h, w
                return h, w
    except Exception:  # Pillow's readers raise nearly anything on broken files
        return None


def _exif(image: ImageFile) -> Image.Exif:
    """The picture's EXIF block. Of a PNG Pillow would decode all pixels, since the block may come after them."""
    if image.format != "PNG" or image.fp is None:
        return image.getexif()
    exif, fp = Image.Exif(), image.fp
    fp.seek(8)
    while len(head := fp.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"eXIf":
            exif.load(fp.read(length))
            break
        fp.seek(length + 4, os.SEEK_CUR)
    return exif


class Folders:
    """Which files lie where, each folder listed once: asking for 100,000 files costs a few listings."""

    def __init__(self) -> None:
        self._names = cache(_file_names)

    def names(self, folder: str | Path) -> frozenset[str]:
        """The names of the files (and links to files) in a folder; none where there is no such folder."""
        return self._names(str(folder))

    def has(self, folder: str | Path, file: str) -> bool:
        """Is there a file `file` (a path relative to `folder`, or absolute)?"""
        if "\0" in file:
            return False
        where, name = os.path.split(os.path.join(folder, file))  # noqa: PTH118 - pathlib is too slow for this many
        return name in self.names(where)


def _file_names(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if not entry.is_dir())
    except (OSError, ValueError):
        return frozenset()
