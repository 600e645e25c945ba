"""The parts of a data set that are looked at: each split, objects or label maps, as the readers give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    if split is None and names and find_format(path) == "voc":
        return _load_tree(path, names, found)
    wanted: Sequence[str | None] = [split] if split is not None else names or [None]
    return [part for name in wanted if (part := _load(path, name, found)) is not None]


def has_own_maps(maps: SemanticSet) -> bool:
    """Do the label maps lie in files, rather than being drawn from outlines?"""
    return isinstance(maps.source, MaskFiles)


def _load(path: Path, split: str | None, found: Findings, *, with_maps: bool = True) -> Part | None:
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
    if format in ("masks", "voc") and with_maps:
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
    # a VOC tree has masks for some of its pictures, by design
    told = [replace(f, kind="unmasked-picture") if f.kind == "missing-mask" and not needed else f for f in maps.faults]
    found.add_faults(told, split)
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


def _load_tree(path: Path, names: Sequence[str], found: Findings) -> list[Part]:
    """The lists of a VOC tree, and what is in none of them; its masks are looked for once."""
    whole = _load(path, None, found)
    parts = [part for name in names if (part := _load(path, name, found, with_maps=False)) is not None]
    if whole is None:
        return parts
    listed = {name for part in parts for name in part.pictures.image_files}
    for name in sorted({*whole.pictures.image_files} - listed):
        found.add("unlisted-picture", path / name, "it has annotations, but no split lists it")
    with_masks = [replace(part, maps=_with(whole.maps, {*part.pictures.image_files})) for part in parts]
    rest = {*whole.pictures.image_files} - listed
    truth, maps = (_with(pictures, rest) for pictures in (whole.truth, whole.maps))
    return with_masks if truth is None and maps is None else [*with_masks, Part(None, whole.source, truth, maps)]


def _with(pictures: Any, names: set[str]) -> Any:
    """The pictures of a set that have one of the names; None where none has."""
    if pictures is None:
        return None
    mine = [i for i, name in enumerate(pictures.image_files) if name in names]
    return pictures.subset(np.array(mine, np.int64)) if mine else None
