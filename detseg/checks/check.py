"""The whole check of a data set: readers' faults, picture files, objects, label maps, files that nothing speaks of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet, find_format
from detseg.annotations.formats import place_of_data
from detseg.annotations.semantic import SemanticSet
from detseg.checks.finding import Findings, Report
from detseg.checks.maps import check_maps, look_at_maps
from detseg.checks.objects import check_classes, check_empty, check_objects
from detseg.checks.parts import Part, load_parts
from detseg.checks.pictures import Pictures, check_files, check_repeats
from detseg.checks.survey import survey
from detseg.checks.trees import check_tree

Counts = NDArray[np.int64]  # (K,)
S = TypeVar("S", AnnotationSet, SemanticSet)
OnProgress = Callable[[int, int], None]  # (files done, files in all)


def check(
    path: str | Path,
    split: str | None = None,
    *,
    decode: bool = True,
    workers: int = 4,
    on_progress: OnProgress | None = None,
) -> Report:
    """Everything that is wrong with a data set, or with one split of it.

    `decode` False reads only the headers of pictures, and compares files byte by byte alone. Raises DataError where
    there is no data set or no such split; a part that cannot be read is a finding.
    """
    path = place_of_data(path)
    format = find_format(path)
    found = Findings()
    parts = load_parts(path, split, found)
    pictures = [_pictures(part) for part in parts]
    paths = list(dict.fromkeys(p for part in pictures for p in part.paths))
    maps = [part for part in parts if part.maps is not None]
    mapped = {part.maps.image_path(i) for part in maps if part.maps for i in range(len(part.maps))}
    count = _Count(len(paths) + len(mapped), on_progress)
    facts = survey(paths, decode=decode, workers=workers, on_picture=count.advance)
    for part in pictures:
        check_files(part, facts, found)
    check_repeats(pictures, facts, found)
    _check_parts(parts, path, workers, count, found)
    _check_same_classes(parts, found)
    if split is None:
        check_tree(path, parts, found)
    return Report(
        data=str(path),
        format=format,
        splits=tuple(part.split for part in parts if part.split),
        pictures=len(paths),
        objects=_objects(parts),
        label_maps=len(mapped),
        decoded=decode,
        findings=found.sorted(),
    )


class _Count:
    """How far the check has come."""

    def __init__(self, total: int, told: OnProgress | None) -> None:
        self._done, self._total, self._told = 0, total, told

    def advance(self) -> None:
        self._done += 1
        if self._told is not None:
            self._told(self._done, self._total)


def _pictures(part: Part) -> Pictures:
    named = part.pictures
    paths = [named.image_path(i) for i in range(len(named))]
    return Pictures(part.split, part.source, paths, named.image_hw, _contents(part))


def _contents(part: Part) -> Sequence[str]:
    """A word for the objects of each picture; only label maps have none."""
    truth = part.truth
    if truth is None:
        return [""] * len(part.pictures)
    return [_content(truth, i) for i in range(len(truth))]


def _content(truth: AnnotationSet, image: int) -> str:
    rows = truth.rows(image)
    # in parts of the picture, so that copies of another size have the same word
    h, w = np.maximum(truth.image_hw[image], 1).tolist()
    boxes = np.rint(truth.boxes[rows] / (w, h, w, h) * 100).astype(np.int64)
    table = np.column_stack([truth.labels[rows], boxes])
    return hashlib.sha256(table[np.lexsort(table.T)].tobytes()).hexdigest()[:8]


def _check_parts(parts: Sequence[Part], path: Path, workers: int, count: _Count, found: Findings) -> None:
    """Objects and label maps of every picture once, however many splits it is in."""
    done: set[Path] = set()
    mapped: set[Path] = set()
    used: dict[tuple[str, ...], Counts] = {}
    for part in parts:
        if part.truth is not None:
            check_objects(_not_in(part.truth, done), part.split, part.source, found)
            check_empty(part.truth, part.split, part.source, found)
            names = part.truth.categories.names
            _use(used, names, np.bincount(part.truth.labels, minlength=len(names)))
        if part.maps is not None:
            facts = look_at_maps(_not_in(part.maps, mapped), workers=workers, on_map=count.advance)
            check_maps(facts, part.split, part.source, found)
            pixels = sum((fact.pixels for fact in facts), np.zeros(len(part.maps.categories), np.int64))
            if part.truth is None:
                _use(used, part.maps.categories.names, pixels)
    for part in parts:
        categories = part.pictures.categories
        if categories.names in used:
            check_classes(categories, used.pop(categories.names) > 0, str(path), found)


def _use(used: dict[tuple[str, ...], Counts], names: tuple[str, ...], counts: Counts) -> None:
    used[names] = used.get(names, np.zeros(len(names), np.int64)) + counts


def _check_same_classes(parts: Sequence[Part], found: Findings) -> None:
    """All parts must have the classes of the first."""
    for part in parts[1:]:
        first, mine = parts[0].pictures.categories, part.pictures.categories
        if mine == first:
            continue
        told = [f"{name!r} is only in {s}" for s, a, b in ((part.split, mine, first), (parts[0].split, first, mine))
                for name in a.names if name not in b.names]  # fmt: skip
        told += [
            f"{name!r} has id {mine.ids[i]} in {part.split}, {first.ids[first.index_of_name[name]]} in {parts[0].split}"
            for i, name in enumerate(mine.names)
            if name in first.names and first.ids[first.index_of_name[name]] != mine.ids[i]
        ]
        words = "; ".join(told[:6]) + (f"; and {len(told) - 6} more" if len(told) > 6 else "")
        found.add(
            "classes-differ", part.source, f"its classes are not those of {parts[0].source}: {words}", split=part.split
        )


def _not_in(pictures: S, done: set[Path]) -> S:
    """The pictures that are not yet `done`; now they are."""
    new = [i for i in range(len(pictures)) if pictures.image_path(i) not in done]
    done |= {pictures.image_path(i) for i in new}
    return pictures if len(new) == len(pictures) else pictures.subset(np.array(new, np.int64))


def _objects(parts: Sequence[Part]) -> int:
    """Objects of all pictures, each picture once."""
    done: set[Path] = set()
    return sum(len(_not_in(part.truth, done).boxes) for part in parts if part.truth is not None)
