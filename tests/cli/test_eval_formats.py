"""`detseg eval --predictions`: masks, label maps, VOC's rule and its texts, as a user meets them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detseg.cli.main import main

HW = (60, 80)
BOXES = [[4, 4, 30, 20], [40, 10, 20, 20], [10, 30, 40, 25]]


def polygon(box: list[float]) -> list[list[float]]:
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def write_truth(folder: Path, masks: bool) -> Path:
    """Two pictures, not there as files; ids have holes; the last object is a crowd."""
    annotations = []
    for number, box in enumerate(BOXES):
        entry = {"id": number, "image_id": 7 + 2 * (number > 1), "category_id": 3 + number % 2, "bbox": box}
        outline = {"segmentation": polygon(box)} if masks else {}
        annotations.append({**entry, **outline, "area": box[2] * box[3], "iscrowd": int(number == 2)})
    images = [{"id": i, "file_name": f"{i}.jpg", "width": HW[1], "height": HW[0]} for i in (7, 9)]
    categories = [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}]
    file = folder / "truth" / "instances_val.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


def results(masks: bool, boxes: bool = True) -> list[dict[str, object]]:
    """Every object, moved by a pixel or two, and one stray."""
    found = []
    for number, (x, y, w, h) in enumerate([*BOXES, [60, 40, 12, 9]]):
        moved = [x + number, y + 1, w, h]
        entry: dict[str, object] = {
            "image_id": 7 + 2 * (number > 1),
            "category_id": 3 + number % 2,
            "score": 0.9 - number / 10,
        }
        entry |= {"bbox": moved} if boxes else {}
        coded = coco_mask.merge(coco_mask.frPyObjects(polygon(moved), *HW))
        rle = {"size": list(HW), "counts": coded["counts"].decode()}
        found.append(entry | ({"segmentation": rle} if masks else {}))
    return found


def pycocotools_on(folder: Path, kind: str) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(folder / "truth.json")
        comparison = COCOeval(known, known.loadRes(str(folder / "predictions.json")), kind)
        comparison.evaluate()
        comparison.accumulate()
        comparison.summarize()
    return list(comparison.stats)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("boxes", [True, False])
def test_masks(here: Path, boxes: bool, capsys: pytest.CaptureFixture[str]) -> None:
    truth = write_truth(here, masks=True)
    Path("p.json").write_text(json.dumps(results(masks=True, boxes=boxes)))
    assert main(["eval", "--predictions", "p.json", str(truth), "--boundary", "--json", "-o", "out"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["task"] == "masks"
    for section, kind in (("metrics", "bbox"), ("masks", "segm")):
        assert list(report[section].values())[:12] == pycocotools_on(Path("out"), kind)
        assert report[section]["kind"] == kind
    assert 0 < report["boundary"]["ap"] <= report["masks"]["ap"]
    with Path("out/classes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["name"], float(row["ap"]), float(row["masks_ap"])) for row in rows] == [
        (c["name"], c["ap"], m["ap"])
        for c, m in zip(report["metrics"]["per_class"], report["masks"]["per_class"], strict=True)
    ]


def test_what_is_compared(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Masks where both sides have them, unless boxes are asked for; clear words where they are missing."""
    with_masks, without = write_truth(here / "a", masks=True), write_truth(here / "b", masks=False)
    Path("masks.json").write_text(json.dumps(results(masks=True)))
    Path("boxes.json").write_text(json.dumps(results(masks=False)))
    expected = {
        ("masks.json", with_masks, ""): "masks",
        ("masks.json", with_masks, "boxes"): "boxes",
        ("masks.json", with_masks, "val"): "masks",  # YOLO's word for the split
        ("boxes.json", with_masks, ""): "boxes",
        ("masks.json", without, ""): "boxes",
    }
    numbers = []
    for (file, truth, task), told in expected.items():
        assert main(["eval", "--predictions", file, str(truth), "--json", *(["--task", task] if task else [])]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["task"], "masks" in report) == (told, told == "masks")
        numbers.append(report["metrics"])
    assert all(n == numbers[0] for n in numbers)
    for file, truth, blamed in (("boxes.json", with_masks, "boxes.json"), ("masks.json", without, str(without))):
        assert main(["eval", "--predictions", file, str(truth), "--task", "masks"]) == 3
        assert f"error: {blamed}: holds no masks" in capsys.readouterr().err


