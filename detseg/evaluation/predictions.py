"""Results that were written to a file, by detseg or another program: COCO's JSON."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet, Categories
from detseg.errors import DataError
from detseg.evaluation.classes import ClassMatch


@dataclass(frozen=True, eq=False)
class Predictions:
    """`rows` (n, 7) as `evaluate_rows` takes them, in the file's order; `notes`: what was left out, in words."""

    rows: NDArray[np.float64]
    notes: tuple[str, ...] = ()


def read_predictions(file: Path, truth: AnnotationSet) -> Predictions:
    """Reads COCO results: a list of {"image_id", "category_id", "bbox", "score"}.

    Ids are the data set's own. Where pictures and classes are listed with the results (in the same JSON, or
    in `images.json` beside it, as `detseg detect --save coco` writes it), they are told by file name and
    class name instead. Objects of other pictures or classes are left out. Raises DataError when the file
    cannot be used or nothing in it belongs to the data set.
    """
    content = _parsed(file)
    listing = content if isinstance(content, dict) else _listing_beside(file)
    objects = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(objects, list):
        raise DataError(f"{file}: holds no list of objects; COCO results are expected")
    picture_of = {id_: index for index, id_ in enumerate(truth.image_ids.tolist())}
    class_of = truth.categories.index_of_id
    if listing is not None:
        picture_of = _by_file_name(listing.get("images"), truth, file)
        class_of = _by_class_name(listing.get("categories"), truth.categories, file) or class_of
    rows = _table(objects, picture_of, class_of, file)
    known_picture, known_class = rows[:, 0] >= 0, rows[:, 6] >= 0
    kept = known_picture & known_class
    if len(rows) and not kept.any():
        which = "classes" if known_picture.any() else "pictures"
        raise DataError(f"{file}: none of its objects is of the {which} of {truth.root}; is it of other data?")
    return Predictions(rows[kept], _notes(known_picture, known_class))


def _notes(known_picture: NDArray[np.bool_], known_class: NDArray[np.bool_]) -> tuple[str, ...]:
    elsewhere = np.count_nonzero(~known_picture)
    foreign = np.count_nonzero(known_picture & ~known_class)
    return tuple(
        f"{count} objects of {what} that the data set lacks are left out"
        for count, what in ((elsewhere, "pictures"), (foreign, "classes"))
        if count
    )


def _parsed(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: is not JSON ({error}); COCO results are expected") from error


def _listing_beside(file: Path) -> dict[str, Any] | None:
    """`images.json`, where there is one: without it ids are the data set's own."""
    beside = file.with_name("images.json")
    if file.name == beside.name or not beside.is_file():
        return None
    content = _parsed(beside)
    return content if isinstance(content, dict) else None


def _table(
    objects: list[Any], picture_of: Mapping[int, int], class_of: Mapping[int, int], file: Path
) -> NDArray[np.float64]:
    """(n, 7) picture index, x, y, w, h, score, class index; -1 where there is no such picture or class."""
    table = np.empty((len(objects), 7))
    for number, entry in enumerate(objects):
        try:
            picture, label = picture_of.get(entry["image_id"], -1), class_of.get(entry["category_id"], -1)
            table[number] = (picture, *entry["bbox"], entry["score"], label)
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise DataError(
                f"{file}: object {number + 1} is not one of COCO's results ({_cause(error)}): "
                "image_id, category_id, bbox of four numbers and score are expected"
            ) from error
    finite = np.isfinite(table).all(axis=1)
    if not finite.all():
        raise DataError(f"{file}: object {np.argmin(finite) + 1} holds something that is no finite number")
    return table


def _cause(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _by_file_name(images: Any, truth: AnnotationSet, file: Path) -> dict[int, int]:
    """The file's picture ids -> picture index: of the same path, as far as both tell it."""
    of_name: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(truth.image_files):
        of_name[PurePosixPath(name).name].append(index)
    found = {}
    try:
        for entry in images:
            parts = PurePosixPath(entry["file_name"]).parts
            like = [i for i in of_name.get(parts[-1], ()) if _same_end(parts, truth.image_files[i])]
            if len(like) == 1:
                found[int(entry["id"])] = like[0]
    except (TypeError, KeyError, ValueError, IndexError) as error:
        raise DataError(f"{file}: its list of pictures cannot be used ({_cause(error)})") from error
    return found


def _same_end(parts: tuple[str, ...], name: str) -> bool:
    theirs = PurePosixPath(name).parts
    shared = min(len(parts), len(theirs))
    return parts[-shared:] == theirs[-shared:]


def _by_class_name(categories: Any, data: Categories, file: Path) -> dict[int, int]:
    """The file's category ids -> class index; empty where it lists no classes."""
    if not categories:
        return {}
    try:
        written = Categories.from_json(categories)
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"{file}: its list of classes cannot be used ({_cause(error)})") from error
    return {written.ids[i]: j for i, j in ClassMatch.of(written, data).pairs}
