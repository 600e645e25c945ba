"""Results that were written to files, by detseg or another program; which kind they are is found by looking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet
from detseg.annotations.outlines import Outlines
from detseg.errors import DataError
from detseg.evaluation.lookup import UNKNOWN
from detseg.evaluation.reading import Objects, files_in

_EXPECTED = (
    "COCO results (.json), detseg's predictions.csv or .jsonl, a folder of YOLO labels (.txt), of VOC's XML pages, "
    "or of one text a class (comp4_det_test_CLASS.txt) are expected"
)
# ending -> module and function, imported when needed
_READERS = {
    ".json": ("read_coco", "read"),
    ".jsonl": ("read_tables", "read_json_lines"),
    ".ndjson": ("read_tables", "read_json_lines"),
    ".csv": ("read_tables", "read_csv"),
    ".txt": ("read_voc", "read_texts"),
}
_RUN_FILES = ("predictions.json", "predictions.jsonl", "predictions.csv")  # what is most exact comes first
_RUN_FOLDERS = ("labels", "voc")

_Reader = Callable[[Path, AnnotationSet], Objects]


@dataclass(frozen=True, eq=False)
class Predictions:
    """`rows` (n, 7) as `evaluate_rows` takes them, in the file's order; `notes`: what was left out, in words.

    outlines (n) where there are masks, and areas (n,) where there is nothing but masks. `text`: the file's own, where
    that is COCO's list of just these boxes, with the data set's ids.
    """

    rows: NDArray[np.float64]
    notes: tuple[str, ...] = ()
    outlines: Outlines | None = None
    areas: NDArray[np.float64] | None = None
    text: bytes | None = None


def read_predictions(path: Path, truth: AnnotationSet) -> Predictions:
    """Reads results of any kind, the folder of a detseg run too.

    Objects of other pictures or classes are left out. Raises DataError when they cannot be used or nothing in them
    belongs to the data set.
    """
    place, reader = _kind(path, truth)
    read = reader(place, truth)
    rows = read.rows
    known_picture, known_class = rows[:, 0] != UNKNOWN, rows[:, 6] != UNKNOWN
    kept = known_picture & known_class
    if len(rows) and not kept.any():
        which = "classes" if known_picture.any() else "pictures"
        raise DataError(f"{place}: none of its objects is of the {which} of {truth.root}; is it of other data?")
    taken = (f"of {path} {place.name} is taken",) if place != path else ()
    outlines, areas = read.outlines, read.areas
    if not kept.all():
        rows = rows[kept]
        outlines = None if outlines is None else outlines[kept]
        areas = None if areas is None else areas[kept]
    notes = (*taken, *read.notes, *_notes(rows, known_picture, known_class))
    return Predictions(rows, notes, outlines, areas, read.text if kept.all() else None)


def _kind(path: Path, truth: AnnotationSet) -> tuple[Path, _Reader]:
    """The file or folder to read, and what reads it."""
    if path.is_dir():
        return _kind_of_folder(path, truth)
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder; {_EXPECTED}")
    if path.suffix.lower() not in _READERS:
        raise DataError(f"{path}: is no kind of results that is known; {_EXPECTED}")
    module, name = _READERS[path.suffix.lower()]
    reader: _Reader = getattr(import_module(f"detseg.evaluation.{module}"), name)
    return path, reader


def _kind_of_folder(folder: Path, truth: AnnotationSet) -> tuple[Path, _Reader]:
    from detseg.evaluation import read_voc, read_yolo

    for name in _RUN_FILES:
        if (folder / name).is_file():
            return _kind(folder / name, truth)
    for name in _RUN_FOLDERS:
        if (folder / name).is_dir():
            return _kind_of_folder(folder / name, truth)
    if files_in(folder, ".xml"):
        return folder, read_voc.read_pages
    texts = [file for file in files_in(folder, ".txt") if file.name != "classes.txt"]
    if not texts:
        raise DataError(f"{folder}: holds no results of boxes; {_EXPECTED}")
    names = truth.categories.names
    of_classes = sum(read_voc.is_result(file, names) for file in texts)
    return folder, read_voc.read_texts if of_classes * 2 > len(texts) else read_yolo.read


def _notes(
    rows: NDArray[np.float64], known_picture: NDArray[np.bool_], known_class: NDArray[np.bool_]
) -> tuple[str, ...]:
    elsewhere = np.count_nonzero(~known_picture)
    foreign = np.count_nonzero(known_picture & ~known_class)
    left_out = tuple(
        f"{count} objects of {what} that the data set lacks are left out"
        for count, what in ((elsewhere, "pictures"), (foreign, "classes"))
        if count
    )
    negative = np.count_nonzero((rows[:, 3:5] < 0).any(axis=1))
    return (*left_out, f"{negative} boxes are of negative size and overlap nothing") if negative else left_out