def test_objects_without_masks_among_others_count_with_their_boxes(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = write_truth(here, masks=True)
    content = json.loads(truth.read_text())
    del content["annotations"][0]["segmentation"]
    truth.write_text(json.dumps(content))
    found = results(masks=True)
    del found[1]["segmentation"]
    Path("p.json").write_text(json.dumps(found))
    assert main(["eval", "--predictions", "p.json", str(truth), "--json", "-o", "out"]) == 0
    said = capsys.readouterr()
    assert "1 object of the data set without a mask" in said.err
    assert "1 detection without a mask" in said.err
    assert list(json.loads(said.out)["masks"].values())[:12] == pycocotools_on(Path("out"), "segm")


def test_voc_numbers_of_voc_texts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The cat is found, the dog is found second to a stray: AP 1, and 1/2 by either rule."""
    truth = write_truth(here, masks=False)
    Path("found").mkdir()
    Path("found/comp4_det_test_cat.txt").write_text("7 0.9 5 5 34 24\n")
    Path("found/comp4_det_test_dog.txt").write_text("7 0.9 1 1 9 9\n7 0.8 41 11 60 30\n")
    assert main(["eval", "--predictions", "found", str(truth), "--voc07", "--json", "-o", "out"]) == 0
    voc = json.loads(capsys.readouterr().out)["voc"]
    assert voc["map07"] == pytest.approx(0.75)
    assert [c["ap07"] for c in voc["per_class"]] == pytest.approx([1, 0.5])
    assert "map10" not in voc
    assert main(["eval", "--predictions", "found", str(truth), "--voc", "--voc07", "-o", "out2", "-q"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert any(line[:2] == ["VOC07", "0.7500"] for line in lines)
    assert any(line[:2] == ["VOC", "0.7500"] for line in lines)
    assert [line[-2:] for line in lines if line[:1] == ["dog"]] == [["0.5000", "0.5000"]]


def test_max_det(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = write_truth(here, masks=False)
    Path("p.json").write_text(json.dumps(results(masks=False)))
    assert main(["eval", "--predictions", "p.json", str(truth), "--max-dets", "7", "--limit", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["metrics"]["max_dets"], report["metrics"]["images"], report["data"]["limit"]) == (7, 1, 1)
    assert any("2 objects of pictures" in note for note in report["notes"])


# ---- label maps ----


def write_streets(folder: Path) -> Path:
    """Two pictures of road (0) and sky (1) halves, one pixel not counted."""
    classes = folder / "classes.txt"
    for number in range(2):
        for place in ("images", "masks"):
            (folder / place).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4)).save(folder / "images" / f"{number}.png")
        labels = np.array([[0, 0, 0, 1, 1, 1]] * 4, np.uint8)
        labels[0, 0] = 255
        Image.fromarray(labels).save(folder / "masks" / f"{number}.png")
    classes.write_text("road\nsky\n")
    return folder


def write_maps(folder: Path) -> Path:
    """The first all right but for one column, the second missing."""
    folder.mkdir()
    Image.fromarray(np.array([[0, 0, 1, 1, 1, 1]] * 4, np.uint8)).save(folder / "0.png")
    return folder


def test_label_maps(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    streets, maps = write_streets(here / "streets"), write_maps(here / "maps")
    assert main(["eval", "--predictions", str(maps), str(streets), "--json", "-o", "out"]) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report == json.loads(Path("out/metrics.json").read_text())
    assert report["task"] == "labels"
    assert report["metrics"]["pixel_accuracy"] == pytest.approx(19 / 46)
    assert report["metrics"]["confusion"] == [[7, 4, 11], [0, 12, 12]]
    assert "1 pictures have no label map" in said.err
    assert Path("out/classes.csv").read_text().startswith("id,name,pictures,pixels,iou,dice")
    assert main(["eval", "--predictions", str(maps), str(streets), "--task", "labels", "-q", "--limit", "1"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["road", "1", "11", "0.6364"] in [line[:4] for line in lines]


def test_label_maps_that_cannot_be_measured(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    streets, maps = write_streets(here / "streets"), write_maps(here / "maps")
    Image.new("L", (4, 4)).save(maps / "1.png")
    assert main(["eval", "--predictions", str(maps), str(streets)]) == 3
    assert "its label map is 4x4, the truth's 6x4" in capsys.readouterr().err
    assert not Path("runs/eval/exp").exists()
    assert main(["eval", "--predictions", "nowhere", str(streets), "--task", "labels"]) == 3
    assert "nowhere: label maps are a folder" in capsys.readouterr().err
    assert main(["eval", str(streets), "--task", "labels"]) == 3  # by the weights that come with detseg
    assert "against road, sky; measure on data with the same class names" in capsys.readouterr().err
