"""`detseg train -m faster-rcnn` and `-m mask-rcnn` on data of every format: trained, resumed, measured, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from detseg.annotations.sample import write_sample
from detseg.checkpoints import load, read_card
from detseg.cli.main import main
from detseg.training.loop import Trainer

FEW = ("rpn.train_candidates=60", "rpn.train_kept=40", "rpn.candidates=40", "rpn.kept=20", "box.samples=16")
THIN = ("maps.width=16", "box.fcs=[16]")
MASK = ("mask.convs=[16]", "mask.width=16", "found.kept=20")


def words(model: str, data: Path, out: Path, *more: str) -> list[str]:
    options = [*FEW, *THIN, *(MASK if model == "mask-rcnn" else ())]
    return [
        "train", str(data), "-m", model, "--imgsz", "64", "--batch", "4", "--workers", "0", "--eval-every", "1",
        "--backbone-weights", "none", "--device", "cpu", "--out", str(out), "-q", "--epochs", "2",
        *(word for option in options for word in ("--option", option)), *more,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "format"), [("faster-rcnn", "voc"), ("faster-rcnn", "yolo"), ("mask-rcnn", "coco"), ("mask-rcnn", "yolo")]
)
def test_data_of_any_format_train_a_model_that_is_used_at_once(model, format, tmp_path, capsys):
    data = write_sample(tmp_path / "data", format=format, images=10, seed=2, hw=(64, 96))
    out = tmp_path / "run"
    assert main(words(model, data, out, "--epochs", "1")) == 0, capsys.readouterr().err
    card = read_card(out / "weights" / "best.safetensors")
    assert card.model == model
    assert card.config["maps.width"] == 16
    assert ("mask_ap" in card.training["metrics"]) == (model == "mask-rcnn")
    capsys.readouterr()
    weights = str(out / "weights" / "best.safetensors")
    assert main(["eval", weights, str(data), "-o", str(tmp_path / "eval"), "--json", "-q", "--device", "cpu"]) == 0
    assert ("masks" in json.loads(capsys.readouterr().out)) == (model == "mask-rcnn")


@pytest.mark.parametrize("model", ["faster-rcnn", "mask-rcnn"])
def test_a_resumed_run_draws_the_samples_of_an_uninterrupted_one(model, tmp_path, monkeypatch):
    data = write_sample(tmp_path / "data", format="coco", images=6, seed=2, hw=(64, 96))
    assert main(words(model, data, tmp_path / "whole")) == 0
    epoch = Trainer._epoch

    def killed(self, feed, state):
        if state.epoch == 1:
            raise KeyboardInterrupt
        return epoch(self, feed, state)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_epoch", killed)
        assert main(words(model, data, tmp_path / "parts")) == 130
    assert main(["train", "--resume", str(tmp_path / "parts"), "-q"]) == 0
    whole, parts = (load(tmp_path / run / "weights" / "last.safetensors")[1] for run in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize(
    ("model", "option", "told"),
    [
        ("faster-rcnn", "rpn.nms=0.5", "rpn.nms_iou"),
        ("faster-rcnn", "maps.width=0", "maps: several maps need a pyramid: width must be above 0"),
        ("faster-rcnn", "rpn.sizes=[[16]]", "so: 4 maps need anchors for as many, got 1"),
        ("mask-rcnn", "found.kept=0", "found: min_score and nms_iou must lie in [0, 1], kept must be at least 1"),
        ("mask-rcnn", "clusters=7", "7 anchors cannot be shared out evenly to 5 maps"),
    ],
)
def test_options_that_do_not_fit_are_told_in_a_line(model, option, told, tmp_path, capsys):
    data = write_sample(tmp_path / "data", format="coco", images=4, seed=2, hw=(64, 96))
    assert main(words(model, data, tmp_path / "run", "--option", option)) == 1
    error = capsys.readouterr().err
    assert told in error
    assert "cannot be built so" in error
    assert not (tmp_path / "run").exists()


def test_data_without_masks_or_without_boxes_are_refused_with_a_remedy(tmp_path, capsys):
    data = write_sample(tmp_path / "data", format="coco", images=4, seed=2, hw=(64, 96))
    for file in (data / "annotations").iterdir():
        truth = json.loads(file.read_text())
        for row in truth["annotations"]:
            del row["segmentation"]
        file.write_text(json.dumps(truth))
    assert main(words("mask-rcnn", data, tmp_path / "run")) == 3
    told = capsys.readouterr().err
    assert "mask-rcnn learns from masks" in told
    assert "give them outlines" in told
    for file in (data / "annotations").iterdir():
        file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    assert main(words("faster-rcnn", data, tmp_path / "run")) == 3
    assert "no object to learn from among its 3 training pictures" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
