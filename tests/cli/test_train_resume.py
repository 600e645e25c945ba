"""`detseg train --resume` is held to the settings and the data that the run began with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from detseg.annotations.sample import write_sample
from detseg.cli.main import main
from tests.cli.test_train_command import TINY


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> tuple[Path, Path]:
    """A data set, and a run on it that is finished."""
    place = tmp_path_factory.mktemp("begun")
    data = write_sample(place / "data", format="coco", images=6, seed=2, hw=(64, 96))
    assert main(["train", str(data), *TINY, "--out", str(place / "run"), "-q"]) == 0
    return data, place / "run"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--epochs", "5", "--lr", "0.5"], ["epochs: 1 -> 5", "lr: 0.001 -> 0.5"]),
        (["--option", "box_loss=giou"], ["option box_loss: none -> giou"]),
        (["-m", "ssdlite"], ["model: yolo -> ssdlite"]),
    ],
)
def test_other_settings_are_shown_and_refused(begun, words, told, capsys):
    _, run = begun
    before = (run / "config.yaml").read_text()
    assert main(["train", "--resume", str(run), *words]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.strip() for line in lines[1:-1]] == told
    assert "--force" in lines[-1]
    assert (run / "config.yaml").read_text() == before


def test_what_changes_no_result_may_be_another(begun, capsys):
    data, run = begun
    words = [str(data), "--imgsz", "64", "--workers", "2", "--device", "cpu", "--checkpoint-every", "7"]
    assert main(["train", "--resume", str(run), *words]) == 0
    assert "finished already" in capsys.readouterr().err
    assert yaml.safe_load((run / "config.yaml").read_text())["checkpoint_every"] == 7


@pytest.mark.parametrize("word", ["--out", "--name", "--config"])
def test_a_resumed_run_has_its_own_place(begun, word, capsys):
    assert main(["train", "--resume", str(begun[1]), word, "elsewhere"]) == 2
    assert f"leave {word} out" in capsys.readouterr().err


def test_other_data_are_shown_and_refused_unless_forced(begun, tmp_path, capsys):
    data, run = begun
    (file,) = data.rglob("*train*.json")
    kept = file.read_text()
    truth = json.loads(kept)
    objects = len(truth["annotations"])
    truth["annotations"].pop()
    file.write_text(json.dumps(truth))
    try:
        assert main(["train", "--resume", str(run)]) == 1
        told = capsys.readouterr().err
        assert f"training objects: {objects} -> {objects - 1}" in told
        assert "training fingerprint: " in told
        assert "validation" not in told
        assert main(["train", "--resume", str(run), "--force", "--epochs", "2"]) == 0
        told = capsys.readouterr().err
        assert "epochs: 1 -> 2" in told
        assert "epoch 2/2: " in told
        assert "epoch 1/2: " not in told
        assert yaml.safe_load((run / "config.yaml").read_text())["epochs"] == 2
    finally:
        file.write_text(kept)
