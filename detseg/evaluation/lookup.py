"""Whose picture and whose class is meant: what stands in a file of results -> indices of the truth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.annotations import Categories, ClassMatch

UNKNOWN = -1
_Parts = tuple[str, ...]

# folders that pictures and what is said of them lie in, side by side: images/val/a.jpg, labels/val/a.txt
_SIDES = {"images", "labels", "masks", "JPEGImages", "Annotations", "SegmentationClass"}


class Pictures:
    """The pictures of a data set, found by id or by name."""

    def __init__(self, files: Sequence[str], ids: NDArray[np.int64]) -> None:
        self._files, self._ids = files, ids

    def of_ids(self, ids: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) picture ids -> (n,) indices, UNKNOWN where there is no such picture."""
        return _of_ids(ids, self._ids)

    @cached_property
    def index_of_id(self) -> dict[int, int]:
        """Picture id -> index."""
        return {id_: index for index, id_ in enumerate(self._ids.tolist())}

    def of_path(self, path: str) -> int:
        """The one picture whose path ends as this one, as far as both tell it; UNKNOWN when none or several do.

        Folders `images`, `labels` and their like are passed over.
        """
        return self._found(path, self._by_name)

    def of_stem(self, path: str) -> int:
        """The same for a path without the picture's ending, as label files have it."""
        return self._found(path, self._by_stem)

    @cached_property
    def _by_name(self) -> dict[str, list[tuple[int, _Parts]]]:
        return _listed((index, PurePosixPath(spelt)) for index, spelt in self._spellings())

    @cached_property
    def _by_stem(self) -> dict[str, list[tuple[int, _Parts]]]:
        spelt = [(index, PurePosixPath(name)) for index, name in self._spellings()]
        plain = [(index, path.with_suffix("")) for index, path in spelt if path.name]
        # beside another picture of the same stem, detseg writes a_jpg.txt and a_png.txt
        marked = [(i, path.with_name(f"{path.stem}_{path.suffix[1:]}")) for i, path in spelt if path.suffix]
        return _listed([*plain, *marked])

    @cached_property
    def _above(self) -> int:
        """How many folders all pictures have in common."""
        folders = [_parts(PurePosixPath(name))[:-1] for name in self._files]
        low, high = min(folders, default=()), max(folders, default=())
        return next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))

    def _spellings(self) -> Iterable[tuple[int, str]]:
        for index, name in enumerate(self._files):
            unified = name.replace("\\", "/")
            yield index, unified
            escaped = unified.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            if escaped != unified:  # how detseg's writers of text spell a name that is not UTF-8
                yield index, escaped

    def _found(self, path: str, listed: dict[str, list[tuple[int, _Parts]]]) -> int:
        parts = _parts(PurePosixPath(path.replace("\\", "/")))
        alike = listed.get(parts[-1], ()) if parts else ()
        ends = [(_shared(parts, theirs), index, theirs) for index, theirs in alike]
        most = max((length for length, _, _ in ends), default=0)
        longest = {index: theirs for length, index, theirs in ends if length == most and length}
        if len(longest) > 1:  # a.txt is of a.jpg in the folder of all pictures, not of b/a.jpg
            longest = {index: theirs for index, theirs in longest.items() if theirs[self._above :] == parts}
        return next(iter(longest)) if len(longest) == 1 else UNKNOWN


class Classes:
    """The classes of a data set, found by id, name or place."""

    def __init__(self, categories: Categories) -> None:
        self.categories = categories
        self._matched: dict[tuple[str, ...], dict[str, int]] = {}

    def of_ids(self, ids: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) category ids -> (n,) class indices, UNKNOWN where there is no such class."""
        return _of_ids(ids, np.asarray(self.categories.ids, np.int64))

    def of_names(self, names: Sequence[str]) -> list[int]:
        """Class names, each once -> class indices, UNKNOWN where there is no such class; see `ClassMatch`."""
        distinct = list(dict.fromkeys(names))
        match = ClassMatch.of(Categories.from_names(distinct), self.categories)
        found = {distinct[ours]: theirs for ours, theirs in match.pairs}
        return [found.get(name, UNKNOWN) for name in names]


def of_known(ids: NDArray[np.float64], known: Mapping[int, int]) -> NDArray[np.int64]:
    """(n,) ids -> (n,) what `known` says of each, UNKNOWN where it says nothing."""
    place = _of_ids(ids, np.array(list(known), np.int64))
    return np.where(place == UNKNOWN, UNKNOWN, np.array([*known.values(), UNKNOWN])[place])


def _of_ids(ids: NDArray[Any], known: NDArray[np.int64]) -> NDArray[np.int64]:
    if not len(known):
        return np.full(len(ids), UNKNOWN)
    order = np.argsort(known, kind="stable")
    ordered = known[order]
    place = np.minimum(np.searchsorted(ordered, ids), len(known) - 1)
    return np.where(ordered[place] == ids, order[place], UNKNOWN)


def _listed(paths: Iterable[tuple[int, PurePosixPath]]) -> dict[str, list[tuple[int, _Parts]]]:
    """Last part -> (index, all parts) of the paths that end in it."""
    listed: dict[str, list[tuple[int, _Parts]]] = defaultdict(list)
    for index, path in paths:
        parts = _parts(path)
        if parts:
            listed[parts[-1]].append((index, parts))
    return listed


def _parts(path: PurePosixPath) -> _Parts:
    """The parts of a path that tell pictures apart."""
    return (*(part for part in path.parts[:-1] if part not in _SIDES), *path.parts[-1:])


def _shared(one: _Parts, other: _Parts) -> int:
    """How many parts the paths share at their end; 0 where they differ before the shorter one is used up."""
    shared = min(len(one), len(other))
    return shared if one[-shared:] == other[-shared:] else 0
