"""The command's words: what is refused, what is written, what a resumed or repeated run says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from detseg.annotations.sample import write_sample
from detseg.checkpoints import read_card
from detseg.cli.main import main

TINY = [
    "--imgsz",
    "64",
    "--epochs",
    "1",
    "--batch",
    "8",
    "--workers",
    "0",
    "--backbone-weights",
    "none",
    "--option",
    "neck_channels=16",
]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    return write_sample(tmp_path_factory.mktemp("shapes"), format="yolo", images=10, seed=2, hw=(64, 96))


def test_a_run_leaves_what_repeats_it(shapes, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", str(shapes), *TINY, "--out", str(out), "--option", "box_loss=giou"]) == 0
    told = capsys.readouterr()
    assert f"{out}/weights/best.safetensors" in told.out
    assert "8 pictures" in told.err
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["options"] == {"neck_channels": 16, "box_loss": "giou"}
    assert (config["epochs"], config["backbone_weights"]) == (1, None)
    card = read_card(out / "weights" / "best.safetensors")
    assert card.config["box_loss"] == "giou"
    assert card.categories.names == ("circle", "square", "triangle")
    assert {"ap", "ap50"} <= set(card.training["metrics"])
    assert "after epoch 1" in (out / "report.html").read_text()
    assert {path.name for path in (out / "samples").iterdir()} == {
        f"{picture}-epoch-{epoch:04d}.jpg" for picture in (0, 1) for epoch in (0, 1)
    }  # both validation pictures, as annotated and as found

    assert main(["train", "--config", str(out / "config.yaml"), "--out", str(tmp_path / "again"), "-q"]) == 0
    assert yaml.safe_load((tmp_path / "again" / "config.yaml").read_text()) == config
    capsys.readouterr()
    assert main(["train", "--resume", str(out)]) == 0
    assert "finished already" in capsys.readouterr().err
    assert main(["train", str(shapes), *TINY, "--out", str(out), "--exist-ok"]) == 1
    assert "holds a run already" in capsys.readouterr().err


def test_a_run_starts_from_a_checkpoint_of_other_classes(shapes, tmp_path, capsys):
    first = tmp_path / "first"
    assert main(["train", str(shapes), *TINY, "--out", str(first), "-q"]) == 0
    two = tmp_path / "two"
    write_sample(two, format="voc", images=6, seed=3, hw=(64, 96))
    for xml in (two / "Annotations").glob("*.xml"):
        xml.write_text(xml.read_text().replace("triangle", "square"))
    for listed in two.glob("*.txt"):  # the list of classes
        listed.unlink()
    capsys.readouterr()
    weights = str(first / "weights" / "best.safetensors")
    assert main(["train", str(two), *TINY, "-w", weights, "--out", str(tmp_path / "second")]) == 0
    told = capsys.readouterr().err
    assert "the checkpoint knows 2 of the 2 classes" in told
    assert "start anew" not in told


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([], 2, "name the data set"),
        (["nowhere"], 3, "nowhere"),
        (["DATA", "-m", "yollo"], 1, "did you mean yolo"),
        (["DATA", "--option", "boxloss=giou"], 1, "no option boxloss"),
        (["DATA", "--option", "giou"], 2, "is not NAME=VALUE"),
        (["DATA", "--lr", "-1"], 1, "lr: "),
        (["DATA", "--split", "trian"], 3, "trian"),
        (["DATA", "-w", "gone.safetensors"], 4, "gone.safetensors"),
        (["--resume", "RUN"], 1, "no run to resume"),
        (["DATA", "--epoch", "3"], 2, "--epochs"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(words, code, told, shapes, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [str(shapes) if w == "DATA" else str(tmp_path) if w == "RUN" else w for w in words]
    assert main(["train", *given, *([] if not words or "--resume" in words else TINY)]) == code
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


def test_a_refused_run_leaves_no_folder(shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(shapes), "--option", "boxloss=giou"]) == 1
    assert not (tmp_path / "runs").exists()


def test_a_backbone_whose_weights_cannot_be_had_says_where_to_put_them(shapes, tmp_path, capsys, monkeypatch):
    import urllib.error
    import urllib.request

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(urllib.request, "urlopen", offline)
    assert main(["train", str(shapes), "--backbone", "resnet18", "--out", str(tmp_path / "run")]) == 4
    told = capsys.readouterr().err
    assert "resnet18" in told
    assert str(tmp_path / "cache") in told
    assert not (tmp_path / "run").exists()


def test_any_backbone_trains_from_a_local_file(shapes, tmp_path):
    import torch
    import torchvision

    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    words = [w if w != "none" else str(tmp_path / "resnet18.pth") for w in TINY]
    out = tmp_path / "run"
    assert main(["train", str(shapes), *words, "--backbone", "resnet18", "--out", str(out), "-q"]) == 0
    assert read_card(out / "weights" / "best.safetensors").config["backbone"] == "resnet18"
