"""Tables for people and scripts: CSV with a row per object, JSON Lines with a line per picture.

Boxes are x1, y1, x2, y2 in pixels of the upright picture, to a hundredth; scores to 5 places. JSON Lines also hold
masks, as COCO's run lengths. A picture's name that is not UTF-8 is escaped as `text` says.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from detseg.annotations.categories import Categories
from detseg.images import ImageFile
from detseg.results import Detections
from detseg.writers.contract import Options
from detseg.writers.growing import GrowingFile
from detseg.writers.text import readable, to_json

CSV_COLUMNS = (
    *("file", "label", "category_id", "name", "score", "x1", "y1", "x2", "y2", "image_width", "image_height"),
)


def json_row(file: ImageFile, found: Detections, categories: Categories) -> dict[str, Any]:
    """One picture and its objects as plain JSON values."""
    h, w = (int(side) for side in found.image_hw)
    objects: list[dict[str, Any]] = [
        {
            "label": label,
            "category_id": categories.ids[label],
            "name": categories.names[label],
            "score": round(score, 5),
            "box": [round(side, 2) for side in box.tolist()],
        }
        for box, score, label in found
    ]
    if found.masks is not None:
        for i, entry in enumerate(objects):
            entry["segmentation"] = found.masks.segmentation(i)
    return {"file": file.name.as_posix(), "path": str(file.path), "width": w, "height": h, "objects": objects}


class CsvWriter:
    """predictions.csv: a row per object (`CSV_COLUMNS`); pictures without objects have none."""

    def __init__(self, out: Path, categories: Categories, options: Options) -> None:
        self.place = out / "predictions.csv"
        self._categories = categories
        self._file = GrowingFile(self.place)
        self._write([CSV_COLUMNS])

    def append(self, file: ImageFile, found: Detections) -> None:
        """Adds the objects of one picture."""
        row = json_row(file, found, self._categories)
        name, size = readable(row["file"]), (row["width"], row["height"])
        self._write(
            [
                (name, o["label"], o["category_id"], readable(o["name"]), o["score"], *o["box"], *size)
                for o in row["objects"]
            ]
        )

    def close(self) -> None:
        """Ends the file."""
        self._file.close()

    def _write(self, rows: list[tuple[Any, ...]]) -> None:
        if rows:
            text = io.StringIO(newline="")
            csv.writer(text, lineterminator="\n").writerows(rows)
            self._file.write(text.getvalue().encode())


class JsonLinesWriter:
    """predictions.jsonl: every picture in a line, also those without objects."""

    def __init__(self, out: Path, categories: Categories, options: Options) -> None:
        self.place = out / "predictions.jsonl"
        self._categories = categories
        self._file = GrowingFile(self.place)

    def append(self, file: ImageFile, found: Detections) -> None:
        """Adds the line of one picture."""
        self._file.write(to_json(json_row(file, found, self._categories)) + b"\n")

    def close(self) -> None:
        """Ends the file."""
        self._file.close()
