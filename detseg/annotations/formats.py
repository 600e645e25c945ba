"""One door to every format: what a data set is, is found by looking.

Readers are imported when they are needed: much that speaks of classes never reads a data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Literal

from detseg.annotations.dataset import AnnotationSet
from detseg.errors import DataError

Format = Literal["voc", "coco", "yolo"]

_LOOKED_FOR = (
    "looked for a VOC tree (Annotations/*.xml and JPEGImages/), a YOLO tree (data.yaml, or images/ and "
    "labels/) and COCO JSON (*.json, annotations/*.json or train/*.json)"
)


def find_format(path: str | Path) -> Format:
    """What kind of data set this is. Raises DataError that says what was looked for."""
    path = Path(path)
    if path.is_file():
        return _format_of_file(path)
    if not path.is_dir():
        raise DataError(f"{path}: there is no such file or folder")
    found = _format_of_folder(path)
    if found is None:
        inner = [p for p in sorted(path.iterdir()) if p.is_dir() and _format_of_folder(p) is not None]
        hint = f"; did you mean {inner[0]}?" if inner else ""
        raise DataError(f"{path}: no data set found: {_LOOKED_FOR}{hint}")
    return found


def splits(path: str | Path) -> tuple[str, ...]:
    """The names of the splits that `load` can give; none where a data set has no parts (one JSON file)."""
    path = Path(path)
    with _readable(path):
        format = find_format(path)
        if format == "coco":
            return () if path.is_file() else tuple(_reader(format).split_files(path))
        return tuple(name for name in _reader(format).splits(path) if name)


def load(path: str | Path, split: str | None = None, *, need_images: bool = True) -> AnnotationSet:
    """Reads a data set of any format; without `split`, everything in it.

    `valid`, `val` and `validation` mean the same. What is wrong is repaired or left out, and told in the
    set's `faults`; pictures that are not there are left out too, unless `need_images` is False. Raises
    DataError when nothing is found, nothing can be used, or there is no such split (it names those there
    are).
    """
    path = Path(path)
    with _readable(path):
        result: AnnotationSet = _reader(find_format(path)).load(path, split, need_images=need_images)
        return result


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error


def _reader(format: Format) -> ModuleType:
    return import_module(f"detseg.annotations.{format}")


def _format_of_file(path: Path) -> Format:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return "coco"
    if suffix in (".yaml", ".yml"):
        return "yolo"
    raise DataError(f"{path}: a data set is a folder, a COCO .json or a YOLO .yaml file; this is none of them")


def _format_of_folder(path: Path) -> Format | None:
    from detseg.annotations import coco, voc, yolo

    if voc.is_tree(path):
        return "voc"
    if yolo.yaml_of(path) is not None:
        return "yolo"
    if coco.split_files(path):
        return "coco"
    return "yolo" if yolo.is_bare_tree(path) else None
