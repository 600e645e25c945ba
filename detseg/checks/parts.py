"""The parts of a data set that are looked at: each split, objects or label maps, as the readers give them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detseg.annotations import AnnotationSet, find_format, load, load_label_maps, splits
from detseg.annotations.mask_files import MaskFiles
from detseg.annotations.semantic import SemanticSet
from detseg.checks.finding import Findings
from detseg.errors import DataError


@dataclass(frozen=True, eq=False)
class Part:
    """A split, or the data set as a whole: its objects (`truth`), its label maps (`maps`), or both.

    `source` is the file or folder that faults of the part as a whole are told of.
    """

    split: str | None
    source: str
    truth: AnnotationSet | None
    maps: SemanticSet | None

    @property
    def pictures(self) -> AnnotationSet | SemanticSet:
        """The set that names the pictures."""
        named = self.truth if self.truth is not None else self.maps
        assert named is not None  # a part has one of them
        return named


def load_parts(path: Path, split: str | None, found: Findings) -> list[Part]:
    """All parts, or the one asked for; what the readers found goes to `found`, a part that cannot be read too.

    Pictures of a VOC tree that are in no list come as a part of their own. Raises DataError where there is no data
    set, or no such split.
    """
    names = splits(path)
    wanted: Sequence[str | None] = [split] if split is not None else names or [None]
    parts = [part for name in wanted if (part := _load(path, name, found)) is not None]
    if split is None and names and find_format(path) == "voc":
        parts += _unlisted(path, parts, found)
    return parts


def has_own_maps(maps: SemanticSet) -> bool:
    """Do the label maps lie in files, rather than being drawn from outlines?"""
    return isinstance(maps.source, MaskFiles)


def _load(path: Path, split: str | None, found: Findings) -> Part | None:
    truth, maps = None, None
    source = str(_source(path, split))
    format = find_format(path)
    try:
        truth = load(path, split)
        found.add_faults(truth.faults, split)
    except DataError as error:
        if format != "masks":
            _check_split(path, split)
            found.add("unreadable-part", source, _without(str(error), source), split=split)
            return None
    if format in ("masks", "voc"):
        maps = _load_maps(path, split, source, found, needed=truth is None)
    return None if truth is None and maps is None else Part(split, source, truth, maps)


def _load_maps(path: Path, split: str | None, source: str, found: Findings, needed: bool) -> SemanticSet | None:
    try:
        maps = load_label_maps(path, split)
    except DataError as error:
        if needed:
            _check_split(path, split)
            found.add("unreadable-part", source, _without(str(error), source), split=split)
        return None
    if not has_own_maps(maps):
        return None
    found.add_faults(maps.faults, split)
    return maps


def _check_split(path: Path, split: str | None) -> None:
    """Raises DataError for a split that there is not."""
    from detseg.annotations.split_names import choose_split

    if split is not None:
        choose_split(path, split, splits(path))


def _source(path: Path, split: str | None) -> Path:
    """The JSON file of a split; else the data set."""
    if path.is_dir() and find_format(path) == "coco":
        from detseg.annotations import coco
        from detseg.annotations.split_names import choose_split

        files = coco.split_files(path)
        if split is not None:
            return files[choose_split(path, split, tuple(files))]
        return next(iter(files.values())) if len(files) == 1 else path
    return path


def _without(message: str, source: str) -> str:
    return message.removeprefix(f"{source}: ")


def _unlisted(path: Path, parts: Sequence[Part], found: Findings) -> Iterator[Part]:
    """The pictures of a tree that no split lists."""
    whole = _load(path, None, found)
    if whole is None:
        return
    listed = {name for part in parts for name in part.pictures.image_files}
    for name in sorted({*whole.pictures.image_files} - listed):
        found.add("unlisted-picture", path / name, "it has annotations, but no split lists it")
    truth, maps = (_rest(s, listed) for s in (whole.truth, whole.maps))
    if truth is not None or maps is not None:
        yield Part(None, whole.source, truth, maps)


def _rest(pictures: Any, listed: set[str]) -> Any:
    """The pictures of a set that are not listed; None where all are."""
    if pictures is None:
        return None
    rest = [i for i, name in enumerate(pictures.image_files) if name not in listed]
    return pictures.subset(np.array(rest, np.int64)) if rest else None
