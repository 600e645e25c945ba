"""YOLO's labels as results: a text file per picture, lines of `class xc yc w h [score]` in fractions of the picture.

Lines of a class and a polygon (`class x1 y1 x2 y2 x3 y3 ... [score]`) give masks. Without scores all objects count as
equally sure. Classes are counted from 0 in the order of the names of `classes.txt` beside the labels, else of the data
set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detseg.annotations import AnnotationSet
from detseg.annotations.outlines import Outlines, check, text_of
from detseg.errors import DataError
from detseg.evaluation.lookup import UNKNOWN, Classes, Pictures
from detseg.evaluation.reading import Objects, files_in, numbers, read_lines, shown

CLASS_FILE = "classes.txt"
_BOX, _LEAST_POLYGON = 4, 6  # numbers between class and score


def read(folder: Path, truth: AnnotationSet) -> Objects:
    """The objects of a folder of labels, at any depth. Raises DataError naming file and line of what cannot be used."""
    pictures = Pictures(truth.image_files, truth.image_ids)
    class_file, labels = _class_order(folder, truth)
    rows: list[list[float]] = []
    polygons: list[list[float] | None] = []
    unscored = 0
    for file in files_in(folder, ".txt"):
        if file == class_file:
            continue
        picture = pictures.of_stem(file.relative_to(folder).with_suffix("").as_posix())
        h, w = truth.image_hw[picture].tolist() if picture != UNKNOWN else (1, 1)
        for number, line in read_lines(file):
            where = f"{file}, line {number}"
            label, shape, score = _object(line.split(), where)
            if min(h, w) < 1:
                raise DataError(
                    f"{where}: the size of {truth.image_files[picture]} is not known; its picture is needed"
                )
            unscored += score is None
            place = labels[label] if label < len(labels) else UNKNOWN
            points = np.array(shape) * np.resize([w, h], len(shape))
            polygons.append(_polygon(points.tolist(), where) if len(shape) > _BOX else None)
            rows.append([picture, *_xywh(points), 1.0 if score is None else score, place])
    note = f"{unscored} of {len(rows)} objects have no score: it is taken to be 1" if unscored else ""
    read = Objects.of(rows, note)
    if not any(polygons):
        return read
    return Objects(read.rows, Outlines.of_texts([text_of([p]) if p else b"" for p in polygons]), None, read.notes)


def _object(words: Sequence[str], where: str) -> tuple[int, list[float], float | None]:
    """Class, the box or polygon in fractions, score or None."""
    values = numbers(words, where)
    count = len(values) - 1
    if count < _BOX:
        raise DataError(
            f"{where}: {len(values)} numbers; 'class xc yc w h [score]' or 'class x1 y1 x2 y2 ...' expected"
        )
    if not values[0].is_integer() or values[0] < 0:
        raise DataError(f"{where}: the class is {shown(words[0])}, not a whole number from 0 on")
    if count == _BOX or (count >= _LEAST_POLYGON and count % 2 == 0):
        return int(values[0]), values[1:], None
    return int(values[0]), values[1:-1], values[-1]


def _polygon(points: list[float], where: str) -> list[float]:
    try:
        check([points])
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    return points


def _xywh(points: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[float]:
    """Corner and size of a box given by centre and size, or of the box around a polygon."""
    if len(points) == _BOX:
        xc, yc, w, h = points.tolist()
        return [xc - w / 2, yc - h / 2, w, h]
    xy = points.reshape(-1, 2)
    low, high = xy.min(axis=0), xy.max(axis=0)
    return [*low.tolist(), *(high - low).tolist()]


def _class_order(folder: Path, truth: AnnotationSet) -> tuple[Path | None, list[int]]:
    """The file that names the classes, and for each of them the class of the truth; without one the truth's order."""
    for place in (folder, folder.parent):
        file = place / CLASS_FILE
        if file.is_file():
            names = [name for _, name in read_lines(file)]
            if len(set(names)) != len(names):
                raise DataError(f"{file}: a class is named twice")
            return file, Classes(truth.categories).of_names(names)
    return None, list(range(len(truth.categories)))
