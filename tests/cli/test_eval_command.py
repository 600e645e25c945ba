"""`detseg eval` as a user meets it, on a real ONNX model whose answer is known (tests/colour_model.py)."""

from __future__ import annotations

import contextlib
import io
import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detseg.cli.main import main

TESTS = Path(__file__).resolve().parents[1]
RED_BOX, GREEN_BOX = (20, 30, 80, 90), (100, 10, 180, 110)


def load(name: str):
    spec = spec_from_file_location(name, TESTS / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


colour_model = load("colour_model")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    return str(colour_model.write_colour_model(tmp_path_factory.mktemp("weights") / "colours.onnx"))


def draw(path: Path, red: bool, green: bool) -> None:
    image = np.full((160, 192, 3), 128, np.uint8)
    for wanted, colour, (x1, y1, x2, y2) in ((red, (255, 0, 0), RED_BOX), (green, (0, 255, 0), GREEN_BOX)):
        if wanted:
            image[y1:y2, x1:x2] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])


def write_truth(folder: Path, names: dict[int, str], split: str = "val") -> Path:
    """Four pictures: red, both, nothing, both; the last red box is given 6 px too far left: overlap 9 / 11."""
    kinds = [(True, False), (True, True), (False, False), (True, True)]
    ids = {name.lower(): id_ for id_, name in names.items()}
    images, annotations = [], []
    for number, (red, green) in enumerate(kinds):
        draw(folder / "images" / f"{number}.png", red, green)
        images.append({"id": 50 - number, "file_name": f"{number}.png", "width": 192, "height": 160})
        for wanted, name, (x1, y1, x2, y2) in ((red, "red", RED_BOX), (green, "green", GREEN_BOX)):
            shift = 6 if number == 3 and name == "red" else 0
            box = [x1 - shift, y1, x2 - x1, y2 - y1]
            if wanted and name in ids:
                entry = {"id": len(annotations), "image_id": 50 - number, "category_id": ids[name], "bbox": box}
                annotations.append({**entry, "area": box[2] * box[3], "iscrowd": 0})
    categories = [{"id": id_, "name": name} for id_, name in names.items()]
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (folder / "annotations" / f"instances_{split}.json").write_text(text)
    return folder


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """Green before red, as the model does not have it, and with ids of its own."""
    monkeypatch.chdir(tmp_path)
    return write_truth(tmp_path / "data", {4: "green", 9: "red"})


def pycocotools_on(folder: Path) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(folder / "truth.json")
        comparison = COCOeval(known, known.loadRes(str(folder / "predictions.json")), "bbox")
        comparison.evaluate()
        comparison.accumulate()
        comparison.summarize()
    return list(comparison.stats)


TWELVE = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
TWELVE += ["ar_1", "ar_10", "ar_max", "ar_small", "ar_medium", "ar_large"]


def test_the_numbers_worked_out_by_hand_and_by_pycocotools(data, weights, capsys):
    assert main(["eval", weights, str(data), "--json"]) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    out = Path("runs/eval/exp")
    assert json.loads((out / "metrics.json").read_text()) == report
    numbers = report["metrics"]
    assert [numbers[name] for name in TWELVE] == pycocotools_on(out)
    green, red = numbers["per_class"]
    assert (green["name"], green["id"], green["images"], green["objects"]) == ("green", 4, 2, 2)
    assert (red["name"], red["id"], red["images"], red["objects"]) == ("red", 9, 3, 3)
    assert green["ap"] == pytest.approx(1)
    # the shifted box is found at the seven thresholds up to 0.80, and is lost at the three above
    assert red["ap50"] == pytest.approx(1)
    assert red["ar"] == pytest.approx((7 * 1 + 3 * 2 / 3) / 10)
    assert report["data"]["split"] == "val"
    assert (report["settings"]["nms"], report["settings"]["iou"]) == ("vote", 0.5)
    assert report["weights"] == weights
    assert "split val, 4 pictures" in said.err
    assert len(report["data"]["fingerprint"]) == 16


def test_tables_for_people(data, weights, capsys):
    assert main(["eval", "--weights", weights, "--data", str(data), "-q", "-o", "here", "--limit", "2"]) == 0
    said = capsys.readouterr()
    lines = [line.split() for line in said.out.splitlines()]
    assert ["AP", "1.0000", "overlap", "0.50", "to", "0.95"] in lines
    assert ["AP", "small", "-", "objects", "below", "32x32", "pixels"] in lines
    assert ["red", "2", "2", "1.0000", "1.0000", "-", "1.0000", "-", "1.0000"] in lines
    assert said.err == ""
    written = ["classes.csv", "metrics.json", "predictions.json", "truth.json"]
    assert sorted(p.name for p in Path("here").iterdir()) == written


