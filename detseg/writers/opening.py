"""Several formats opened by name, and fed as one."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from detseg.annotations.categories import Categories
from detseg.errors import DetsegError
from detseg.images import ImageFile
from detseg.results import Detections, LabelMap
from detseg.writers.coco_json import CocoWriter
from detseg.writers.contract import Options, Picture, PictureWriter, RunWriter
from detseg.writers.crops import CropWriter
from detseg.writers.label_map_files import (
    AreaCsvWriter,
    AreaLinesWriter,
    CocoMapWriter,
    IndexWriter,
    MapOverlayWriter,
    MaskWriter,
)
from detseg.writers.overlay import OverlayWriter
from detseg.writers.table import CsvWriter, JsonLinesWriter
from detseg.writers.voc_xml import VocWriter
from detseg.writers.yolo_txt import YoloSegWriter, YoloWriter

_Maker = Callable[[Path, Categories, Options], Any]
_PER_PICTURE: dict[str, _Maker] = {
    "image": OverlayWriter,
    "yolo": YoloWriter,
    "yolo-seg": YoloSegWriter,
    "voc": VocWriter,
    "crops": CropWriter,
}
_PER_RUN: dict[str, _Maker] = {"coco": CocoWriter, "csv": CsvWriter, "jsonl": JsonLinesWriter}
FORMATS = ("image", "coco", "yolo", "yolo-seg", "voc", "csv", "jsonl", "crops")
_MAP_PER_PICTURE: dict[str, _Maker] = {"image": MapOverlayWriter, "mask": MaskWriter, "index": IndexWriter}
_MAP_PER_RUN: dict[str, _Maker] = {"csv": AreaCsvWriter, "jsonl": AreaLinesWriter, "coco": CocoMapWriter}
MAP_FORMATS = ("image", "mask", "index", "csv", "jsonl", "coco")


class Writers:
    """The open formats of one run; a context manager that ends their files however the block ends.

    `write_files` may be called from several threads at once; `append` by one thread, in the order of the
    pictures. `places` tells for each format the folder or file where its results are.
    """

    def __init__(self, per_picture: Mapping[str, PictureWriter], per_run: Mapping[str, RunWriter]) -> None:
        self._per_picture, self._per_run = dict(per_picture), dict(per_run)
        self.needs_image = any(writer.needs_image for writer in per_picture.values())
        self.places = {name: writer.place for name, writer in per_picture.items()}
        self.places |= {name: writer.place for name, writer in per_run.items()}

    def write_files(self, file: ImageFile, image: Picture | None, found: Detections | LabelMap) -> None:
        """Writes the files that belong to this picture alone.

        `image` (h, w, 3) RGB, the size of `found.image_hw`; None will do unless `needs_image`. Raises
        DetsegError.
        """
        if self.needs_image and (image is None or image.shape[:2] != tuple(found.image_hw)):
            got = None if image is None else image.shape[:2]
            raise ValueError(f"{file.path}: these formats need the picture in full, {found.image_hw}; got {got}")
        for writer in self._per_picture.values():
            writer.write(file, image, found)

    def append(self, file: ImageFile, found: Detections | LabelMap) -> None:
        """Adds this picture to the files that gather all. Raises DetsegError."""
        for writer in self._per_run.values():
            writer.append(file, found)

    def write(self, file: ImageFile, image: Picture | None, found: Detections | LabelMap) -> None:
        """Both of the above."""
        self.write_files(file, image, found)
        self.append(file, found)

    def close(self) -> None:
        """Ends the files that gather all pictures and puts them in their places. Raises DetsegError."""
        with ExitStack() as stack:
            for writer in self._per_run.values():
                stack.callback(writer.close)

    def __enter__(self) -> Writers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_writers(
    names: Sequence[str],
    out: Path,
    categories: Categories,
    *,
    save_conf: bool = False,
    image_ids: Mapping[str, int] | None = None,
) -> Writers:
    """Opens the formats `names` (of `FORMATS`) in the folder `out`.

    `save_conf` adds scores where a format can do without them; `image_ids` gives the data set's own id by
    picture name, for COCO. Raises DetsegError: a name that is no format, two that write the same files, a folder
    that cannot be written.
    """
    _expect_formats(names, FORMATS)
    if {"yolo", "yolo-seg"} <= set(names):
        raise DetsegError("yolo (boxes) and yolo-seg (outlines) are the same files in labels/; choose one of them")
    return _opened(names, _PER_PICTURE, _PER_RUN, out, categories, Options(save_conf, image_ids))


def open_map_writers(names: Sequence[str], out: Path, categories: Categories) -> Writers:
    """Opens the formats of label maps `names` (of `MAP_FORMATS`) in the folder `out`. Raises as `open_writers`."""
    _expect_formats(names, MAP_FORMATS)
    return _opened(names, _MAP_PER_PICTURE, _MAP_PER_RUN, out, categories, Options())


def _expect_formats(names: Sequence[str], known: Sequence[str]) -> None:
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise DetsegError(f"{unknown!r} is no format; {hint}formats are {', '.join(known)}")


def _opened(
    names: Sequence[str],
    per_picture: Mapping[str, _Maker],
    per_run: Mapping[str, _Maker],
    out: Path,
    categories: Categories,
    options: Options,
) -> Writers:
    each = {name: make(out, categories, options) for name, make in per_picture.items() if name in names}
    with ExitStack() as opened:  # when one cannot be opened the others are ended
        gathering = {}
        for name, make in per_run.items():
            if name in names:
                gathering[name] = make(out, categories, options)
                opened.callback(gathering[name].close)
        opened.pop_all()
    return Writers(each, gathering)
