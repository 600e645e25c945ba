"""Ensembles on the command line: real checkpoints, torch and ONNX. Oracle: what each member says alone."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detseg.annotations import Categories
from detseg.annotations.mask_files import write_mask
from detseg.checkpoints import Card, save
from detseg.cli.main import main
from detseg.preprocess import Preprocess
from tests.colour_map_model import IDS, NAMES, colour_picture, write_colour_map_model
from tests.colour_model import write_colour_model
from tests.segmenter_contract import small

HW = (64, 96)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        image = colour_picture(HW, (10 + 5 * number, 20, 60, 50), (70, 5, 90, 60))
        cv2.imwrite(f"photos/{number}.png", image[..., ::-1])
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    return tmp_path


def objects(capsys, *words: str) -> list[list[dict[str, object]]]:
    """What is found in each picture."""
    code = main(["detect", "photos", "--json", "--save", "", "--exist-ok", *words])
    told = capsys.readouterr()
    assert code == 6, told.err  # one picture cannot be read
    lines = [json.loads(line) for line in told.out.splitlines()]
    return [line["objects"] for line in lines if "error" not in line]


def test_detectors_are_fused_by_class_name_and_weight(place, capsys):
    one = write_colour_model(place / "one.onnx", scores=(0.9, 0.8))
    two = write_colour_model(place / "two.onnx", (64, 96), ("green-ish", "red"), (0.6, 0.5))  # what is red is green-ish
    (alone, *_), (both, *_) = objects(capsys, "-w", str(one)), objects(capsys, "-w", str(one), "-w", str(two))
    assert [(o["name"], round(o["score"], 4)) for o in alone] == [("red", 0.9), ("green", 0.8)]
    scores = {(o["name"], tuple(np.rint(o["box"]).tolist())): round(o["score"], 4) for o in both}
    red, green = (10.0, 20.0, 60.0, 50.0), (70.0, 5.0, 90.0, 60.0)
    # two calls "red" what is green; only one knows green, only two green-ish; either alone finds a red thing there
    assert scores == {("red", red): 0.45, ("red", green): 0.25, ("green", green): 0.8, ("green-ish", red): 0.6} or (
        scores == {("red", red): 0.45, ("green", green): 0.8, ("green-ish", red): 0.6}
    )  # 0.25 is not above --conf
    (weighted, *_) = objects(capsys, "-w", str(one), "-w", str(two), "--ensemble-weights", "3,1")
    assert {o["name"]: round(o["score"], 4) for o in weighted}["red"] == pytest.approx(3 * 0.9 / 4)
    (only, *_) = objects(capsys, "-w", str(one), "-w", str(two), "--classes", "green-ish,green")
    assert {o["name"] for o in only} == {"green", "green-ish"}


def test_a_detector_twice_and_the_order_of_members(place, capsys):
    one, two = write_colour_model(place / "one.onnx"), write_colour_model(place / "two.onnx", (64, 96))
    assert objects(capsys, "-w", str(one), "-w", str(one)) == objects(capsys, "-w", str(one))
    forth = objects(capsys, "-w", str(one), "-w", str(two), "--tta")
    assert forth == objects(capsys, "-w", str(two), "-w", str(one), "--tta")
    assert len(forth[0]) == 2


def test_what_is_found_of_other_members_does_not_count_as_finished(place, capsys):
    one, two = write_colour_model(place / "one.onnx"), write_colour_model(place / "two.onnx", scores=(0.5, 0.5))
    run = ["detect", "photos", "-o", "out", "-q", "-w", str(one)]
    both = [*run, "-w", str(two)]
    assert main([*both, "--limit", "1"]) == 0
    assert main([*both, "--resume"]) == 6
    capsys.readouterr()
    for words in (run, [*both, "--ensemble-weights", "2,1"], [*run, "-w", str(one)], [*both, "-w", str(two)]):
        assert main([*words, "--resume"]) == 1
        assert "cannot go on with other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-w", "one.onnx", "--ensemble-weights", "1,2"], "2 numbers for 1 weight files"),
        (["-w", "one.onnx", "-w", "one.onnx", "--ensemble-weights", "1,0"], "not a list of positive numbers"),
        (["-w", "one.onnx", "-w", "one.onnx", "--ensemble-weights", "a"], "not a list of positive numbers"),
    ],
)
def test_weights_that_do_not_fit_are_told(place, capsys, words, told):
    write_colour_model(place / "one.onnx")
    assert main(["detect", "photos", *words]) == 2
    assert told in capsys.readouterr().err


def segmenter(path: Path, seed: int, names: tuple[str, ...] = NAMES) -> str:
    """A small FCN with random weights as a checkpoint, and its classes."""
    torch.manual_seed(seed)
    model = small("fcn", backbone="mobilenet_v3_small", seed=seed)
    from detseg import catalog

    config = catalog.module("fcn").config_to_json(model.config)
    card = Card(
        model="fcn", config=config, categories=Categories(tuple(range(3)), names), preprocess=Preprocess(HW),
        task="segment",
    )  # fmt: skip
    save(path, card, model.state_dict())
    return str(path)


def maps(folder: str) -> np.ndarray:
    return np.stack([cv2.imread(f"{folder}/index/{number}.png", cv2.IMREAD_UNCHANGED) for number in range(3)])


def segment(out: str, *words: str) -> np.ndarray:
    assert main(["segment", "photos", "-o", out, "-q", "--save", "index", *words]) == 6
    return maps(out)


def test_segmenters_of_both_runtimes_answer_together(place, capsys):
    """The torch one is unsure everywhere, the ONNX one sure: the mean follows the latter unless it counts little."""
    unsure = segmenter(place / "unsure.safetensors", 1, ("red", "background", "green"))
    sure = str(write_colour_map_model(place / "sure.onnx"))
    alone = {"sure": segment("sure", "-w", sure), "unsure": segment("unsure", "-w", unsure)}
    together = segment("both", "-w", sure, "-w", unsure)
    assert (together == alone["sure"]).mean() > 0.99  # as ids of the first
    swapped = segment("swapped", "-w", unsure, "-w", sure)
    own_ids = {IDS[NAMES.index(name)]: i for i, name in enumerate(("red", "background", "green"))}
    translated = np.vectorize(own_ids.get)(together)
    assert (swapped == translated).mean() > 0.999
    hardly = segment("hardly", "-w", unsure, "-w", sure, "--ensemble-weights", "1000000,1")
    assert (hardly == alone["unsure"]).mean() > 0.999
    assert (alone["unsure"] != swapped).mean() > 0.2
    twice = segment("twice", "-w", unsure, "-w", unsure)
    np.testing.assert_array_equal(twice, alone["unsure"])
    capsys.readouterr()
    assert main(["segment", "photos", "-o", "twice", "-q", "--save", "index", "-w", unsure, "--resume"]) == 1
    assert "cannot go on with other settings" in capsys.readouterr().err


def test_views_of_a_segmenter_are_noticed_and_noted(place, capsys):
    unsure = segmenter(place / "unsure.safetensors", 2)
    sure = str(write_colour_map_model(place / "sure.onnx"))
    plain = segment("plain", "-w", unsure)
    assert (segment("views", "-w", unsure, "--tta") != plain).any()
    tiled = segment("tiles", "-w", unsure, "--tile", "64", "--overlap", "32")
    assert (segment("tiled_views", "-w", unsure, "--tile", "64", "--overlap", "32", "--tta") != tiled).any()
    capsys.readouterr()
    np.testing.assert_array_equal(segment("exported", "-w", sure, "--tta"), segment("as_is", "-w", sure))
    assert "note: an exported model takes only frames of its own size" in capsys.readouterr().err
    assert main(["segment", "photos", "-o", "views", "-q", "--save", "index", "-w", unsure, "--resume"]) == 1


def test_segmenters_of_other_classes_are_refused_by_name(place, capsys):
    one, two = segmenter(place / "one.safetensors", 1), segmenter(place / "two.safetensors", 1, ("sky", "red", "road"))
    assert main(["segment", "photos", "-w", one, "-w", two]) == 4
    told = capsys.readouterr().err
    assert "must know the same classes" in told
    assert "two.safetensors lacks background, green" in told
    assert "one.safetensors lacks sky, road" in told


@pytest.fixture
def data(place) -> Path:
    """A mask folder on which the ONNX segmenter is right everywhere, the torch one hardly anywhere."""
    palette = np.zeros((256, 3), np.uint8)
    for number in range(3):
        image = colour_picture(HW, (10, 20, 60, 50), (70, 5, 90, 60))
        (place / "data" / "images").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / "data" / "images" / f"{number}.png"), image[..., ::-1])
        labels = np.zeros(HW, np.uint8)
        labels[20:50, 10:60], labels[5:60, 70:90] = 1, 2
        write_mask(place / "data" / "masks" / f"{number}.png", labels, palette)
    (place / "data" / "classes.txt").write_text("0 background\n1 red\n2 green\n")
    return place / "data"


def measured(capsys, *words: str) -> dict[str, object]:
    code = main(["eval", *words, "--json", "--exist-ok"])
    told = capsys.readouterr()
    assert code == 0, told.err
    return json.loads(told.out)


def test_an_ensemble_of_segmenters_is_measured(data, capsys):
    sure, unsure = str(write_colour_map_model(Path("sure.onnx"))), segmenter(Path("unsure.safetensors"), 1)
    alone = measured(capsys, unsure, str(data))
    both = measured(capsys, "-w", sure, "-w", unsure, str(data), "--tta")
    assert alone["metrics"]["miou"] < 0.7
    assert both["metrics"]["miou"] > 0.95
    assert both["weights"] == [sure, unsure]
    assert both["ensemble_weights"] == [1, 1]
    twice = measured(capsys, "-w", unsure, "-w", unsure, str(data))
    assert twice["metrics"] == alone["metrics"]


def test_an_ensemble_of_detectors_is_measured(place, capsys):
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
    images, annotations = [], []
    for number in range(3):
        left = 10 + 5 * number
        images.append({"id": number, "file_name": f"photos/{number}.png", "height": HW[0], "width": HW[1]})
        for category, (x1, y1, x2, y2) in ((1, (left, 20, 60, 50)), (2, (70, 5, 90, 60))):
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": category, "bbox": box, "iscrowd": 0,
                 "area": box[2] * box[3]}
            )  # fmt: skip
    truth = {"images": images, "annotations": annotations, "categories": categories}
    (place / "truth.json").write_text(json.dumps(truth))
    reds = str(write_colour_model(place / "reds.onnx", (64, 96), ("red", "other")))
    greens = str(write_colour_model(place / "greens.onnx", (64, 96), ("another", "green")))
    alone = measured(capsys, reds, "truth.json", "--report")
    both = measured(capsys, "-w", reds, "-w", greens, "truth.json", "--report")
    assert [round(told["metrics"]["ap"], 3) for told in (alone, both)] == [0.5, 1.0]  # each knows one of two classes
    assert both["model"] == ["yolo", "yolo"]
