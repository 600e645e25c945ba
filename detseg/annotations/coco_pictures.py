"""The pictures of a COCO JSON file: where they lie, and how large they are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

from detseg.annotations.coco_values import Repeating, Unusable, as_id, number
from detseg.annotations.draft import Draft
from detseg.annotations.pictures import MAX_SIDE, Folders, header_hw
from detseg.annotations.split_names import SPLITS, canonical, split_of

_MAY_LEAD_OUT = re.compile(r"\.\.|^/|:")


class Picture(NamedTuple):
    """A picture of the file."""

    place: int  # in the draft; -1: left out, which was said
    hw: tuple[int, int]


def add_pictures(entries: list[Any], file: Path, draft: Draft, need_images: bool) -> dict[int, Picture]:
    """Adds the pictures to the draft; gives them by their ids."""
    named = [e["file_name"] for e in entries if isinstance(e, dict) and isinstance(e.get("file_name"), str)]
    places = _Places(file, named)
    draft.root = places.folders[0]
    pictures: dict[int, Picture] = {}
    for position, entry in enumerate(entries, 1):
        try:
            id_, name = _picture_entry(entry, position)
            if id_ in pictures:
                raise Unusable("duplicate-id", f"picture id {id_} is given more than once; the first is taken")
            pictures[id_] = Picture(-1, (0, 0))
            found = places.find(name)
            if found is None and need_images:
                raise _missing(name, places)
            found = found or PureWindowsPath(name).name if places.leads_out(name) else found or name
            hw = _size_of(entry) or header_hw(draft.root / found) or (0, 0)
            if need_images and min(hw) < 1:
                raise Unusable("unreadable-picture", f"picture {name!r}: no size in the file, not readable; left out")
        except Unusable as error:
            draft.error(error.kind, file, str(error))
            continue
        if isinstance(entry, Repeating):
            draft.warn("duplicate-key", file, f"picture {id_} gives {entry.key!r} more than once; the last is taken")
        pictures[id_] = Picture(draft.add_picture(found, hw, file, id_), hw)
    return pictures


def _missing(name: str, places: _Places) -> Unusable:
    if places.leads_out(name):
        return Unusable("outside-root", f"picture {name!r} leads out of the data set, which is refused; left out")
    return Unusable("missing-picture", f"picture {name!r} is not in {places.folders[0]}; left out")


def _picture_entry(entry: Any, position: int) -> tuple[int, str]:
    id_ = as_id(entry.get("id")) if isinstance(entry, dict) else None
    name = entry.get("file_name") if isinstance(entry, dict) else None
    if id_ is None or not isinstance(name, str) or not name:
        raise Unusable("bad-picture", f"picture {position} has no usable id and file_name; left out")
    return id_, name


def _size_of(entry: dict[str, Any]) -> tuple[int, int] | None:
    h, w = entry.get("height"), entry.get("width")
    if type(h) is int and type(w) is int and 1 <= h <= MAX_SIDE and 1 <= w <= MAX_SIDE:
        return h, w
    h, w = number(h), number(w)
    return (round(h), round(w)) if 1 <= h <= MAX_SIDE and 1 <= w <= MAX_SIDE else None  # False for NaN


class _Places:
    """The folders in which the pictures of a file may lie, the one with most of a sample of them first."""

    def __init__(self, file: Path, names: Sequence[str]) -> None:
        here, split, tail = file.parent, split_of(file), file.stem.rpartition("_")[2]
        inside = here.name.lower() in ("annotations", "labels") or canonical(here.name) in SPLITS
        self._top = here.parent if inside else here
        bases = [here, here.parent] if here.name.lower() in ("annotations", "labels") else [here]
        inner = ["images", "", split, tail, "JPEGImages", "data"]
        below = [f"images/{split}", f"images/{tail}", f"{split}/images", f"{split}2017", f"{split}2014"]
        folders = list(dict.fromkeys(base / name for base in bases for name in (*inner, *below)))
        if here.parent != here and len(bases) == 1:
            folders += [here.parent / "images", here.parent / split, here.parent / "images" / split, here.parent]
        self._files = Folders()
        sample = names[:: max(1, len(names) // 50)]
        hits = [sum(self._has(folder, name) for name in sample) for folder in folders]
        best = hits.index(max(hits))
        others = [*folders[:best], *folders[best + 1 :]]
        self.folders = [folders[best], *(folder for folder in others if folder.is_dir())]
        self._anywhere = frozenset().union(*map(self._files.names, self.folders))

    def find(self, name: str) -> str | None:
        """The picture's path relative to the first folder; None where it is not found."""
        if name not in self._anywhere and "/" not in name and "\\" not in name:
            return None  # a hundred thousand times: the short way
        if self._has(self.folders[0], name):
            return name
        for spelling in _spellings(name):
            for folder in self.folders:
                if self._has(folder, spelling):
                    same = folder == self.folders[0] and not spelling.startswith("/")
                    return spelling if same else os.path.relpath(folder / spelling, self.folders[0])
        return None

    def leads_out(self, name: str) -> bool:
        """Does a name, taken as it is, lead out of the data set?"""
        return not self._is_inside(self.folders[0], name)

    def _has(self, folder: Path, name: str) -> bool:
        if "/" not in name and "\\" not in name:
            return name in self._files.names(folder)
        return self._is_inside(folder, name) and self._files.has(folder, name)

    def _is_inside(self, folder: Path, name: str) -> bool:
        if not _MAY_LEAD_OUT.search(name):
            return True
        whole = Path(os.path.normpath(folder / name))
        return whole.is_relative_to(folder) or whole.is_relative_to(self._top)


def _spellings(name: str) -> Iterator[str]:
    yield name
    if "\\" in name:
        yield name.replace("\\", "/")
    if "\\" in name or name.startswith(("/", "..")):  # a path of the machine that wrote the file
        yield PureWindowsPath(name).name
