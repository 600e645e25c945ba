"""Where the truth of a picture stands: looked up again in the data set's own files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.annotations import load, load_label_maps
from detseg.annotations.origin import origin_of
from detseg.annotations.sample import write_sample


@pytest.fixture
def place(tmp_path) -> Path:
    return tmp_path / "data"


def test_coco_has_ids(place):
    data = write_sample(place, format="coco", images=5, seed=1, hw=(64, 64))
    (file,) = data.rglob("*train*.json")
    content = json.loads(file.read_text())
    for row in content["annotations"]:
        row["id"] = 1000 - 7 * row["id"]
    file.write_text(json.dumps(content))
    truth = load(data, "train")
    image = content["images"][2]
    ids = [row["id"] for row in content["annotations"] if row["image_id"] == image["id"]]
    place = next(i for i, name in enumerate(truth.image_files) if name.endswith(image["file_name"]))
    assert origin_of(truth, place) == f"annotations {', '.join(map(str, ids))}"
    maps = load_label_maps(data, "train")  # drawn from the same objects
    assert origin_of(maps, place) == origin_of(truth, place)


def test_yolo_has_lines(place):
    data = write_sample(place, format="yolo", images=5, seed=1, hw=(64, 64))
    truth = load(data, "train")
    label = next(p for p in data.rglob("*.txt") if p.stem == truth.image_path(0).stem)
    label.write_text("\n" + label.read_text() + "nonsense\n0 0.5 0.5 0.25 0.25\n")
    truth = load(data, "train")
    lines = [i for i, line in enumerate(label.read_text().splitlines(), 1) if line and line != "nonsense"]
    assert origin_of(truth, 0) == f"{label}, lines {', '.join(map(str, lines))}"


def test_voc_has_pages_and_masks_are_files(place):
    data = write_sample(place, format="voc", images=5, seed=1, hw=(64, 64))
    truth = load(data, "train")
    objects = len(truth.boxes[truth.rows(1)])
    page = data / "Annotations" / f"{truth.image_path(1).stem}.xml"
    assert page.read_text().count("<object>") == objects
    assert origin_of(truth, 1) == f"{page}, its {objects} objects"

    masks = place.parent / "masked"
    for kind, content in (("images", np.zeros((8, 8, 3), np.uint8)), ("masks", np.zeros((8, 8), np.uint8))):
        (masks / kind / "train").mkdir(parents=True)
        Image.fromarray(content).save(masks / kind / "train" / "a.png")
    assert origin_of(load_label_maps(masks, "train"), 0) == str(masks / "masks" / "train" / "a.png")
