"""One door to every format: what a data set is, is found by looking.

Readers are imported when they are needed: much that speaks of classes never reads a data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from detseg.annotations.dataset import AnnotationSet
from detseg.errors import DataError

if TYPE_CHECKING:
    from detseg.annotations.semantic import SemanticSet

Format = Literal["voc", "coco", "yolo", "masks", "cvat", "dota", "openimages"]

_LOOKED_FOR = (
    "looked for a VOC tree (Annotations/*.xml and JPEGImages/), a YOLO tree (data.yaml, or images/ and "
    "labels/), COCO JSON (*.json, annotations/*.json or train/*.json), a mask folder (images/ and masks/), CVAT XML "
    "(annotations.xml), a DOTA tree (labelTxt/ and images/) and Open Images CSV (*.csv)"
)


def find_format(path: str | Path) -> Format:
    """What kind of data set this is. Raises DataError that says what was looked for."""
    path = place_of_data(path)
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
    path = place_of_data(path)
    with _readable(path):
        format = find_format(path)
        if format == "coco":
            from detseg.annotations import coco

            return () if path.is_file() else tuple(coco.split_files(path))
        return tuple(name for name in _reader(format).splits(path) if name)


def load(path: str | Path, split: str | None = None, *, need_images: bool = True) -> AnnotationSet:
    """Reads a data set of any format, by its path or the name of a public set; without `split`, everything in it.

    `valid`, `val` and `validation` mean the same. What is wrong is repaired or left out, and told in the
    set's `faults`; pictures that are not there are left out too, unless `need_images` is False. Raises
    DataError when nothing is found, nothing can be used, or there is no such split (it names those there
    are).
    """
    path = place_of_data(path)
    with _readable(path):
        result: AnnotationSet = _reader(find_format(path)).load(path, split, need_images=need_images)
        return result


def place_of_data(data: str | Path) -> Path:
    """A path as it is; the name of a public set that was downloaded: its folder."""
    path = Path(data)
    if path.exists():
        return path
    from detseg.annotations.descriptors import place_of

    return place_of(data)


class Reader(Protocol):
    """What a format's module offers."""

    def splits(self, path: Path) -> tuple[str, ...]:
        """The names of the splits; none where everything is together."""
        ...

    def load(self, path: Path, split: str | None = None, *, need_images: bool = True) -> AnnotationSet:
        """The data set, or one split of it."""
        ...


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error


def load_label_maps(path: str | Path, split: str | None = None) -> SemanticSet:
    """Reads a data set as label maps, one class for each pixel; without `split`, everything in it.

    Mask folders and VOC trees with SegmentationClass hold them; those of other sets are drawn from the outlines of
    their objects (see `semantic.paint`). Raises DataError where there is neither, and as `load` does.
    """
    path = place_of_data(path)
    with _readable(path):
        format = find_format(path)
        if format == "masks":
            from detseg.annotations import masks

            if masks.has_label_maps(path):
                return masks.load_label_maps(path, split)
        if format == "voc":
            from detseg.annotations import voc_maps

            if voc_maps.has_label_maps(path):
                return voc_maps.load_label_maps(path, split)
        return _painted(load(path, split), path)


def _painted(truth: AnnotationSet, path: Path) -> SemanticSet:
    from detseg.annotations.semantic import paint

    if not truth.outlines.any:
        raise DataError(f"{path}: holds boxes and no outlines, so that there are no label maps to be had from it")
    try:
        return paint(truth)
    except ValueError as error:
        raise DataError(f"{path}: no label maps can be drawn: {error}") from error


def _reader(format: Format) -> Reader:
    if format == "cvat" or format == "dota" or format == "openimages":
        from detseg.annotations import foreign

        return foreign.READERS[format]
    reader: Any = import_module(f"detseg.annotations.{format}")
    return cast(Reader, reader)


def _format_of_file(path: Path) -> Format:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return "coco"
    if suffix in (".yaml", ".yml"):
        return "yolo"
    if suffix in (".xml", ".csv"):
        return "cvat" if suffix == ".xml" else "openimages"
    raise DataError(
        f"{path}: a data set is a folder, a COCO .json, a YOLO .yaml, a CVAT .xml or an Open Images .csv file; "
        "this is none of them"
    )


def _format_of_folder(path: Path) -> Format | None:
    from detseg.annotations import coco, mask_layouts, voc, yolo

    if voc.is_tree(path):
        return "voc"
    if yolo.yaml_of(path) is not None:
        return "yolo"
    if coco.split_files(path):
        return "coco"
    if mask_layouts.is_folder(path):
        return "masks"
    if yolo.is_bare_tree(path):
        return "yolo"
    from detseg.annotations import foreign

    return foreign.format_of(path)
