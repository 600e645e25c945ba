"""COCO JSON: one file of pictures, categories and annotations, or a folder of such files, one a split.

Boxes only: `bbox` is [x, y, width, height] in pixels from the corner. Classes are in the order of their ids,
which may have holes; picture, category and annotation ids stay the file's own.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from detseg import files
from detseg.annotations.categories import Categories
from detseg.annotations.dataset import AnnotationSet
from detseg.annotations.draft import Draft
from detseg.annotations.pictures import MAX_SIDE, Folders, header_hw
from detseg.annotations.split_names import SPLITS, canonical, choose_split
from detseg.errors import DataError
from detseg.geometry.boxes import xyxy_to_xywh

_NOT_BOXES = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")
_MAX_ID = 2**63 - 1


class _Unusable(Exception):
    """Why one entry of the file cannot be used; `kind` is the fault's."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def looks_like(file: Path) -> bool:
    """Does the file speak of pictures and categories? Its text is searched, not parsed, however large."""
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return text.find(b'"images"') >= 0 and text.find(b'"categories"') >= 0
    except (OSError, ValueError):  # ValueError: an empty file cannot be mapped
        return False


def split_files(root: Path) -> dict[str, Path]:
    """Split name -> its JSON file, of root/*.json, root/annotations/*.json and root/<split>/*.json."""
    folders = [root, root / "annotations", *(p for p in _subfolders(root) if canonical(p.name) in SPLITS)]
    files = (f for folder in folders for f in sorted(folder.glob("*.json")))
    # a damaged train.json is still the training split: it must be complained of, not passed over
    found = [f for f in files if looks_like(f) or canonical(split_of(f)) in SPLITS]
    boxes = [f for f in found if not f.name.startswith(_NOT_BOXES)] or found
    names = [split_of(f) for f in boxes]
    unique = [
        n if [canonical(m) for m in names].count(canonical(n)) == 1 else f.stem
        for n, f in zip(names, boxes, strict=True)
    ]
    return dict(zip(unique, boxes, strict=True))


def split_of(file: Path) -> str:
    """The split a name tells (`instances_val2017.json`, `train/_annotations.coco.json`), else its stem."""
    words = [word for word in re.split(r"[^a-z]+", file.stem.lower()) if word]
    named = next((word for word in words if canonical(word) in SPLITS), None)
    if named is None and canonical(file.parent.name) in SPLITS:
        return file.parent.name
    return named or file.stem


def load(path: Path, split: str | None = None, *, need_images: bool = True) -> AnnotationSet:
    """A JSON file, or a folder of them: the file of the split, or of all splits together when none is named.

    Pictures are looked for beside the file and in the usual folders; those that are missing are left out with
    a fault, unless `need_images` is False. Raises DataError when nothing can be used.
    """
    if path.is_file():
        if split is not None and canonical(split_of(path)) != canonical(split):
            raise DataError(f"{path}: one file is one split, and its name does not say {split!r}; name the file to use")
        return _load_file(path, need_images)
    available = split_files(path)
    if split is not None:
        return _load_file(available[choose_split(path, split, tuple(available))], need_images)
    if not available:
        raise DataError(f"{path}: no COCO JSON in it, nor in its folder annotations")
    return _together(path, [_load_file(file, need_images) for file in available.values()], list(available.values()))


def to_coco(annotations: AnnotationSet) -> dict[str, Any]:
    """The set as COCO's JSON dict, with its own ids; ignored objects have iscrowd 1."""
    image_of = annotations.image_ids[annotations.image_index].tolist()
    category_of = np.asarray(annotations.categories.ids, np.int64)[annotations.labels].tolist()
    rows = zip(
        annotations.ids.tolist(),
        image_of,
        category_of,
        xyxy_to_xywh(annotations.boxes).tolist(),
        annotations.areas.tolist(),
        annotations.ignored.tolist(),
        annotations.difficult.tolist(),
        strict=True,
    )
    pictures = zip(annotations.image_ids.tolist(), annotations.image_files, annotations.image_hw.tolist(), strict=True)
    return {
        "images": [{"id": i, "file_name": f, "width": w, "height": h} for i, f, (h, w) in pictures],
        "annotations": [
            {
                "id": id_,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": area,
                "iscrowd": int(ignored),
            }
            | ({"difficult": 1} if difficult else {})
            for id_, image, category, box, area, ignored, difficult in rows
        ],
        "categories": annotations.categories.to_json(),
    }


