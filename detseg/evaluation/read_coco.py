"""COCO results: a JSON list of {"image_id", "category_id", "bbox" or "segmentation", "score"}.

Ids are the data set's own. Where pictures and classes are listed with the results (in the same JSON, or in
`images.json` beside it, as `detseg detect --save coco` writes it), they are told by file name and class name instead.
An image_id may also be a picture's name or stem, as some programs write it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from detseg.annotations import AnnotationSet, Categories
from detseg.annotations.outlines import Outlines, check, rle_of, text_of
from detseg.errors import DataError
from detseg.evaluation import records
from detseg.evaluation.lookup import UNKNOWN, Classes, Pictures, of_known
from detseg.evaluation.reading import Objects, is_number, read_bytes, shown

_EXPECTED = "image_id, category_id, bbox of four numbers (or segmentation) and score are expected"


class _Listing(msgspec.Struct):
    """The results with their pictures and classes."""

    annotations: msgspec.Raw
    images: Any = None
    categories: Any = None


class _Ids:
    """The file's ids -> indices of the truth."""

    def __init__(self, file: Path, truth: AnnotationSet, listing: _Listing | None) -> None:
        self._pictures = Pictures(truth.image_files, truth.image_ids)
        self._classes = Classes(truth.categories)
        self.of_picture = self._pictures.index_of_id
        self.of_class = truth.categories.index_of_id
        if listing is not None:
            self.of_picture = _listed_pictures(file, listing.images, self._pictures)
            self.of_class = _listed_classes(file, listing.categories, self._classes) or self.of_class

    def picture(self, id_: Any) -> int:
        """The index of a picture, told by number or, as some programs do, by name; UNKNOWN without it."""
        if isinstance(id_, str) and not re.fullmatch(r"-?[0-9]{1,18}", id_):
            return max(self._pictures.of_path(id_), self._pictures.of_stem(id_))
        return self.of_picture.get(_whole(id_), UNKNOWN)

    def label(self, id_: Any) -> int:
        """The index of a class; UNKNOWN without it."""
        return self.of_class.get(_whole(id_), UNKNOWN)

    def replaced(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        """The table (n, 7), in which indices take the place of ids."""
        rows = table  # is made for this and large
        for column, known in ((0, self.of_picture), (6, self.of_class)):
            rows[:, column] = of_known(table[:, column], known)
        return rows


def read(file: Path, truth: AnnotationSet) -> Objects:
    """The file's objects. Raises DataError, naming the object, for anything that is no result."""
    text = read_bytes(file)
    listing = _listing(text) if text.lstrip()[:1] == b"{" else None
    beside = _listing_beside(file) if listing is None else None
    ids = _Ids(file, truth, listing or beside)
    objects = text if listing is None else bytes(listing.annotations)
    table = None if b'"segmentation"' in objects else records.parse(objects)
    if table is not None:
        as_it_is = listing is None and beside is None and b'"caption"' not in text  # pycocotools looks for that first
        return Objects(ids.replaced(table), text=text if as_it_is else None)
    return _one_by_one(file, _list_of_objects(file, text), ids, truth)


def _listing(text: bytes) -> _Listing | None:
    try:
        return msgspec.json.decode(text, type=_Listing)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # what is wrong is found when it is read as Python reads it


def _listing_beside(file: Path) -> _Listing | None:
    """`images.json`, where there is one: without it ids are the data set's own."""
    beside = file.with_name("images.json")
    if file.name == beside.name or not beside.is_file():
        return None
    content = _parsed(beside, read_bytes(beside))
    if not isinstance(content, dict):
        return None
    return _Listing(msgspec.Raw(b"[]"), content.get("images"), content.get("categories"))


def _parsed(file: Path, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        words = str(error) if len(str(error)) < 200 else f"{str(error)[:200]}..."
        raise DataError(f"{file}: is not JSON ({words}); COCO results are expected") from error


def _list_of_objects(file: Path, text: bytes) -> list[Any]:
    content = _parsed(file, text)
    objects = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(objects, list):
        raise DataError(f"{file}: holds no list of objects; COCO results are expected")
    return objects


# ---- one object after another: with masks, or to find what is wrong ----


def _one_by_one(file: Path, objects: list[Any], ids: _Ids, truth: AnnotationSet) -> Objects:
    rows = np.zeros((len(objects), 7))
    texts: list[bytes] = [b""] * len(objects)
    boxless: list[int] = []
    for row, entry in enumerate(objects):
        try:
            picture = ids.picture(_value(entry, "image_id"))
            rows[row, [0, 6]] = picture, ids.label(_value(entry, "category_id"))
            rows[row, 5] = _score(entry)
            box = _box(entry)
            outline = entry.get("segmentation") if picture != UNKNOWN else None  # a mask needs its picture's size
            if outline:
                hw = _size(truth, picture)
                check(outline, hw)
                texts[row] = text_of(outline)
                if box is None:
                    box = coco_mask.toBbox(rle_of(outline, hw or tuple(outline["size"]))).tolist()
                    boxless.append(row)
            if box is None and picture != UNKNOWN:
                raise ValueError("'bbox' is missing")
            rows[row, 1:5] = box or 0
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            cause = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise DataError(f"{file}: object {row + 1} is not one of COCO's results ({cause}): {_EXPECTED}") from error
    outlines = Outlines.of_texts(texts)
    if not outlines.any:
        return Objects(rows)
    kept = (rows[:, [0, 6]] != UNKNOWN).all(axis=1)
    areas = _mask_areas(outlines, rows, truth) if len(boxless) and set(np.flatnonzero(kept)) <= set(boxless) else None
    return Objects(rows, outlines, areas)


def _value(entry: Any, key: str) -> Any:
    if not isinstance(entry, dict):
        raise ValueError(f"it is {shown(entry)}, not an object")
    return entry[key]


def _whole(id_: Any) -> int:
    """Ids are whole numbers; 12.0 and "12" are taken for 12."""
    if type(id_) is int:
        return id_
    if (isinstance(id_, float) and id_.is_integer()) or (isinstance(id_, str) and re.fullmatch(r"-?[0-9]{1,18}", id_)):
        return int(id_)
    raise ValueError(f"{shown(id_)} is no id")


def _score(entry: dict[str, Any]) -> float:
    score = entry["score"]
    if type(score) in (int, float) and not is_number(score):
        raise ValueError(f"the score {shown(score)} is no finite number")
    if not is_number(score):
        raise ValueError(f"the score {shown(score)} is no number")
    return float(score)


def _box(entry: dict[str, Any]) -> list[float] | None:
    """x, y, w, h; None where only a mask is given."""
    box = entry.get("bbox")
    if not box and entry.get("segmentation"):
        return None
    if box is None:
        raise KeyError("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"bbox is {shown(box)}")
    for side in box:
        if not is_number(side):
            raise ValueError(f"bbox holds {shown(side)}, which is no finite number")
    return [float(side) for side in box]


def _size(truth: AnnotationSet, picture: int) -> tuple[int, int] | None:
    h, w = truth.image_hw[picture].tolist()
    return (h, w) if min(h, w) > 0 else None


def _mask_areas(outlines: Outlines, rows: NDArray[np.float64], truth: AnnotationSet) -> NDArray[np.float64]:
    """(n,) square pixels: without boxes a detection is as large as its mask."""
    areas = np.zeros(len(rows))
    for row in np.flatnonzero(outlines.has & (rows[:, 0] != UNKNOWN)).tolist():
        outline = outlines.segmentation(row)
        hw = _size(truth, int(rows[row, 0])) or (tuple(outline["size"]) if isinstance(outline, dict) else None)
        if hw is not None:
            areas[row] = float(coco_mask.area(outlines.rle(row, hw)))
    return areas


# ---- pictures and classes that are listed with the results ----


def _listed_pictures(file: Path, images: Any, pictures: Pictures) -> dict[int, int]:
    """The file's picture ids -> picture index: of the same path, as far as both tell it."""
    found = {}
    try:
        for entry in images:
            index = pictures.of_path(str(entry["file_name"]))
            if index != UNKNOWN:
                found[_whole(entry["id"])] = index
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise DataError(f"{file}: its list of pictures cannot be used ({_cause(error)})") from error
    return found


def _listed_classes(file: Path, categories: Any, classes: Classes) -> dict[int, int]:
    """The file's category ids -> class index; empty where it lists no classes."""
    if not categories:
        return {}
    try:
        written = Categories.from_json(categories)
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise DataError(f"{file}: its list of classes cannot be used ({_cause(error)})") from error
    places: Sequence[int] = classes.of_names(written.names)
    return {id_: place for id_, place in zip(written.ids, places, strict=True) if place != UNKNOWN}


def _cause(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
