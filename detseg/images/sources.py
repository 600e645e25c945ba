"""From what the user names to pictures, one by one: files, folders, patterns, lists, standard input.

Nothing is gathered first: a folder of millions of pictures costs the memory of its largest folder's names.
Every picture is named by its place relative to the folder that all sources have in common, so pictures of
different sources never share a name; where the same one could come twice (lists, patterns, sources inside one
another) that is noticed and it is done once.
"""

# Names come by the million and stay plain strings.
# ruff: noqa: PTH100, PTH109, PTH112, PTH116, PTH118, PTH119, PTH120

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import TextIO

from detseg.errors import DetsegError
from detseg.images.folders import Identity, has_magic, matching, split_pattern, walk
from detseg.images.image_file import Claims, ImageFile, unique_stems

_ACCEPTED = (
    "a source is a picture, a folder, a pattern such as 'photos/**/*.jpg', a .txt file with one path per "
    "line, or - for paths on standard input"
)


@dataclass(frozen=True)
class _Source:
    """One source, looked at but not yet listed. `root`: the absolute folder that holds all its pictures."""

    given: str
    kind: str  # "file", "folder", "pattern", "list" or "stdin"
    root: str


def find_images(
    sources: Sequence[str | Path] | str | Path,
    *,
    stdin: TextIO | None = None,
    skip: Collection[Path | str] = (),
) -> Iterator[ImageFile]:
    """The pictures that `sources` name, in the order given and sorted within a folder, lazily.

    A folder is searched with all it holds, hidden files apart; a file that is named itself is taken whatever
    its ending. Paths in a list count from the list's folder (or from the current one when they are found only
    there). `skip` names folders that are not entered, such as the one that is written to. Raises DetsegError
    at once when a source does not exist; what turns out bad later (in a folder, in a list) is a picture with
    a `fault`, or one that `read_image` refuses by name.
    """
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    if not given:
        raise DetsegError(f"no source is given; {_ACCEPTED}")
    looked_at = [_look_at(os.fspath(source)) for source in given]
    return _find(looked_at, stdin if stdin is not None else sys.stdin, _identities(skip))


def _look_at(given: str) -> _Source:
    """What kind of source this is. Raises DetsegError when it is none."""
    if given == "-":
        return _Source(given, "stdin", os.getcwd())
    if os.path.isdir(given):
        return _Source(given, "folder", _absolute(given))
    if os.path.lexists(given):  # also when it holds * or [: an existing file is meant
        if given.lower().endswith(".txt"):
            return _Source(given, "list", _list_root(given))
        return _Source(given, "file", os.path.dirname(_absolute(given)))
    if has_magic(given) and next(matching(given), None) is not None:
        return _Source(given, "pattern", _absolute(split_pattern(given)[0]))
    raise DetsegError(_missing(given))


def _find(sources: Sequence[_Source], stdin: TextIO, skip: Collection[Identity]) -> Iterator[ImageFile]:
    base = os.path.commonpath([source.root for source in sources])
    files = _place_files(sources, base)
    found = chain.from_iterable(_expand(source, base, files, stdin, skip) for source in sources)
    if not _may_meet(sources):
        yield from found
        return
    claims = Claims()
    for image in found:
        claimed = claims.claim(image)
        if claimed is not None:
            yield claimed


def _expand(
    source: _Source,
    base: str,
    files: dict[str, ImageFile],
    stdin: TextIO,
    skip: Collection[Identity],
) -> Iterator[ImageFile]:
    """The pictures of one source."""
    if source.kind == "file":
        image = files.pop(_absolute(source.given), None)  # gone when the same file was given before
        if image is not None:
            yield image
    elif source.kind == "folder":
        yield from walk(Path(source.given), _name(source.root, base), skip)
    elif source.kind == "pattern":
        yield from _each(matching(source.given, skip), base, skip)
    elif source.kind == "list":
        yield from _each(_listed(source.given), base, skip)
    else:
        yield from _each(_lines(getattr(stdin, "buffer", stdin)), base, skip)


def _each(paths: Iterable[str], base: str, skip: Collection[Identity]) -> Iterator[ImageFile]:
    """Paths in any order; those of folders are walked."""
    for path in paths:
        name = _name(_absolute(path), base)
        if os.path.isdir(path):
            yield from walk(Path(path), name, skip)
        else:
            yield ImageFile(Path(path), name)


