"""A file of torchvision's goes the whole way: imported, it detects, is measured, exported and learns other classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import detection

from detseg.annotations import load
from detseg.annotations.sample import write_sample
from detseg.checkpoints import read_card
from detseg.checkpoints.torchvision_classes import coco_categories
from detseg.cli.main import main

pytestmark = pytest.mark.slow
LEARN = ("--epochs", "1", "--batch", "2", "--workers", "0", "--device", "cpu", "--mosaic", "0", "--quiet")


def imported(builder: str, folder: Path) -> str:
    """torchvision's model of 90 classes with random weights, as detseg's checkpoint."""
    torch.manual_seed(0)
    theirs = getattr(detection, builder)(weights=None, weights_backbone=None, num_classes=91)
    torch.save(theirs.state_dict(), folder / f"{builder}.pth")
    assert main(["weights", "import", str(folder / f"{builder}.pth")]) == 0
    return str(folder / f"{builder}.safetensors")


def coco_like(data: Path) -> Path:
    """The same data set, its classes called as three of COCO's, which do not lie side by side there."""
    ids = {1: (17, "cat"), 2: (27, "backpack"), 3: (90, "toothbrush")}
    for file in data.rglob("*.json"):
        content = json.loads(file.read_text())
        old = sorted(category["id"] for category in content["categories"])
        new = {before: ids[1 + place] for place, before in enumerate(old)}
        content["categories"] = [{"id": number, "name": name} for number, name in new.values()]
        for row in content["annotations"]:
            row["category_id"] = new[row["category_id"]][0]
        file.write_text(json.dumps(content))
    return data


@pytest.mark.parametrize("builder", ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"])
def test_it_detects_with_cocos_ids_is_measured_and_learns(builder, tmp_path, capsys):
    weights = imported(builder, tmp_path)
    data = coco_like(write_sample(tmp_path / "data", images=4, hw=(96, 128)))
    out = tmp_path / "found"
    command = ["detect", str(data), "-w", weights, "--save", "coco", "-o", str(out), "--conf", "0.0005", "-q"]
    assert main([*command, "--max-det", "30"]) == 0
    rows = json.loads((out / "predictions.json").read_text())
    assert rows
    assert {row["category_id"] for row in rows} <= set(coco_categories().ids)
    capsys.readouterr()
    assert main(["eval", weights, str(data), "-o", str(tmp_path / "eval"), "--json", "-q"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in report["metrics"]["per_class"]] == list(load(data, "val").categories.names)
    run = tmp_path / "run"
    assert main(["train", str(data), "-w", weights, "-o", str(run), *LEARN]) == 0
    card, before = read_card(run / "weights" / "best.safetensors"), read_card(weights)
    assert card.model == before.model
    assert card.categories.ids == (17, 27, 90)
    assert (card.preprocess.mean, card.preprocess.std) == (before.preprocess.mean, before.preprocess.std)
    assert np.isfinite(card.training["metrics"]["ap"])


def test_an_ssd_is_exported_and_says_the_same(tmp_path, capsys):
    weights = imported("ssdlite320_mobilenet_v3_large", tmp_path)
    assert main(["export", weights]) == 0
    onnx = Path(weights).with_suffix(".onnx")
    assert read_card(onnx).categories.ids == coco_categories().ids
    data = write_sample(tmp_path / "data", images=3, hw=(96, 128))
    found = {}
    for file in (weights, onnx):
        out = tmp_path / Path(file).suffix[1:]
        assert (
            main(["detect", str(data), "-w", str(file), "--save", "coco", "-o", str(out), "--conf", "0.0005", "-q"])
            == 0
        )
        found[out.name] = json.loads((out / "predictions.json").read_text())
    assert len(found["onnx"]) == len(found["safetensors"]) > 0
    scores = [np.sort([row["score"] for row in rows]) for rows in found.values()]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)
