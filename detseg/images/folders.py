"""Walking folders: every picture below one, or those that match a pattern. Sorted, lazily, link loops cut."""

# Names come by the million and stay plain strings.
# ruff: noqa: PTH112, PTH116, PTH118, PTH122, PTH208

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path, PurePosixPath

from detseg.images.image_file import ImageFile, unique_folders, unique_stems

ENDINGS = frozenset((".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"))

Identity = tuple[int, int]  # device and number of a folder: the same by whatever path it is reached


@dataclass(frozen=True)
class _Folder:
    """A folder still to be listed. `above`: the folders it lies in, itself excluded."""

    path: Path
    name: PurePosixPath
    placed: PurePosixPath
    above: frozenset[Identity]


def walk(root: Path, name: PurePosixPath, skip: Collection[Identity] = ()) -> Iterator[ImageFile]:
    """Every picture below `root`, whose own name in the run is `name`: a folder's files, then its folders.

    Told by their ending; hidden files and folders are left out. A folder that cannot be read and one that
    leads back to itself are given as pictures with a fault. `skip`: folders that are not entered.
    """
    pending = [_Folder(root, name, name, _above(root))]
    while pending:
        folder = pending.pop()
        try:
            identity = _identity(folder.path)
            if identity in skip:
                continue
            if identity in folder.above:
                fault = "a link loop: it leads back to a folder above"
                yield ImageFile(folder.path, folder.name, fault)
                continue
            pictures, folders = _listing(folder.path)
        except OSError as error:
            fault = f"the folder cannot be read: {error.strerror or error}"
            yield ImageFile(folder.path, folder.name, fault)
            continue
        for picture, stem in zip(pictures, unique_stems(pictures, folders), strict=True):
            yield ImageFile(folder.path / picture, folder.name / picture, placed=folder.placed / stem)
        above = folder.above | {identity}
        pending += [
            _Folder(folder.path / inner, folder.name / inner, folder.placed / placed, above)
            for inner, placed in zip(reversed(folders), reversed(unique_folders(folders)), strict=True)
        ]


def _listing(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the pictures and of the folders in `folder`, sorted; hidden ones left out."""
    pictures, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                folders.append(entry.name)
            elif os.path.splitext(entry.name)[1].lower() in ENDINGS:
                pictures.append(entry.name)
    return sorted(pictures), sorted(folders)


def _above(root: Path) -> frozenset[Identity]:
    """The folders that `root` really lies in: a link back to one of them is a loop too."""
    try:
        return frozenset(_identity(folder) for folder in Path(os.path.realpath(root)).parents)
    except OSError:  # not to be looked at from here; loops are then cut one round later
        return frozenset()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _identity(folder: str | Path) -> Identity:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def has_magic(pattern: str) -> bool:
    """True where a path holds a wildcard."""
    return re.search(r"[*?\[]", pattern) is not None


def split_pattern(pattern: str) -> tuple[str, list[str]]:
    """The folder before the first wildcard, and the parts behind it."""
    parts = Path(pattern).parts
    first = next(i for i, part in enumerate(parts) if has_magic(part))
    rest = list(parts[first:])
    if rest[-1] == "**":
        rest.append("*")
    return str(Path(*parts[:first])), rest


def matching(pattern: str, skip: Collection[Identity] = ()) -> Iterator[str]:
    """The pictures that match, sorted within a folder; `**` is any number of folders, as in a shell.

    A last part that gives an ending takes any file with it, else only known endings count. Folders match too,
    unless the pattern holds `**`, which looks into them anyway, save into those of `skip`.
    """
    folder, parts = split_pattern(pattern)
    any_ending = os.path.splitext(parts[-1])[1] not in ("", ".*")
    for path in _match(folder, parts, frozenset(skip)):
        if os.path.isdir(path):
            if "**" not in parts:
                yield path
        elif any_ending or os.path.splitext(path)[1].lower() in ENDINGS:
            yield path


def _match(folder: str, parts: list[str], above: frozenset[Identity]) -> Iterator[str]:
    if not parts:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _match(folder, rest, above)
        yield from _match_below(folder, parts, above)
    elif not has_magic(part):
        if os.path.lexists(os.path.join(folder, part)):
            yield from _match(os.path.join(folder, part), rest, above)
    else:
        fits = re.compile(translate(part)).match
        for name in _names(folder, hidden=part.startswith(".")):
            path = os.path.join(folder, name) if folder != "." else name
            if fits(name) and (not rest or os.path.isdir(path)):
                yield from _match(path, rest, above)


def _match_below(folder: str, parts: list[str], above: frozenset[Identity]) -> Iterator[str]:
    """The same pattern, tried in every folder inside `folder`."""
    inside = above | {_identity(folder)}
    for name in _names(folder, hidden=False):
        path = os.path.join(folder, name) if folder != "." else name
        if os.path.isdir(path) and _identity(path) not in inside:
            yield from _match(path, parts, inside)


def _names(folder: str, *, hidden: bool) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if hidden or not name.startswith("."))
    except OSError:
        return []
