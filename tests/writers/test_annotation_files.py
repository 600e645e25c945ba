"""COCO, YOLO and VOC: hand-computed values, odd names, and what other readers make of the files."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from pycocotools.coco import COCO

from detseg.annotations import Categories
from detseg.errors import DataError
from detseg.images import ImageFile
from detseg.results import Detections
from detseg.writers import open_writers
from detseg.writers.voc_xml import voc_pixels
from tests.bad_inputs import ODD_NAMES

CATEGORIES = Categories((7, 3, 90), ("cat", "dog & <cat>", "person"))
# 200 wide, 100 high; scores that float32 holds exactly
FOUND = Detections(
    (100, 200),
    np.array([[20, 10, 60, 90], [0, 0, 200, 100], [0.25, 50.5, 1.5, 99.75]], np.float32),
    np.array([0.5, 0.25, 0.125], np.float32),
    np.array([2, 0, 1]),
)
NOTHING = Detections((100, 200))


def image_file(name: str = "sub/a.jpg") -> ImageFile:
    return ImageFile(Path("/somewhere") / name, PurePosixPath(name))


def test_coco_rows_carry_the_data_sets_own_ids(tmp_path: Path) -> None:
    ids = {"sub/a.jpg": 42, "b.jpg": 5}
    with open_writers(["coco"], tmp_path, CATEGORIES, image_ids=ids) as writers:
        writers.append(image_file(), FOUND)
        writers.append(image_file("b.jpg"), NOTHING)
        with pytest.raises(DataError, match=r"no picture 'c\.jpg'"):
            writers.append(image_file("c.jpg"), FOUND)
    assert json.loads((tmp_path / "predictions.json").read_bytes()) == [
        {"image_id": 42, "category_id": 90, "bbox": [20, 10, 40, 80], "score": 0.5},
        {"image_id": 42, "category_id": 7, "bbox": [0, 0, 200, 100], "score": 0.25},
        {"image_id": 42, "category_id": 3, "bbox": [0.25, 50.5, 1.25, 49.25], "score": 0.125},
    ]
    assert not (tmp_path / "images.json").exists()


def test_coco_without_a_data_set_numbers_the_pictures_and_pycocotools_reads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_writers(["coco"], tmp_path, CATEGORIES) as writers:
        for name in ("nothing.jpg", *ODD_NAMES):
            writers.append(image_file(name), NOTHING if name == "nothing.jpg" else FOUND)
    truth = COCO(tmp_path / "images.json")
    assert [image["file_name"] for image in truth.dataset["images"]] == ["nothing.jpg", *ODD_NAMES]
    assert {c["id"]: c["name"] for c in truth.dataset["categories"]} == dict(
        zip(CATEGORIES.ids, CATEGORIES.names, strict=True)
    )
    results = truth.loadRes(str(tmp_path / "predictions.json"))
    assert len(results.dataset["annotations"]) == 3 * len(ODD_NAMES)
    assert results.getAnnIds(imgIds=[1]) == []
    capsys.readouterr()


def test_coco_rounds_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    corner = rng.random((50, 2)).astype(np.float32) * 100
    boxes = np.concatenate([corner, corner + rng.random((50, 2)).astype(np.float32) * 50], axis=1)
    found = Detections((200, 200), boxes, rng.random(50).astype(np.float32), np.zeros(50, np.int64))
    with open_writers(["coco"], tmp_path, CATEGORIES) as writers:
        writers.append(image_file(), found)
    rows = json.loads((tmp_path / "predictions.json").read_bytes())
    xywh = np.array([row["bbox"] for row in rows])
    assert np.array_equal(xywh[:, :2] + xywh[:, 2:], boxes[:, 2:].astype(np.float64))
    assert np.array_equal([row["score"] for row in rows], found.scores.astype(np.float64))


@pytest.mark.parametrize("pictures", [0, 1])
def test_coco_files_without_objects_are_valid(tmp_path: Path, pictures: int) -> None:
    with open_writers(["coco"], tmp_path, CATEGORIES) as writers:
        for _ in range(pictures):
            writers.append(image_file(), NOTHING)
    assert json.loads((tmp_path / "predictions.json").read_bytes()) == []
    assert len(json.loads((tmp_path / "images.json").read_bytes())["images"]) == pictures


@pytest.mark.parametrize("save_conf", [False, True])
def test_yolo_lines(tmp_path: Path, save_conf: bool) -> None:
    with open_writers(["yolo"], tmp_path, CATEGORIES, save_conf=save_conf) as writers:
        writers.write(image_file(), None, FOUND)
        writers.write(image_file("b.jpg"), None, NOTHING)
    expected = [
        [2, 0.2, 0.5, 0.2, 0.8, 0.5],
        [0, 0.5, 0.5, 1, 1, 0.25],
        [1, 0.004375, 0.75125, 0.00625, 0.4925, 0.125],
    ]
    lines = [line.split() for line in (tmp_path / "labels/sub/a.txt").read_text().splitlines()]
    assert [[float(value) for value in line] for line in lines] == [row if save_conf else row[:5] for row in expected]
    assert [line[0] for line in lines] == ["2", "0", "1"]
    assert (tmp_path / "labels/b.txt").read_bytes() == b""
    assert (tmp_path / "classes.txt").read_text() == "cat\ndog & <cat>\nperson\n"


def test_voc_pixels_count_from_one_and_stay_inside() -> None:
    boxes = [
        ([0, 0, 200, 100], [1, 1, 200, 100]),  # the whole picture: 200 columns, 1..200
        ([20, 10, 60, 90], [21, 11, 60, 90]),
        ([0.25, 50.5, 1.5, 99.75], [1, 51, 2, 100]),  # 50.5 goes to the even number
        ([10.2, 10.2, 10.4, 10.4], [11, 11, 11, 11]),  # never less than a pixel
        ([199.9, 99.9, 200, 100], [200, 100, 200, 100]),
    ]
    n = len(boxes)
    found = Detections(
        (100, 200),
        np.array([box for box, _ in boxes], np.float32),
        np.full(n, 0.5, np.float32),
        np.zeros(n, np.int64),
    )
    assert voc_pixels(found).tolist() == [pixels for _, pixels in boxes]


def test_voc_page(tmp_path: Path) -> None:
    with open_writers(["voc"], tmp_path, CATEGORIES, save_conf=True) as writers:
        writers.write(image_file(), None, FOUND)
        writers.write(image_file("b.jpg"), None, NOTHING)
    page = ET.parse(tmp_path / "voc/sub/a.xml").getroot()
    assert page.tag == "annotation"
    assert (page.findtext("folder"), page.findtext("filename")) == ("sub", "a.jpg")
    assert [page.findtext(f"size/{side}") for side in ("width", "height", "depth")] == ["200", "100", "3"]
    assert [o.findtext("name") for o in page.findall("object")] == ["person", "cat", "dog & <cat>"]
    assert [o.findtext("bndbox/xmin") for o in page.findall("object")] == ["21", "1", "1"]
    assert [float(o.findtext("confidence") or -1) for o in page.findall("object")] == [0.5, 0.25, 0.125]
    assert ET.parse(tmp_path / "voc/b.xml").getroot().findall("object") == []


def test_voc_keeps_every_file_name_that_xml_can_hold(tmp_path: Path) -> None:
    odd = [*ODD_NAMES, "\x01\x1f.jpg", "<&>\"'.jpg", "tab\there\r.jpg"]
    with open_writers(["voc"], tmp_path, CATEGORIES) as writers:
        for name in odd:
            writers.write(image_file(name), None, NOTHING)
    read = {ET.parse(page).getroot().findtext("filename") for page in (tmp_path / "voc").iterdir()}
    escaped = {"latin1-caf\udce9.jpg": "latin1-caf\\xe9.jpg", "\x01\x1f.jpg": "\\x01\\x1f.jpg"}
    assert read == {escaped.get(name, name) for name in odd}
