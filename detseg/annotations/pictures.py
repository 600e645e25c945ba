"""What the readers need to know of pictures without decoding them: where they lie, and how large they are."""

from __future__ import annotations

import os
import warnings
from functools import cache
from pathlib import Path

from PIL import Image

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
                if image.getexif().get(_EXIF_ORIENTATION) in _ON_ITS_SIDE:
                    w, h = h, w
                return h, w
    except Exception:  # Pillow's readers raise nearly anything on broken files
        return None


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
