"""VOC's results: one text file a class (`comp4_det_test_cat.txt`), or XML pages with a `confidence` for each object.

Both count pixels from 1 and include the last one, as the development kit wants them: x1 y1 x2 y2 are read as x1 - 1,
y1 - 1, x2, y2.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from detseg.annotations import AnnotationSet
from detseg.errors import DataError
from detseg.evaluation.lookup import UNKNOWN, Classes, Pictures
from detseg.evaluation.reading import Objects, files_in, numbers, read_bytes, read_lines

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_COLUMNS = "'image score x1 y1 x2 y2' is expected"


def class_of(file: Path, names: tuple[str, ...]) -> str | None:
    """The class that the name of a file ends in: `comp4_det_test_cat.txt`, `det_cat.txt`, `cat.txt`."""
    stem = file.stem.casefold()
    fits = [name for name in names if stem == name.casefold() or stem.endswith(f"_{name.casefold()}")]
    return max(fits, key=len, default=None)


def is_result(file: Path, names: tuple[str, ...]) -> bool:
    """Is this a text of one class's detections, by name?"""
    return "_det_" in file.stem or class_of(file, names) is not None


def read_texts(path: Path, truth: AnnotationSet) -> Objects:
    """The objects of a folder of such files, or of one. Raises DataError naming file and line of what is unusable."""
    files = [path] if path.is_file() else files_in(path, ".txt")
    pictures = Pictures(truth.image_files, truth.image_ids)
    names = truth.categories.names
    rows: list[list[float]] = []
    others = []
    for file in files:
        name = class_of(file, names)
        if name is None:
            others.append(file.name)
            continue
        label = truth.categories.index_of_name[name]
        known: dict[str, int] = {}
        for number, line in read_lines(file):
            where = f"{file}, line {number}"
            picture, *words = line.rsplit(maxsplit=5)
            if len(words) != 5:
                raise DataError(f"{where}: {len(words) + 1} columns; {_COLUMNS}")
            if picture not in known:
                known[picture] = max(pictures.of_stem(picture), pictures.of_path(picture))
            score, *corners = numbers(words, where)
            rows.append([known[picture], *_xywh(corners), score, label])
    if len(others) == len(files):
        raise DataError(
            f"{path}: no class of {truth.root} in the names of its files; a name such as "
            f"comp4_det_test_{names[0] if names else 'CLASS'}.txt is expected"
        )
    note = f"files of classes that the data set lacks are left out: {', '.join(others[:10])}" if others else ""
    return Objects.of(rows, note)


def read_pages(folder: Path, truth: AnnotationSet) -> Objects:
    """The objects of a folder of XML pages, at any depth. Raises DataError naming file and object."""
    pictures = Pictures(truth.image_files, truth.image_ids)
    rows: list[list[float]] = []
    names: list[str] = []
    unscored = 0
    for file in files_in(folder, ".xml"):
        picture = pictures.of_stem(file.relative_to(folder).with_suffix("").as_posix())
        for number, entry in enumerate(_page(file).iter("object"), 1):
            where = f"{file}, object {number}"
            score = _text(entry, "confidence")
            unscored += score is None
            corners = [_needed(entry, f"bndbox/{tag}", where) for tag in _CORNERS]
            values = numbers([*corners, "1" if score is None else score], where)
            names.append(_needed(entry, "name", where))
            rows.append([picture, *_xywh(values[:4]), values[4], UNKNOWN])
    for row, label in zip(rows, Classes(truth.categories).of_names(names), strict=True):
        row[6] = label
    return Objects.of(rows, f"{unscored} of {len(rows)} objects have no score: it is taken to be 1" if unscored else "")


def _page(file: Path) -> Element:
    try:
        page: Element = defusedxml.ElementTree.fromstring(read_bytes(file))
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:
        raise DataError(f"{file}: is not XML that can be used ({str(error)[:100]}); VOC's is expected") from error
    return page


def _text(entry: Element, path: str) -> str | None:
    text = entry.findtext(path)
    return text.strip() if text is not None else None


def _needed(entry: Element, path: str, where: str) -> str:
    text = _text(entry, path)
    if not text:
        raise DataError(f"{where}: it has no {path}")
    return text


def _xywh(corners: list[float]) -> list[float]:
    x1, y1, x2, y2 = corners
    return [x1 - 1, y1 - 1, x2 - (x1 - 1), y2 - (y1 - 1)]
