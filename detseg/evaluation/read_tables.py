"""detseg's own tables as results: `predictions.csv` (a row per object), `predictions.jsonl` (a line per picture).

Pictures are told by path, classes by name. Boxes are x1, y1, x2, y2 in pixels with continuous edges; in JSON Lines
objects may have masks, as COCO's `segmentation`.
"""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from detseg.annotations import AnnotationSet
from detseg.annotations.outlines import Outlines, check, text_of
from detseg.errors import DataError
from detseg.evaluation.lookup import UNKNOWN, Classes, Pictures
from detseg.evaluation.reading import Objects, numbers, read_bytes, read_lines

_NEEDED = ("file", "name", "score", "x1", "y1", "x2", "y2")
_LARGEST = 1e300


class _Object(msgspec.Struct, gc=False):
    name: str
    score: float
    box: tuple[float, float, float, float]
    segmentation: Any = None


class _Line(msgspec.Struct):
    file: str
    objects: list[_Object] = []
    error: str | None = None  # a picture that could not be read


class _Table:
    """Rows of objects, whose classes are looked up at the end."""

    def __init__(self, truth: AnnotationSet) -> None:
        self._pictures, self._classes = Pictures(truth.image_files, truth.image_ids), Classes(truth.categories)
        self._index: dict[str, int] = {}
        self._rows: list[list[float]] = []
        self._names: list[str] = []
        self._sizes = truth.image_hw
        self._outlines: list[bytes] = []

    def add(
        self, file: str, name: str, score: float, box: tuple[float, ...] | list[float], outline: Any = None
    ) -> None:
        """One object. Raises ValueError for an outline that cannot be drawn in its picture."""
        if file not in self._index:
            self._index[file] = self._pictures.of_path(file)
        x1, y1, x2, y2 = box
        self._rows.append([self._index[file], x1, y1, x2 - x1, y2 - y1, score, 0])
        self._names.append(name)
        self._outlines.append(self._text(self._index[file], outline) if outline else b"")

    def _text(self, picture: int, outline: Any) -> bytes:
        if picture == UNKNOWN:  # its size is not known, and it will not be counted
            return b""
        h, w = self._sizes[picture].tolist()
        check(outline, (h, w) if min(h, w) > 0 else None)
        return text_of(outline)

    def objects(self) -> Objects:
        """All of them."""
        for row, label in zip(self._rows, self._classes.of_names(self._names), strict=True):
            row[6] = label
        outlines = Outlines.of_texts(self._outlines)
        return replace(Objects.of(self._rows), outlines=outlines if outlines.any else None)


def read_csv(file: Path, truth: AnnotationSet) -> Objects:
    """The objects of a CSV file with a header. Raises DataError naming the line of what cannot be used."""
    try:
        text = read_bytes(file).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 text at byte {error.start + 1}; save it as UTF-8") from error
    rows = csv.DictReader(io.StringIO(text, newline=""))
    table = _Table(truth)
    try:
        missing = [name for name in _NEEDED if name not in (rows.fieldnames or ())]
        if missing:
            raise DataError(f"{file}, line 1: there is no column {missing[0]!r}; {', '.join(_NEEDED)} are expected")
        for row in rows:
            where = f"{file}, line {rows.line_num}"
            if any(row[name] is None for name in _NEEDED):
                raise DataError(f"{where}: it has less columns than the header")
            score, *box = numbers([row[name] for name in _NEEDED[2:]], where)
            table.add(row["file"], row["name"], score, box)
    except csv.Error as error:
        raise DataError(f"{file}, line {rows.line_num + 1}: is not CSV that can be read ({error})") from error
    return table.objects()


def read_json_lines(file: Path, truth: AnnotationSet) -> Objects:
    """The objects of a JSON Lines file. Raises DataError naming the line of what cannot be used."""
    decoder = msgspec.json.Decoder(_Line)
    table = _Table(truth)
    for number, line in read_lines(file):
        where = f"{file}, line {number}"
        try:
            entry = decoder.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise DataError(
                f"{where}: is not a line of predictions.jsonl ({error}): file, and objects of name, score, box"
            ) from error
        for found in entry.objects:
            if not all(-_LARGEST < value < _LARGEST for value in (found.score, *found.box)):
                raise DataError(f"{where}: holds something that is no finite number")
            try:
                table.add(entry.file, found.name, found.score, found.box, found.segmentation)
            except (ValueError, TypeError, KeyError, OverflowError) as error:
                raise DataError(f"{where}: its mask cannot be used: {error}") from error
    return table.objects()
