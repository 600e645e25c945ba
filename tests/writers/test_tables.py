"""CSV and JSON Lines, read back with the standard library."""

from __future__ import annotations

import csv
import json
from pathlib import Path, PurePosixPath

import numpy as np

from detseg.annotations import Categories
from detseg.images import ImageFile
from detseg.results import Detections
from detseg.writers import open_writers
from detseg.writers.text import readable
from tests.bad_inputs import ODD_NAMES

CATEGORIES = Categories((7, 3), ('a "quoted", name', "line\nbreak"))
FOUND = Detections(
    (100, 200),
    np.array([[20, 10.126, 60, 90], [0, 0, 200, 100]], np.float32),
    np.array([0.9, 0.123456789], np.float32),
    np.array([1, 0]),
)


def test_csv_has_a_row_per_object_and_odd_names_come_back(tmp_path: Path) -> None:
    with open_writers(["csv"], tmp_path, CATEGORIES) as writers:
        for name in (*ODD_NAMES, "empty.jpg"):
            file = ImageFile(Path(name), PurePosixPath(name))
            writers.append(file, FOUND if name != "empty.jpg" else Detections((1, 1)))
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["file"] for row in rows[::2]] == [readable(name) for name in ODD_NAMES]
    assert rows[0] == {
        "file": "with space.jpg",
        "label": "1",
        "category_id": "3",
        "name": "line\nbreak",
        "score": "0.9",
        "x1": "20.0",
        "y1": "10.13",
        "x2": "60.0",
        "y2": "90.0",
        "image_width": "200",
        "image_height": "100",
    }
    assert (rows[1]["name"], rows[1]["score"]) == ('a "quoted", name', "0.12346")


def test_names_that_are_utf_8_are_left_alone_and_others_escaped() -> None:
    assert readable("größe 写真\n") == "größe 写真\n"
    assert readable("caf\udce9") == "caf\\xe9"
    assert readable("\ud800x").isascii()


def test_json_lines_have_every_picture_and_exact_names(tmp_path: Path) -> None:
    with open_writers(["jsonl"], tmp_path, CATEGORIES) as writers:
        for name in (*ODD_NAMES, "empty.jpg"):
            file = ImageFile(Path("in") / name, PurePosixPath(name))
            writers.append(file, FOUND if name != "empty.jpg" else Detections((5, 6)))
    content = (tmp_path / "predictions.jsonl").read_bytes()
    rows = [json.loads(line) for line in content.decode().split("\n")[:-1]]
    assert [row["file"] for row in rows] == [*ODD_NAMES, "empty.jpg"]
    assert rows[-1] == {"file": "empty.jpg", "path": "in/empty.jpg", "width": 6, "height": 5, "objects": []}
    assert rows[0]["objects"][0] == {
        "label": 1,
        "category_id": 3,
        "name": "line\nbreak",
        "score": 0.9,
        "box": [20.0, 10.13, 60.0, 90.0],
    }
