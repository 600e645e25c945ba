"""`ImageFile`: a picture still on disk, and the names of what will be written about it."""

# Names come by the million and stay plain strings.
# ruff: noqa: PTH122

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

_LONGEST_STEM = 200  # bytes; file systems allow 255 for a name, and writers add to the stem


@dataclass(frozen=True)
class ImageFile:
    """One picture of a run.

    `path` is where it lies. `name` is the same place relative to the sources of the run: unique, relative,
    without `..`; tables and JSON files speak of it. `output` is where its own files go, without ending:
    unique even where case is not told apart and whatever ending is put behind it, so that nothing overwrites
    anything. `fault` says what is wrong where there is not even a file to open (a folder that cannot be read,
    a link loop).
    """

    path: Path
    name: PurePosixPath
    fault: str | None = None
    placed: PurePosixPath | None = None

    @property
    def output(self) -> PurePosixPath:
        """The unique relative path, without ending, under which this picture's own files are written."""
        return self.placed or self.name.parent / self.name.stem


def unique_stems(names: Sequence[str], folders: Iterable[str] = ()) -> list[str]:
    """For the pictures of one folder a stem each, so that no two have the same, case aside.

    The plain stem where only one picture has it, else with the ending behind: a.jpg, a.png -> a_jpg, a_png.
    `folders` are the folders beside them, which may be named like a file to be written (`a.txt`).
    """
    stems = [_short(os.path.splitext(name)[0]) for name in names]
    count = Counter(map(_folded, stems))
    count.update(_folded(os.path.splitext(name)[0]) for name in folders if "." in name)
    taken = set(count)
    unique = []
    for name, stem in zip(names, stems, strict=True):
        if count[_folded(stem)] > 1:
            stem = _free(f"{stem}_{os.path.splitext(name)[1].removeprefix('.')}", taken)
        unique.append(stem)
    return unique


def unique_folders(names: Sequence[str]) -> list[str]:
    """For the folders of one folder a name each, so that no two are the same, case aside."""
    taken: set[str] = set()
    count = Counter(map(_folded, names))
    return [name if count[_folded(name)] == 1 else _free(name, taken) for name in names]


class Claims:
    """What has been given away so far, for pictures that come in any order (lists, several sources at once).

    It remembers two numbers per picture, not the names.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._stems: set[int] = set()

    def claim(self, image: ImageFile) -> ImageFile | None:
        """The picture with an output of its own; None when it has come before."""
        seen = hash(str(image.name))
        if seen in self._seen:
            return None
        self._seen.add(seen)
        if image.fault is not None:
            return image
        folder, stem = image.output.parent, _short(image.output.name)
        placed = folder / stem
        if hash(_folded(str(placed))) in self._stems:
            stem = f"{stem}_{image.name.suffix.removeprefix('.')}"
            placed, number = folder / stem, 2
            while hash(_folded(str(placed))) in self._stems:
                placed, number = folder / f"{stem}_{number}", number + 1
        self._stems.add(hash(_folded(str(placed))))
        return replace(image, placed=placed)


def _folded(text: str) -> str:
    """The same for all spellings that some file system takes for one."""
    return text if text.isascii() and text.islower() else unicodedata.normalize("NFC", text).casefold()


def _free(wanted: str, taken: set[str]) -> str:
    """`wanted`, numbered if need be, and noted in `taken`."""
    free, number = wanted, 2
    while _folded(free) in taken:
        free, number = f"{wanted}_{number}", number + 1
    taken.add(_folded(free))
    return free


def _short(stem: str) -> str:
    raw = os.fsencode(stem)
    if len(raw) <= _LONGEST_STEM:
        return stem
    return f"{raw[:_LONGEST_STEM].decode(errors='ignore')}_{hashlib.sha256(raw).hexdigest()[:8]}"
