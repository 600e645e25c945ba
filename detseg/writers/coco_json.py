"""COCO's results: a list of {"image_id", "category_id", "bbox", "score"} that pycocotools loads as it is.

Objects with a mask have its run lengths as `segmentation` and its pixels as `area`, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from detseg.annotations.categories import Categories
from detseg.errors import DataError
from detseg.geometry.boxes import xyxy_to_xywh
from detseg.images import ImageFile
from detseg.results import Detections
from detseg.writers.contract import Options
from detseg.writers.growing import GrowingFile
from detseg.writers.text import to_json


def coco_rows(found: Detections, image_id: int, categories: Categories) -> Iterator[dict[str, Any]]:
    """COCO's rows of one picture: bbox is x, y, w, h in pixels; nothing is rounded."""
    boxes = xyxy_to_xywh(found.boxes.astype(np.float64)).tolist()
    areas = [] if found.masks is None else found.masks.areas().tolist()
    for i, (box, score, label) in enumerate(zip(boxes, found.scores.tolist(), found.labels.tolist(), strict=True)):
        row = {"image_id": image_id, "category_id": categories.ids[label], "bbox": box, "score": score}
        if found.masks is not None:
            row |= {"segmentation": found.masks.segmentation(i), "area": areas[i]}
        yield row


class CocoFiles:
    """predictions.json; pictures without an id of their own are numbered in images.json beside it.

    images.json is the start of a COCO file: "images" with id, file_name, width and height of every picture,
    also of those in which nothing was found, and "categories".
    """

    def __init__(self, out: Path, categories: Categories, options: Options) -> None:
        self.place = out / "predictions.json"
        self.categories, self._ids = categories, options.image_ids
        self._results = _JsonList(self.place, b"[")
        self._images = _JsonList(out / "images.json", b'{"images": [') if self._ids is None else None
        self._pictures = 0

    def add(self, file: ImageFile, image_hw: tuple[int, int], rows: Callable[[int], Iterable[dict[str, Any]]]) -> None:
        """Adds a picture and its `rows`, given its id. Raises DataError when its id is not known."""
        self._pictures += 1
        image_id = self._id(file)
        for row in rows(image_id):
            self._results.append(row)
        if self._images is not None:
            h, w = (int(side) for side in image_hw)
            self._images.append({"id": image_id, "file_name": file.name.as_posix(), "width": w, "height": h})

    def close(self) -> None:
        """Ends both files."""
        try:
            self._results.close(b"]\n")
        finally:
            if self._images is not None:
                self._images.close(b'], "categories": ' + to_json(self.categories.to_json()) + b"}\n")

    def _id(self, file: ImageFile) -> int:
        if self._ids is None:
            return self._pictures
        try:
            return self._ids[file.name.as_posix()]
        except KeyError:
            raise DataError(f"{file.path}: the data set has no picture {file.name.as_posix()!r}") from None


class CocoWriter(CocoFiles):
    """A row for each object."""

    def append(self, file: ImageFile, found: Detections) -> None:
        """Adds the objects of one picture, and the picture. Raises DataError when its id is not known."""
        self.add(file, found.image_hw, lambda image_id: coco_rows(found, image_id, self.categories))


class _JsonList:
    """A JSON list within `head` and a tail, one element a line."""

    def __init__(self, path: Path, head: bytes) -> None:
        self._file = GrowingFile(path)
        self._before = head + b"\n"
        self._head = head

    def append(self, row: dict[str, Any]) -> None:
        self._file.write(self._before + to_json(row))
        self._before = b",\n"

    def close(self, tail: bytes) -> None:
        is_empty = self._before != b",\n"
        self._file.close(self._head + tail if is_empty else b"\n" + tail)
