"""Localiser and sliding windows from the command line: trained on every format, resumed, used for crops."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detseg.annotations import Categories
from detseg.annotations.sample import write_sample
from detseg.checkpoints import Card, save
from detseg.cli.main import main
from detseg.detectors import localiser
from detseg.detectors.localiser import LocaliserConfig
from detseg.preprocess import Preprocess

CPU = ["--device", "cpu"]
TINY = [*CPU, "--imgsz", "64", "--epochs", "1", "--batch", "4", "--workers", "0", "--backbone-weights", "none"]


def weights_that_say(path: Path, y: list[float]) -> Path:
    """A localiser of two classes that answers `y` to every picture."""
    config = LocaliserConfig(2, backbone="mobilenet_v3_small", width=4, hidden=4, pool=1)
    model = localiser.build(config)
    torch.nn.init.zeros_(model.head[-1].weight)
    model.head[-1].bias.data = torch.tensor(y, dtype=torch.float32)
    categories = Categories.from_names(["mug", "lamp"])
    card = Card(
        model="localiser", config=localiser.config_to_json(config), categories=categories,
        preprocess=Preprocess((64, 64)),
    )  # fmt: skip
    save(path, card, model.state_dict())
    return path


def test_products_are_cut_out_one_a_picture(tmp_path):
    """It says the middle half of the frame, a lamp more than a mug. Of 80 x 60 pixels laid into 64 x 64 by 0.8, with 8
    pixels above, these are the columns 20 to 60 and the rows 10 to 50."""
    (tmp_path / "photos").mkdir()
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    for name in ("a.png", "b.png"):
        assert cv2.imwrite(str(tmp_path / "photos" / name), image)
    sure = weights_that_say(tmp_path / "sure.safetensors", [3, 0, 0, 0, 0, 0, 0.2])
    words = ["detect", str(tmp_path / "photos"), *CPU, "--save", "crops", "--conf", "0.1", "-q"]
    assert main([*words, "-w", str(sure), "--out", str(tmp_path / "found")]) == 0
    crops = sorted((tmp_path / "found" / "crops").rglob("*_*"))
    assert [crop.relative_to(tmp_path / "found").as_posix() for crop in crops] == [
        "crops/lamp/a_1.jpg", "crops/lamp/b_1.jpg",
    ]  # fmt: skip
    assert all(cv2.imread(str(crop)).shape == (40, 40, 3) for crop in crops)
    nothing = weights_that_say(tmp_path / "nothing.safetensors", [-5, 0, 0, 0, 0, 0, 0.2])
    assert main([*words, "-w", str(nothing), "--out", str(tmp_path / "none")]) == 0
    assert not list((tmp_path / "none").rglob("*.jpg"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "format", "more"),
    [
        ("localiser", "voc", ["--backbone", "mobilenet_v3_small"]),
        ("sliding-window", "coco", ["--option", "positives=2", "--option", "clusters=3"]),
        ("sliding-window-lenet5", "yolo", ["--option", "positives=2", "--option", "clusters=3"]),
    ],
)
def test_they_train_on_every_format_and_go_on(tmp_path, capsys, name, format, more):
    data, out = write_sample(tmp_path / "data", format=format, images=5, seed=3, hw=(64, 64)), tmp_path / "run"
    assert main(["train", str(data), "-m", name, *TINY, *more, "--out", str(out)]) == 0
    told = capsys.readouterr().err
    assert ("pictures show several objects" in told) == (name == "localiser")
    settings = out / "config.yaml"
    settings.write_text(settings.read_text().replace("epochs: 1\n", "epochs: 2\n"))
    assert main(["train", "--resume", str(out)]) == 0
    assert "epoch 2/2" in capsys.readouterr().err
    weights = str(out / "weights" / "best.safetensors")
    assert main(["eval", weights, str(data), "--split", "val", *CPU, "-q"]) == 0


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("sliding-window", ["--backbone", "mobilenet_v3_small"], "mobilenet_v3_small has an operation"),
        ("sliding-window", ["--option", "windows=[]"], "there must be windows"),
        ("sliding-window-lenet5", ["--backbone-weights", "imagenet"], "lenet5 has no weights to start from"),
        ("localiser", ["--option", "box_loss=l3"], "box_loss must be one of giou, l2"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(tmp_path, capsys, name, more, words):
    data = write_sample(tmp_path / "data", images=3, seed=3, hw=(64, 64))
    assert main(["train", str(data), "-m", name, *TINY, *more, "--out", str(tmp_path / "run")]) != 0
    told = capsys.readouterr().err
    assert words in told
    assert "defect of detseg" not in told
    assert not (tmp_path / "run").exists()
