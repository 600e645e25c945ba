"""A COCO file written again: the fields that detseg reads from a set, all others from the files it came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from detseg.annotations import AnnotationSet
from detseg.annotations.coco import to_coco
from detseg.annotations.coco_values import as_id

Entry = dict[str, Any]
_NEAR = 1e-6  # numbers this near are taken as they stood: x + w - x is not always w


def content_of(truth: AnnotationSet, read_as: Sequence[str], sources: Sequence[Path]) -> bytes:
    """The JSON text of a set. `read_as`: the names under which its pictures stand in the files `sources`."""
    old = [_read(file) for file in sources]
    content = to_coco(truth)
    pictures = _Pictures(old)
    objects = _Objects(old)
    names = dict(zip(truth.image_ids.tolist(), read_as, strict=True))
    categories = {as_id(e.get("id")): e for file in old for e in _entries(file, "categories")}
    content["images"] = [_over(pictures.find(names[e["id"]], e["id"]), e) for e in content["images"]]
    content["annotations"] = [_over(objects.find(names[e["image_id"]], e), e) for e in content["annotations"]]
    content["categories"] = [_over(categories.get(e["id"]), e) for e in content["categories"]]
    rest = {key: value for file in reversed(old) for key, value in file.items() if key not in content}
    return msgspec.json.encode({**rest, **content}) + b"\n"


def _over(old: Entry | None, new: Entry) -> Entry:
    """The new values over the old entry; those that did not change stay as they were written."""
    if old is None:
        return new
    kept = {key: old[key] for key, value in new.items() if key in old and _same(old[key], value)}
    merged = {**old, **new, **kept}
    if "segmentation" in old and "segmentation" not in new:
        merged["segmentation"] = []
    return merged


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(_same(a, b) for a, b in zip(old, new, strict=True))
    if isinstance(old, int | float) and isinstance(new, int | float):
        return abs(old - new) <= _NEAR
    return bool(old == new)


def _read(file: Path) -> Entry:
    """The file as it stands; what cannot be read has been told of."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _entries(content: Entry, key: str) -> Iterator[Entry]:
    entries = content.get(key)
    yield from (e for e in (entries if isinstance(entries, list) else []) if isinstance(e, dict))


class _Pictures:
    """The entries of pictures, by name and id; by name alone where only one has it, as ids may have been given anew."""

    def __init__(self, contents: Sequence[Entry]) -> None:
        self._by_both: dict[tuple[str, int | None], Entry] = {}
        self._by_name: dict[str, list[Entry]] = {}
        for content in contents:
            for entry in _entries(content, "images"):
                if isinstance(entry.get("file_name"), str):
                    name = _key(entry["file_name"])
                    self._by_both.setdefault((name, as_id(entry.get("id"))), entry)
                    self._by_name.setdefault(name, []).append(entry)

    def find(self, name: str, id: int) -> Entry | None:
        """The entry of a picture."""
        named = self._by_name.get(_key(name), [])
        return self._by_both.get((_key(name), id)) or (named[0] if len(named) == 1 else None)


class _Objects:
    """The entries of annotations: by picture, class and box, as ids may have been given anew; else by their id."""

    def __init__(self, contents: Sequence[Entry]) -> None:
        self._by_id: dict[tuple[str, int], Entry] = {}
        self._by_box: dict[tuple[str, Any, Any], list[Entry]] = {}
        for content in contents:
            pictures = reversed(list(_entries(content, "images")))
            names = {as_id(e.get("id")): _key(str(e.get("file_name"))) for e in pictures}
            for entry in _entries(content, "annotations"):
                name, id_ = names.get(as_id(entry.get("image_id"))), as_id(entry.get("id"))
                if name is None:
                    continue
                if id_ is not None:
                    self._by_id.setdefault((name, id_), entry)
                self._by_box.setdefault((name, as_id(entry.get("category_id")), _rounded(entry)), []).append(entry)

    def find(self, name: str, new: Entry) -> Entry | None:
        """The old entry of an annotation of the picture `name`."""
        here = self._by_box.get((_key(name), new["category_id"], _rounded(new)), [])
        same = next((old for old in here if as_id(old.get("id")) == new["id"]), None)
        return same or (here[0] if here else self._by_id.get((_key(name), new["id"])))


def _rounded(entry: Entry) -> Any:
    """The box to a thousandth of a pixel; None where it is none."""
    try:
        return tuple(round(float(value), 3) for value in entry["bbox"])
    except (KeyError, TypeError, ValueError):
        return None


def _key(name: str) -> str:
    """A picture by its last word: readers may find it in another folder than its entry says."""
    return name.replace("\\", "/").rpartition("/")[2]