def test_written_predictions_give_the_same_numbers(data, weights, capsys):
    """Those of eval itself, whose ids are the data set's, and those of detect, which numbers pictures on its own."""
    assert main(["eval", weights, str(data), "-o", "first", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["metrics"]
    assert (
        main(["detect", str(data / "images"), "-w", weights, "--conf", "0.001", "-o", "found", "--save", "coco"]) == 0
    )
    for file in ("first/predictions.json", "found/predictions.json"):
        capsys.readouterr()
        assert main(["eval", "--predictions", file, str(data), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["metrics"] == expected


def test_pictures_that_cannot_be_read_are_named_and_count(data, weights, capsys):
    (data / "images" / "1.png").write_bytes(b"no picture")
    (data / "images" / "3.png").unlink()
    assert main(["eval", weights, str(data), "--json", "-o", "out"]) == 6
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report["metrics"]["images"] == 4
    assert [c["ar"] for c in report["metrics"]["per_class"]] == pytest.approx([0, 1 / 3])
    assert [Path(u["file"]).name for u in report["unreadable"]] == ["1.png", "3.png"]
    assert "1.png" in said.err
    assert "1.png" in Path("out/failures.csv").read_text()


def test_classes_are_matched_by_name(tmp_path, weights, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_truth(tmp_path / "data", {1: "Red", 2: "blue"})
    assert main(["eval", weights, str(data), "--json"]) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert [c["ap50"] for c in report["metrics"]["per_class"]] == [pytest.approx(1), -1]
    assert "'red' of the weights is taken for 'Red'" in said.err
    assert "do not know count with AP 0: blue" in said.err
    assert "lacks are left out: green" in said.err
    strange = write_truth(tmp_path / "strange", {1: "dog"})
    assert main(["eval", weights, str(strange)]) == 3
    assert "no class in common: red, green against dog" in capsys.readouterr().err
    assert not Path("runs/eval/exp2").exists()


def test_the_split(data, weights, capsys):
    write_truth(data, {4: "green", 9: "red"}, "train")
    (data / "annotations" / "instances_val.json").rename(data / "annotations" / "instances_test.json")
    assert main(["eval", weights, str(data)]) == 0
    assert "split test" in capsys.readouterr().err
    assert main(["eval", weights, str(data), "--split", "train"]) == 0
    assert "split train" in capsys.readouterr().err
    assert main(["eval", weights, str(data / "annotations" / "instances_train.json")]) == 0
    assert "all of it" in capsys.readouterr().err
    assert main(["eval", weights, str(data), "--split", "vla"]) == 3
    assert "train" in capsys.readouterr().err


BAD_PREDICTIONS = {
    "[{": "is not JSON",
    "7": "no list of objects",
    '[{"image_id": 50, "category_id": 9, "bbox": [1, 2, 3], "score": 1}]': "object 1 is not one of COCO's results",
    '[{"image_id": 50, "category_id": 9, "score": 1}]': "'bbox' is missing",
    '[{"image_id": 50, "category_id": 9, "bbox": [1, 2, 3, NaN], "score": 1}]': "no finite number",
    '[{"image_id": 1, "category_id": 9, "bbox": [1, 2, 3, 4], "score": 1}]': "is of the pictures",
    '[{"image_id": 50, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]': "is of the classes",
}


@pytest.mark.parametrize("content", BAD_PREDICTIONS)
def test_predictions_that_cannot_be_used(data, content, capsys):
    Path("p.json").write_text(content)
    assert main(["eval", "--predictions", "p.json", str(data)]) == 3
    said = capsys.readouterr()
    assert "error: p.json: " in said.err
    assert BAD_PREDICTIONS[content] in said.err
    assert not Path("runs/eval/exp").exists()


def test_objects_of_other_pictures_are_left_out_and_told(data, capsys):
    rows = [
        {"image_id": i, "category_id": c, "bbox": [20, 30, 60, 60], "score": 0.5} for i, c in ((50, 9), (1, 9), (50, 8))
    ]
    Path("p.json").write_text(json.dumps(rows))
    assert main(["eval", "--predictions", "p.json", str(data), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["metrics"]["detections"] == 1
    assert "1 objects of pictures that the data set lacks" in said.err
    assert "1 objects of classes that the data set lacks" in said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no DATA given"),
        (["a", "b", "c"], "one word too many"),
        (["model.onnx"], "is a weight file"),
        (["--predictions", "p.json", "w.onnx", "data"], "not both"),
    ],
)
def test_words_that_cannot_be_understood(words, said, capsys):
    assert main(["eval", *words]) == 2
    assert said in capsys.readouterr().err
