"""Label maps out: masks as PNG, overlays, tables of areas, COCO's results.

The values of masks are the data set's own ids of the classes where a pixel of 8 bits can hold them, else the places of
the classes; classes.txt beside them says which.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg.annotations.categories import Categories
from detseg.annotations.mask_files import write_mask
from detseg.annotations.mask_write import pixel_categories, write_classes
from detseg.errors import DetsegError
from detseg.files import write_bytes
from detseg.geometry.boxes import xyxy_to_xywh
from detseg.images import ImageFile
from detseg.results import LabelMap
from detseg.writers.coco_json import CocoFiles
from detseg.writers.contract import Options, Picture
from detseg.writers.growing import GrowingFile
from detseg.writers.overlay import Style, class_colour, is_clear, label_tile, paste, shaded
from detseg.writers.picture_file import ending_for, write_picture
from detseg.writers.text import readable, to_json

_LISTED = 12  # classes named on an overlay
AREA_COLUMNS = ("file", "category_id", "name", "pixels", "share", "image_width", "image_height")


def area_row(file: ImageFile, found: LabelMap, categories: Categories) -> dict[str, Any]:
    """One picture and the areas of its classes, largest first, as plain JSON values."""
    h, w = found.image_hw
    areas = found.areas(len(categories))
    classes = [
        {
            "category_id": categories.ids[label],
            "name": categories.names[label],
            "pixels": int(areas[label]),
            "share": round(int(areas[label]) / max(1, h * w), 5),
        }
        for label in np.argsort(-areas, kind="stable").tolist()
        if areas[label]
    ]
    return {"file": file.name.as_posix(), "path": str(file.path), "width": w, "height": h, "classes": classes}


def draw_map(image: Picture, found: LabelMap, categories: Categories) -> Picture:
    """A copy of `image` (h, w, 3) RGB with each class in its colour, and which colour that is."""
    canvas = shaded(image, found.labels, categories)
    h, w = canvas.shape[:2]
    font = Style.for_picture((h, w)).font
    top = 0
    areas = found.areas(len(categories))
    for label in np.argsort(-areas, kind="stable")[:_LISTED].tolist():
        if not areas[label] or is_clear(label, categories):
            continue
        name = " ".join(readable(categories.names[label]).split())
        share = areas[label] / areas.sum()
        tile = label_tile(f"{name} {share:.0%}" if share >= 0.005 else f"{name} <1%", font, class_colour(label))
        if tile.shape[1] <= w and top + tile.shape[0] <= h:
            paste(canvas, tile, (0, top))
            top += tile.shape[0]
    return canvas


class MapOverlayWriter:
    """images/NAME for every picture, in its own format where that can be written, else JPEG or PNG."""

    needs_image = True

    def __init__(self, out: Path, categories: Categories, options: Options) -> None:
        self.place = out / "images"
        self._categories = categories

    def write(self, file: ImageFile, image: Picture | None, found: LabelMap) -> None:
        """Writes the picture with its classes drawn over it."""
        assert image is not None
        ending = ending_for(file.name.suffix, found.image_hw)
        write_picture(self.place / f"{file.output}{ending}", draw_map(image, found, self._categories))


class _ValueWriter:
    """PNG files of one value a pixel, and classes.txt, which says what the values mean."""

    needs_image = False
    folder: str

    def __init__(self, out: Path, categories: Categories, options: Options) -> None:
        self.place = out / self.folder
        values = pixel_categories(categories).ids
        self._values = np.zeros(256, np.uint8)
        self._values[: len(values)] = values
        self._colours = np.zeros((256, 3), np.uint8)
        for label, value in enumerate(values):
            self._colours[value] = (0, 0, 0) if is_clear(label, categories) else class_colour(label)
        write_classes(categories, out)


class MaskWriter(_ValueWriter):
    """masks/NAME.png: a palette picture, whose colours are those of the overlay."""

    folder = "masks"

    def write(self, file: ImageFile, image: Picture | None, found: LabelMap) -> None:
        """Writes the mask of one picture."""
        write_mask(self.place / f"{file.output}.png", self._values[found.labels], self._colours)


class IndexWriter(_ValueWriter):
    """index/NAME.png: the same values as grey, for programs that know no palettes."""

    folder = "index"

    def write(self, file: ImageFile, image: Picture | None, found: LabelMap) -> None:
        """Writes the values of one picture."""
        path = self.place / f"{file.output}.png"
        done, encoded = cv2.imencode(".png", self._values[found.labels])
        if not done:
            raise DetsegError(f"{path}: the label map cannot be encoded")
        write_bytes(path, encoded.tobytes())


class AreaCsvWriter:
    """areas.csv: a row for each class of each picture (`AREA_COLUMNS`)."""

    def __init__(self, out: Path, categories: Categories, options: Options) -> None:
        self.place = out / "areas.csv"
        self._categories = categories
        self._file = GrowingFile(self.place)
        self._write([AREA_COLUMNS])

    def append(self, file: ImageFile, found: LabelMap) -> None:
        """Adds the classes of one picture."""
        row = area_row(file, found, self._categories)
        name, size = readable(row["file"]), (row["width"], row["height"])
        classes = row["classes"]
        self._write([(name, c["category_id"], readable(c["name"]), c["pixels"], c["share"], *size) for c in classes])

    def close(self) -> None:
        """Ends the file."""
        self._file.close()

    def _write(self, rows: list[tuple[Any, ...]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode())


class AreaLinesWriter:
    """areas.jsonl: every picture in a line."""

    def __init__(self, out: Path, categories: Categories, options: Options) -> None:
        self.place = out / "areas.jsonl"
        self._categories = categories
        self._file = GrowingFile(self.place)

    def append(self, file: ImageFile, found: LabelMap) -> None:
        """Adds the line of one picture."""
        self._file.write(to_json(area_row(file, found, self._categories)) + b"\n")

    def close(self) -> None:
        """Ends the file."""
        self._file.close()


class CocoMapWriter(CocoFiles):
    """predictions.json in the form of COCO's stuff: a row for each class of each picture, with its run lengths."""

    def append(self, file: ImageFile, found: LabelMap) -> None:
        """Adds the classes of one picture, and the picture."""
        self.add(file, found.image_hw, lambda image_id: _coco_rows(found, image_id, self.categories))


def _coco_rows(found: LabelMap, image_id: int, categories: Categories) -> Iterator[dict[str, Any]]:
    for label in np.unique(found.labels).tolist():
        mask = found.labels == label
        runs = found.mask(label)
        yield {
            "image_id": image_id,
            "category_id": categories.ids[label],
            "segmentation": {**runs, "counts": runs["counts"].decode("ascii")},
            "area": int(mask.sum()),
            "bbox": xyxy_to_xywh(_box(mask)[None]).tolist()[0],
        }


def _box(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
