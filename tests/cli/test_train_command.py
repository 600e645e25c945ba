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
    assert "best.safetensors (yolo, 3 classes): " in told
    assert " of the network is taken as it is, all 2 classes are known to it" in told
    assert "start anew" not in told


def test_a_checkpoint_of_another_backbone_tells_what_starts_anew(shapes, tmp_path, capsys):
    first = tmp_path / "first"
    assert main(["train", str(shapes), *TINY, "--out", str(first), "-q"]) == 0
    two = tmp_path / "two"
    write_sample(two, format="yolo", images=6, seed=3, hw=(64, 96))
    (yaml_file,) = two.glob("*.yaml")
    yaml_file.write_text(yaml_file.read_text().replace("triangle", "hexagon"))
    capsys.readouterr()
    weights = str(first / "weights" / "best.safetensors")
    words = ["train", str(two), *TINY, "-w", weights, "--backbone", "mobilenet_v3_small"]
    assert main([*words, "--out", str(tmp_path / "second")]) == 0
    told = capsys.readouterr().err
    assert "circle, square are known to it, hexagon start anew" in told
    assert " that it has not, or in another size, start anew: backbone.net.features.0.0, " in told
    assert " of these are frozen and stay at random numbers; --freeze 0 --learn-bn has all learn" in told


def test_the_rates_are_told_at_the_start_unless_quiet(shapes, tmp_path, capsys):
    words = ["train", str(shapes), *TINY, "--backbone", "mobilenet_v3_small", "--epochs", "3", "--lr", "0.002"]
    words += ["--finetune-at", "1", "--layer-decay", "0.5", "--freeze", "3"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    lines = [line.split() for line in capsys.readouterr().err.splitlines()]
    start = lines.index(["part", "learns", "epochs", "1", "to", "1", "epochs", "2", "to", "3"])
    rows = [[*row[:-4], *row[-2:]] for row in lines[start + 2 : start + 6]]
    assert rows == [
        ["head", "0.002", "0.001"],
        ["backbone,", "stage", "5", "-", "0.0002"],  # half of 0.002 times 0.2
        ["backbone,", "stage", "4", "-", "0.0001"],
        ["backbone,", "stages", "1", "to", "3", "-", "-"],
    ]
    assert main([*words, "--out", str(tmp_path / "quiet"), "-q"]) == 0
    assert capsys.readouterr().err == ""


def test_a_recipe_gives_its_reason_and_what_was_given_otherwise(shapes, tmp_path, capsys):
    first = tmp_path / "first"
    assert main(["train", str(shapes), *TINY, "--out", str(first), "-q"]) == 0
    capsys.readouterr()
    words = ["train", str(shapes), *TINY, "-w", str(first / "weights" / "best.safetensors"), "--learn-bn"]
    assert main([*words, "--transfer", "similar", "--out", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().err
    assert "--transfer head: 8 pictures with " in told
    assert " of 3 classes, which is little data, like what the weights have learnt from" in told
    assert "the head learns alone" in told
    assert "but for what was given: freeze_bn False" in told
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["transfer"], config["freeze_stages"], config["freeze_bn"]) == ("head", "all", False)
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert "finished already" in capsys.readouterr().err


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
        (["DATA", "--finetune-lr", "0.1"], 2, "--finetune-at"),
        (["DATA", "--finetune-at", "1"], 1, "the backbone joins after 1 epochs and there are 1"),
        (["DATA", "--freeze", "most"], 2, "--freeze"),
        (["DATA", "--freeze", "9"], 1, "can freeze 0 to 5 stages, not 9"),
        (["DATA", "--transfer", "heads"], 2, "head"),
        (["DATA", "--transfer", "head"], 1, "would start at random"),  # without weights of its backbone
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
