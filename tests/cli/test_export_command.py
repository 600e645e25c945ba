"""`detseg export`: one command from trained weights to a file that runs without torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from detseg import catalog
from detseg.annotations import Categories
from detseg.checkpoints import Card, read_card, save, zoo
from detseg.cli.main import main
from detseg.detectors import yolo
from detseg.errors import ExportError
from detseg.preprocess import Preprocess
from detseg.runtimes import export


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A small YOLO with random weights."""
    torch.manual_seed(0)
    settings = yolo.YOLOConfig(num_classes=2, strides=(32,), anchors=(((40, 40), (80, 60)),), neck_channels=16)
    config = yolo.config_to_json(settings)
    card = Card(
        model="yolo",
        config=config,
        categories=Categories.from_names(["a", "b"]),
        preprocess=Preprocess((64, 64)),
    )
    path = tmp_path / "best.safetensors"
    save(path, card, catalog.build("yolo", config, 2).state_dict())
    return path


def test_the_model_lies_beside_its_weights_and_is_told(weights, capsys):
    assert main(["export", str(weights)]) == 0
    out = capsys.readouterr().out
    model = weights.with_suffix(".onnx")
    assert out.startswith(f"{model}: ")
    assert "against torch on 4 frames: boxes" in out
    assert read_card(model) == read_card(weights)


@pytest.fixture
def no_export(monkeypatch):
    """Notes what would be exported, instead of the seconds it takes."""
    asked = []

    def note(path, out, **settings):
        asked.append((path, out, settings))
        small = export.Difference(0.0, 0.0)
        return export.ExportReport(out, 1, settings["half"], 18, (64, 64), 4, small, small)

    monkeypatch.setattr(export, "export_onnx", note)
    return asked


def test_spellings_and_places(weights, no_export, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "place").mkdir()
    for args in (
        [str(weights), "--out", "place", "--no-half", "--imgsz", "64x96"],
        ["--weights", str(weights), "--include", "onnx", "-o", "m.onnx"],
        [f"model={weights}", "imgsz=96", "--json"],
    ):
        capsys.readouterr()
        assert main(["export", *args]) == 0
    beside = weights.with_suffix(".onnx")
    assert no_export == [
        (weights, Path("place/best.onnx"), {"half": False, "frame_hw": (64, 96)}),
        (weights, Path("m.onnx"), {"half": True, "frame_hw": None}),
        (weights, beside, {"half": True, "frame_hw": (96, 96)}),
    ]
    assert json.loads(capsys.readouterr().out)["path"] == str(beside)


def test_weights_that_came_with_detseg_are_not_exported_into_the_installation(
    weights, no_export, tmp_path, monkeypatch
):
    monkeypatch.setattr(zoo, "folder", lambda: weights.parent)
    place = tmp_path / "elsewhere"
    place.mkdir()
    monkeypatch.chdir(place)
    assert main(["export", str(weights)]) == 0
    assert no_export[0][1] == Path("best.onnx")


def test_refusals(weights, no_export, capsys):
    assert main(["export"]) == 2
    assert main(["export", str(weights), "--out", str(weights)]) == 2
    assert main(["export", str(weights), "--format", "coreml"]) == 2
    assert main(["export", str(weights.with_name("bst.safetensors"))]) == 4
    assert "did you mean" in capsys.readouterr().err
    weights.write_bytes(b"")
    assert main(["export", str(weights)]) == 4
    assert no_export == []


def test_a_model_that_differs_gives_code_5(weights, monkeypatch, capsys):
    def differ(*_, **__):
        raise ExportError("the exported model differs from its source: boxes 3 px")

    monkeypatch.setattr(export, "export_onnx", differ)
    assert main(["export", str(weights)]) == 5
    assert capsys.readouterr() == ("", "error: the exported model differs from its source: boxes 3 px\n")