def _place_files(sources: Sequence[_Source], base: str) -> dict[str, ImageFile]:
    """The files named one by one, by absolute path: all are known, so stems can be told apart evenly."""
    folders: dict[str, dict[str, str]] = {}
    for source in sources:
        if source.kind == "file":
            folders.setdefault(source.root.casefold(), {}).setdefault(_absolute(source.given), source.given)
    placed = {}
    for in_folder in folders.values():
        stems = unique_stems([os.path.basename(path) for path in in_folder])
        for (absolute, given), stem in zip(in_folder.items(), stems, strict=True):
            name = _name(absolute, base)
            placed[absolute] = ImageFile(Path(given), name, placed=name.parent / stem)
    return placed


def _may_meet(sources: Sequence[_Source]) -> bool:
    """True where two sources could yield the same picture, or two pictures with the same output."""
    if any(source.kind not in ("file", "folder") for source in sources):
        return True
    folders = [source.root.casefold() for source in sources if source.kind == "folder"]
    roots = {*folders}
    if len(roots) < len(folders):
        return True
    inner = chain.from_iterable(Path(folder).parents for folder in folders)
    file_roots = {source.root.casefold() for source in sources if source.kind == "file"}
    above_files = chain.from_iterable((Path(root), *Path(root).parents) for root in file_roots)
    return any(str(parent) in roots for parent in chain(inner, above_files))


def _list_root(given: str) -> str:
    """The folder that holds everything a list names; its folder when it names nothing."""
    root: str | None = None
    for path in _listed(given):
        folder = os.path.dirname(_absolute(path))
        root = folder if root is None else os.path.commonpath([root, folder])
    return root if root is not None else os.path.dirname(_absolute(given))


def _listed(given: str) -> Iterator[str]:
    """The paths in a list file, as they can be opened. Raises DetsegError when the list cannot be read."""
    try:
        with open(given, "rb") as lines:
            folder = os.path.dirname(given)
            first = next(_lines(lines), "")
            if not os.path.lexists(os.path.join(folder, first)) and os.path.lexists(first):
                folder = ""
            lines.seek(0)
            for path in _lines(lines):
                yield os.path.join(folder, path)
    except OSError as error:
        raise DetsegError(f"{given}: the list cannot be read: {error.strerror}") from None


def _lines(stream: Iterable[bytes | str]) -> Iterator[str]:
    """Lines without their ends; empty ones left out. Bytes that are not UTF-8 are kept as surrogates."""
    for number, line in enumerate(stream):
        text = line if isinstance(line, str) else line.decode("utf-8", "surrogateescape")
        if number == 0:
            text = text.removeprefix("\ufeff")
        if text.strip():
            yield text.rstrip("\r\n")


def _name(absolute: str, base: str) -> PurePosixPath:
    """The place relative to `base`; outside of it the whole path, told apart from the places inside."""
    inside = base if base.endswith(os.sep) else base + os.sep
    if absolute.startswith(inside):
        return PurePosixPath(absolute[len(inside) :])
    path = PurePosixPath(absolute)
    if absolute == base:
        return PurePosixPath()
    outside = path.relative_to(path.anchor)
    return _unused(base, "outside") / outside if os.path.lexists(Path(base, outside.parts[0])) else outside


def _unused(folder: str, name: str) -> PurePosixPath:
    while os.path.lexists(os.path.join(folder, name)):
        name += "_"
    return PurePosixPath(name)


def _absolute(path: str) -> str:
    """An absolute path without `..`; links are followed only where `..` makes it necessary."""
    if ".." in path and ".." in Path(path).parts:
        folder, name = os.path.split(path)
        return os.path.realpath(path) if name in ("", "..") else os.path.join(os.path.realpath(folder), name)
    return os.path.abspath(path)


def _identities(folders: Iterable[Path | str]) -> set[Identity]:
    found = set()
    for folder in folders:
        if os.path.isdir(folder):
            status = os.stat(folder)
            found.add((status.st_dev, status.st_ino))
    return found


def _missing(given: str) -> str:
    """The words for a source that is not there."""
    if "://" in given:
        return f"{given}: addresses are not opened; download the pictures first"
    if has_magic(given):
        return f"{given}: no picture matches this pattern"
    near = _near(Path(given))
    return f"{given!r}: no such file or folder; {f'did you mean {near!r}? ' if near else ''}{_ACCEPTED}"


def _near(path: Path) -> str | None:
    """An existing path that looks like this one, with its first missing part corrected."""
    for missing in (path, *path.parents):
        parent = missing.parent
        if parent == missing or not parent.is_dir():
            continue
        with os.scandir(parent) as entries:
            names = [entry.name for entry in islice(entries, 10_000)]
        found = difflib.get_close_matches(missing.name, names, n=1)
        if not found:
            return None
        whole = parent / found[0] / path.relative_to(missing)
        return str(whole if whole.exists() else parent / found[0])
    return None
