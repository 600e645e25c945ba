"""`detseg segment`, and `detseg eval` of a segmenter, on the real ONNX Runtime. Oracle: pictures drawn by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg import checkpoints
from detseg.annotations import load_label_maps
from detseg.annotations.mask_files import write_mask
from detseg.annotations.sample import write_sample
from detseg.cli.main import main
from detseg.geometry import rle as run_lengths
from detseg.training.config import TrainConfig
from detseg.training.setup import prepare
from tests.colour_map_model import IDS, NAMES, colour_picture, write_colour_map_model
from tests.colour_model import write_colour_model

RED, GREEN = (10, 20, 60, 50), (70, 5, 90, 60)
HW = (64, 96)


def label_map() -> np.ndarray:
    """What is to be found in the pictures: class indices."""
    labels = np.zeros(HW, np.uint8)
    for index, (x1, y1, x2, y2) in ((1, RED), (2, GREEN)):
        labels[y1:y2, x1:x2] = index
    return labels


@pytest.fixture
def weights(tmp_path) -> str:
    return str(write_colour_map_model(tmp_path / "colours.onnx"))


@pytest.fixture
def photos(tmp_path, monkeypatch):
    folder = tmp_path / "photos" / "deep"
    folder.mkdir(parents=True)
    image = cv2.cvtColor(colour_picture(HW, RED, GREEN), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(folder / "a.png"), image)
    cv2.imwrite(str(folder.parent / "b.png"), cv2.resize(image, None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST))
    (folder.parent / "broken.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    return folder.parent


def read_png(path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_every_format_says_what_was_drawn(photos, weights, capsys):
    every = "image,mask,index,csv,jsonl,coco"
    assert main(["segment", "photos", "-w", weights, "-o", "out", "--save", every, "--json"]) == 6
    labels = label_map()
    values = np.array(IDS, np.uint8)[labels]
    np.testing.assert_array_equal(read_png("out/index/deep/a.png"), values)
    np.testing.assert_array_equal(read_png("out/index/b.png"), values.repeat(3, 0).repeat(3, 1))
    from PIL import Image

    with Image.open("out/masks/deep/a.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), values)
    overlay = cv2.cvtColor(read_png("out/images/deep/a.png"), cv2.COLOR_BGR2RGB)
    picture = colour_picture(HW, RED, GREEN)
    assert overlay.shape == picture.shape
    assert (overlay[-1, -1] == picture[-1, -1]).all()  # background is left clear
    assert (overlay[30, 30] != picture[30, 30]).any()
    with open("out/areas.csv", newline="") as file:
        rows = {(row["file"], row["name"]): row for row in csv.DictReader(file)}
    for index, name in enumerate(NAMES):
        assert int(rows["deep/a.png", name]["pixels"]) == (labels == index).sum()
        assert int(rows["deep/a.png", name]["category_id"]) == IDS[index]
        assert int(rows["b.png", name]["pixels"]) == 9 * (labels == index).sum()
    lines = [json.loads(line) for line in (photos.parent / "out/areas.jsonl").read_text().splitlines()]
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in shown if "error" not in line] == lines
    assert [line["file"] for line in shown if "error" in line] == ["broken.png"]
    out = photos.parent / "out"
    results = json.loads((out / "predictions.json").read_text())
    images = json.loads((out / "images.json").read_text())["images"]
    number = {entry["file_name"]: entry["id"] for entry in images}
    for row in results:
        if row["image_id"] == number["deep/a.png"]:
            wanted = labels == IDS.index(row["category_id"])
            np.testing.assert_array_equal(
                run_lengths.decode({**row["segmentation"], "counts": row["segmentation"]["counts"].encode()}), wanted
            )
            assert row["area"] == wanted.sum()
            if row["category_id"] == 7:
                assert row["bbox"] == [10, 20, 50, 30]


def test_a_run_goes_on_and_ends_as_if_it_had_not_stopped(photos, weights):
    command = ["segment", "photos", "-w", weights, "--save", "index,csv,coco"]
    assert main([*command, "-o", "whole"]) == 6
    assert main([*command, "-o", "parts", "--limit", "1"]) == 0
    (first,) = (photos.parent / "parts" / "index").rglob("*.png")
    first.unlink()  # a finished picture is not done again
    assert main([*command, "-o", "parts", "--resume"]) == 6
    assert not first.exists()
    for name in ("areas.csv", "predictions.json", "images.json", "failures.csv"):
        assert (photos.parent / "parts" / name).read_bytes() == (photos.parent / "whole" / name).read_bytes(), name


@pytest.mark.parametrize(("picture", "times", "tile"), [("b.png", 3, 64), ("deep/a.png", 1, 128)])
def test_tiles_find_the_same(photos, tmp_path, picture, times, tile):
    """Also where a tile is larger than the picture: an exported network takes no other size."""
    weights = str(write_colour_map_model(tmp_path / "tiles.onnx", (tile, tile)))
    how = ["--tile", str(tile), "--overlap", "32", "--save", "index"]
    assert main(["segment", f"photos/{picture}", "-w", weights, "-o", "tiles", *how]) == 0
    wanted = np.array(IDS, np.uint8)[label_map()].repeat(times, 0).repeat(times, 1)
    np.testing.assert_array_equal(read_png(f"tiles/index/{Path(picture).name}"), wanted)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--tile", "64x96", "--overlap", "10"], 2, "multiples of 32"),
        (["--tile", "64x96", "--overlap", "64"], 2, "leave nothing"),
        (["--save", "yolo"], 2, "is none of image"),
        (["--imgsz", "32"], 2, "was exported for 64x96"),
    ],
)
def test_what_cannot_be_done_is_told(photos, weights, words, code, told, capsys):
    assert main(["segment", "photos", "-w", weights, *words]) == code
    assert told in capsys.readouterr().err


def test_weights_of_a_detector_name_the_right_command(photos, weights, tmp_path, capsys):
    boxes = str(write_colour_model(tmp_path / "boxes.onnx"))
    assert main(["segment", "photos", "-w", boxes]) == 4
    assert "use it with: detseg detect" in capsys.readouterr().err


@pytest.mark.parametrize("how", [[], ["--tile", "64"]])
def test_dilated_is_asked_as_others_are(photos, tmp_path, how):
    config = TrainConfig(
        data=str(write_sample(tmp_path / "shapes", format="coco", images=4, seed=0, hw=(48, 64))),
        model="dilated-r50", backbone="resnet18", backbone_weights=None, imgsz=64,
    )  # fmt: skip
    prepared = prepare(config, "detseg train")
    checkpoints.save(tmp_path / "dilated.safetensors", prepared.card, prepared.model.state_dict())
    words = ["-w", str(tmp_path / "dilated.safetensors"), "--save", "index", "-q", "-o", str(tmp_path / "found")]
    assert main(["segment", str(photos / "b.png"), *words, *how]) == 0
    assert read_png(tmp_path / "found" / "index" / "b.png").shape == tuple(3 * side for side in HW)


@pytest.fixture
def data(tmp_path):
    """A mask folder whose classes are those of the model in another order, and one more."""
    root = tmp_path / "data"
    palette = np.zeros((256, 3), np.uint8)
    for index in range(3):
        (root / "images").mkdir(parents=True, exist_ok=True)
        image = cv2.cvtColor(colour_picture(HW, RED, GREEN), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(root / "images" / f"{index}.png"), image)
        values = np.array([4, 1, 2], np.uint8)[label_map()]
        values[0, :] = 255  # does not count
        if index == 2:
            values[10:30, 0:5] = 9  # a class that the model does not know
        write_mask(root / "masks" / f"{index}.png", values, palette)
    (root / "classes.txt").write_text("1 red\n2 green\n4 background\n9 blue\n255 void\n")
    return root


def test_a_segmenter_is_measured(data, weights, tmp_path, capsys):
    out = tmp_path / "measured"
    assert main(["eval", weights, str(data), "-o", str(out), "--json", "--report"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["task"] == "labels"
    assert told["model"] == "unet"
    numbers = told["metrics"]
    maps = [load_label_maps(data).label_map(i) for i in range(3)]
    names = load_label_maps(data).categories.names
    found = np.array([names.index(name) for name in NAMES])[label_map()]
    counted = np.stack(maps) != 255
    right = (np.stack(maps) == found[None]) & counted
    assert numbers["pixel_accuracy"] == pytest.approx(right.sum() / counted.sum())
    by_name = {entry["name"]: entry for entry in numbers["per_class"]}
    assert by_name["red"]["iou"] == 1
    assert by_name["blue"]["iou"] == 0
    missed = 20 * 5
    background = counted.sum() - 3 * (30 * 50 + 55 * 20)
    assert by_name["background"]["iou"] == pytest.approx((background - missed) / background)
    assert any("blue" in note for note in told["notes"])
    assert (out / "report.html").is_file()
    # the maps that were measured are there to be measured again
    assert main(["eval", "--predictions", str(out / "masks"), str(data), "-o", str(tmp_path / "again"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == numbers


def test_data_without_a_common_class_is_refused(data, weights, capsys):
    (data / "classes.txt").write_text("1 cat\n2 dog\n4 cow\n9 horse\n255 void\n")
    assert main(["eval", weights, str(data)]) == 3
    assert "no class in common" in capsys.readouterr().err


TWINS = ((30, 32), (54, 32))  # middles of discs that touch


def twins() -> np.ndarray:
    """(2, h, w) where each of two red discs is, up to the pixels between them."""
    yy, xx = np.mgrid[: HW[0], : HW[1]]
    discs = np.stack([(xx - x) ** 2 + (yy - y) ** 2 <= 14**2 for x, y in TWINS])
    discs[0, :, 42:], discs[1, :, :42] = False, False
    return discs


@pytest.fixture
def cells(tmp_path, monkeypatch):
    """A COCO set: a picture with two discs of one class that touch, and one without anything."""
    folder = tmp_path / "cells"
    folder.mkdir()
    image = np.full((*HW, 3), 60, np.uint8)
    cv2.imwrite(str(folder / "nothing.png"), image)
    image[twins().any(axis=0)] = (20, 20, 250)  # red, as cv2 has it
    cv2.imwrite(str(folder / "twins.png"), image)
    annotations = []
    for number, mask in enumerate(twins()):
        rle = run_lengths.encode(mask)
        x1, y1, x2, y2 = run_lengths.box(rle)
        coded = {"size": list(HW), "counts": rle["counts"].decode()}
        annotations.append(
            {"id": number + 1, "image_id": 1, "category_id": 7, "iscrowd": 0, "area": int(mask.sum())}
            | {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": coded}
        )
    sizes = {"height": HW[0], "width": HW[1]}
    images = [{"id": 1, "file_name": "twins.png", **sizes}, {"id": 2, "file_name": "nothing.png", **sizes}]
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "red"}]}
    (folder / "cells.json").write_text(json.dumps(truth))
    monkeypatch.chdir(tmp_path)
    return folder


def test_detect_cuts_label_maps_into_objects(cells, weights, capsys):
    assert main(["detect", "cells", "-w", weights, "-o", "out", "--save", "coco"]) == 0
    assert "cut where they are narrow" in capsys.readouterr().err
    found = json.loads((cells.parent / "out/predictions.json").read_text())
    assert [row["category_id"] for row in found] == [7, 7]
    masks = [
        run_lengths.decode({**row["segmentation"], "counts": row["segmentation"]["counts"].encode()}) for row in found
    ]
    np.testing.assert_array_equal(np.sum(masks, axis=0), twins().any(axis=0))
    for mask in masks:
        overlaps = [(mask & disc).sum() / (mask | disc).sum() for disc in twins()]
        assert max(overlaps) > 0.95
    assert main(["detect", "cells", "-w", weights, "-o", "joined", "--save", "coco", "--neck", "12"]) == 0
    assert len(json.loads((cells.parent / "joined/predictions.json").read_text())) == 1
    assert main(["detect", "cells", "-w", weights, "-o", "none", "--save", "coco", "--min-area", "900"]) == 0
    assert json.loads((cells.parent / "none/predictions.json").read_text()) == []


def test_objects_of_label_maps_are_measured_where_that_is_asked_for(cells, weights, capsys):
    assert main(["eval", weights, str(cells), "--task", "masks", "-o", "out", "--json", "-q"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["masks"]["ap50"] == pytest.approx(1)
    point = report["masks"]["at_threshold"]
    assert (point["right"], point["false"], point["missed"], point["agreement"]) == (2, 0, 0, 1)
    assert report["settings"]["neck"] == 1
    command = ["eval", weights, str(cells), "--task", "masks", "-o", "joined", "--json", "-q", "--neck", "12"]
    assert main([*command, "--at", "0.1"]) == 0
    point = json.loads(capsys.readouterr().out)["masks"]["at_threshold"]
    assert (point["score"], point["right"], point["missed"], point["false"]) == (0.1, 1, 1, 0)  # half of it is one


def test_a_detector_and_a_segmenter_make_no_ensemble(cells, weights, tmp_path, capsys):
    detector = str(write_colour_model(tmp_path / "detector.onnx"))
    assert main(["detect", "cells", "-w", weights, "-w", detector, "-o", "out"]) == 4
    assert "a detector and a segmenter make no ensemble" in capsys.readouterr().err