def write_coco(annotations: AnnotationSet, file: str | Path) -> None:
    """Writes the set as a COCO JSON file, in one step."""
    files.write_text(file, json.dumps(to_coco(annotations)) + "\n")


def _load_file(file: Path, need_images: bool) -> AnnotationSet:
    content = _read_json(file)
    draft = Draft(file.parent, "coco")
    categories = _categories(content["categories"], file, draft)
    pictures = _add_pictures(content["images"], file, draft, need_images)
    _add_annotations(content["annotations"], pictures, categories, file, draft)
    result = draft.finish(categories, ids_are_own=True)
    if not len(result):
        why = f"{len(draft.faults)} faults, the first: {draft.faults[0]}" if draft.faults else "'images' is empty"
        raise DataError(f"{file}: no picture of it can be used; {why}")
    return result


def _read_json(file: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: is not JSON that can be read: {error}; is it complete?") from error
    if not isinstance(content, dict):
        raise DataError(
            f"{file}: not a COCO data set: the file holds a {type(content).__name__}, not an object; "
            "a list of results is no truth"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"{file}: not a COCO data set: there is no list {key!r} in it")
    return content


def _categories(entries: list[Any], file: Path, draft: Draft) -> Categories:
    names: dict[int, str] = {}
    for position, entry in enumerate(entries, 1):
        id_ = _as_id(entry.get("id")) if isinstance(entry, dict) else None
        name = entry.get("name") if isinstance(entry, dict) else None
        if id_ is None or not isinstance(name, str | int) or isinstance(name, bool):
            draft.error("bad-category", file, f"category {position} has no usable id and name; left out")
        elif id_ in names:
            draft.error("duplicate-id", file, f"category id {id_} is given more than once; the first is taken")
        else:
            names[id_] = _new_name(str(name), id_, names, file, draft)
    if not names:
        raise DataError(f"{file}: no usable category in it")
    ids = sorted(names)
    return Categories(tuple(ids), tuple(names[id_] for id_ in ids))


def _new_name(name: str, id_: int, names: dict[int, str], file: Path, draft: Draft) -> str:
    taken = set(names.values())
    if name not in taken:
        return name
    new = f"{name} ({id_})"
    while new in taken:
        new += "'"
    draft.warn("duplicate-name", file, f"two categories are called {name!r}; the one of id {id_} becomes {new!r}")
    return new


def _add_pictures(entries: list[Any], file: Path, draft: Draft, need_images: bool) -> dict[int, int | None]:
    """Adds the pictures; gives picture id -> index in the draft, None where the picture was left out."""
    folders = Folders()
    named = [e["file_name"] for e in entries if isinstance(e, dict) and isinstance(e.get("file_name"), str)]
    places = _image_folders(file, named, folders)
    draft.root = places[0]
    index: dict[int, int | None] = {}
    for position, entry in enumerate(entries, 1):
        try:
            id_, name = _picture_entry(entry, position)
            if id_ in index:
                raise _Unusable("duplicate-id", f"picture id {id_} is given more than once; the first is taken")
            index[id_] = None
            found = _find_picture(name, places, folders)
            if found is None and need_images:
                raise _Unusable("missing-picture", f"picture {name!r} is not in {places[0]}; left out")
            found = found or name
            hw = _size_of(entry) or header_hw(places[0] / found) or (0, 0)
            if need_images and min(hw) < 1:
                raise _Unusable("unreadable-picture", f"picture {name!r}: no size in the file, not readable; left out")
        except _Unusable as error:
            draft.error(error.kind, file, str(error))
            continue
        index[id_] = draft.add_picture(found, hw, file, id_)
    return index


def _picture_entry(entry: Any, position: int) -> tuple[int, str]:
    id_ = _as_id(entry.get("id")) if isinstance(entry, dict) else None
    name = entry.get("file_name") if isinstance(entry, dict) else None
    if id_ is None or not isinstance(name, str) or not name:
        raise _Unusable("bad-picture", f"picture {position} has no usable id and file_name; left out")
    return id_, name


def _size_of(entry: dict[str, Any]) -> tuple[int, int] | None:
    h, w = _number(entry.get("height")), _number(entry.get("width"))
    return (round(h), round(w)) if 1 <= h <= MAX_SIDE and 1 <= w <= MAX_SIDE else None  # False for NaN


def _image_folders(file: Path, names: Sequence[str], folders: Folders) -> list[Path]:
    """Where the pictures may lie, the folder with most of a sample of them first."""
    here, split, tail = file.parent, split_of(file), file.stem.rpartition("_")[2]
    bases = [here, here.parent] if here.name.lower() in ("annotations", "labels") else [here]
    inner = ["images", "", split, tail, "JPEGImages", "data"]
    below = [f"images/{split}", f"images/{tail}", f"{split}/images", f"{split}2017", f"{split}2014"]
    places = list(dict.fromkeys(base / name for base in bases for name in (*inner, *below)))
    if here.parent != here and len(bases) == 1:
        places += [here.parent / "images", here.parent / split, here.parent / "images" / split, here.parent]
    sample = names[:: max(1, len(names) // 50)]
    hits = [sum(folders.has(place, name) for name in sample) for place in places]
    best = hits.index(max(hits))
    return [places[best], *places[:best], *places[best + 1 :]]


def _find_picture(name: str, places: Sequence[Path], folders: Folders) -> str | None:
    """The picture's path relative to the first place, or whole; None where it is not found."""
    for spelling in _spellings(name):
        for place in places:
            if folders.has(place, spelling):
                return spelling if place == places[0] else os.path.relpath(place / spelling, places[0])
    return None


def _spellings(name: str) -> Iterator[str]:
    yield name
    if "\\" in name:
        yield name.replace("\\", "/")
    if "\\" in name or name.startswith(("/", "..")):  # a path of the machine that wrote the file
        yield PureWindowsPath(name).name


def _add_annotations(
    entries: list[Any], pictures: dict[int, int | None], categories: Categories, file: Path, draft: Draft
) -> None:
    row_of: dict[int, int] = {}
    next_id = 1 + max((i for e in entries if isinstance(e, dict) and (i := _as_id(e.get("id"))) is not None), default=0)
    for position, entry in enumerate(entries, 1):
        try:
            picture, label, box = _annotation(entry, pictures, categories)
            if picture is None:
                continue  # left out, and said so
            id_ = _as_id(entry.get("id"))
            if id_ is not None and id_ in row_of:
                if draft.is_row(row_of[id_], picture, box, label):
                    raise _Unusable("duplicate-id", "the same annotation is given twice; taken once")
                draft.warn("duplicate-id", file, f"the id is given more than once; this one becomes {next_id}", id_)
                id_ = None
            if id_ is None:
                id_, next_id = next_id, next_id + 1
            ignored = _flag(entry, "iscrowd")
            difficult = ignored and entry.get("difficult") in (1, True)
        except _Unusable as error:
            id_ = _as_id(entry.get("id")) if isinstance(entry, dict) else None
            draft.error(error.kind, file, f"{error}", position if id_ is None else id_)
            continue
        area = _number(entry.get("area"))
        area = area if 0 <= area < math.inf else math.nan
        row_of[id_] = draft.add_box(
            picture, box, label, id_, area=area, crowd=ignored and not difficult, difficult=difficult
        )


def _annotation(
    entry: Any, pictures: dict[int, int | None], categories: Categories
) -> tuple[int | None, int, tuple[float, float, float, float]]:
    if not isinstance(entry, dict):
        raise _Unusable("bad-annotation", f"it is a {type(entry).__name__}, not an object; left out")
    image_id = _as_id(entry.get("image_id"))
    if image_id is None or image_id not in pictures:
        raise _Unusable("unknown-picture", f"there is no picture of id {_short(entry.get('image_id'))}; left out")
    category_id = _as_id(entry.get("category_id"))
    label = None if category_id is None else categories.index_of_id.get(category_id)
    if label is None:
        raise _Unusable("unknown-category", f"there is no category {_short(entry.get('category_id'))}; left out")
    box = entry.get("bbox")
    if box is None or (box == [] and entry.get("segmentation")):
        raise _Unusable("missing-box", "it has no bbox; left out")
    if not isinstance(box, list) or len(box) != 4:
        raise _Unusable("bad-box", f"bbox {_short(box)} is not a list of four numbers; left out")
    x, y, w, h = map(_number, box)
    if not math.isfinite(x + y + w + h):
        raise _Unusable("bad-box", f"bbox {_short(box)} holds something that is no usable number; left out")
    return pictures[image_id], label, (x, y, x + w, y + h)


def _flag(entry: dict[str, Any], key: str) -> bool:
    value = entry.get(key, 0)
    if value is None or isinstance(value, list | dict | str) or value not in (0, 1):
        raise _Unusable("bad-value", f"{key} is {_short(value)}, not 0 or 1; left out")
    return bool(value)


def _as_id(value: Any) -> int | None:
    """Ids are whole numbers; 12.0 and "12" are taken for 12."""
    if type(value) is int:
        return value if -_MAX_ID <= value <= _MAX_ID else None
    if isinstance(value, float) and value.is_integer():
        return _as_id(int(value))
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    return None


def _number(value: Any) -> float:
    """A finite number as it is; anything else is NaN."""
    if type(value) is float:
        return value if math.isfinite(value) else math.nan
    if type(value) is int and -1e300 < value < 1e300:
        return float(value)
    return math.nan


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _subfolders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir())


def _together(root: Path, sets: Sequence[AnnotationSet], sources: Sequence[Path]) -> AnnotationSet:
    """Several files as one set. Ids are kept where they stay unique, otherwise they count from 1."""
    first = sets[0]
    if len(sets) == 1:
        return first
    for other, file in zip(sets[1:], sources[1:], strict=True):
        if other.categories != first.categories:
            raise DataError(f"{sources[0]} and {file} have different categories; name one split, or one file")
    pictures = np.cumsum([0, *(len(s) for s in sets)])
    image_ids = np.concatenate([s.image_ids for s in sets])
    ids = np.concatenate([s.ids for s in sets])
    return AnnotationSet.from_columns(
        root=root,
        format=first.format,
        categories=first.categories,
        image_files=[os.path.relpath(s.root / f, root) for s in sets for f in s.image_files],
        image_hw=np.concatenate([s.image_hw for s in sets]),
        image_ids=image_ids if len(np.unique(image_ids)) == len(image_ids) else None,
        image_index=np.concatenate([s.image_index + n for s, n in zip(sets, pictures, strict=False)]),
        boxes=np.concatenate([s.boxes for s in sets]),
        labels=np.concatenate([s.labels for s in sets]),
        areas=np.concatenate([s.areas for s in sets]),
        ids=ids if len(np.unique(ids)) == len(ids) else None,
        crowd=np.concatenate([s.crowd for s in sets]),
        difficult=np.concatenate([s.difficult for s in sets]),
        faults=[fault for s in sets for fault in s.faults],
    )
