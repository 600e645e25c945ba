"""TensorBoard's own reader finds in a run's events what the run reported, each step once, resumed or not."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.annotations.sample import write_sample
from detseg.cli.main import main
from detseg.training.loop import EpochDone, StepDone
from detseg.training.tensorboard import EVERY, TensorBoardLog

STEPS = 12


def read(folder: Path) -> Any:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def points(found: Any, tag: str) -> dict[int, float]:
    rows = [(event.step, event.value) for event in found.Scalars(tag)]
    assert len(dict(rows)) == len(rows), "a step is there twice"
    return {step: pytest.approx(value, rel=1e-5) for step, value in rows}


def report(log: TensorBoardLog, first: int, last: int, offset: float = 0.0) -> None:
    """Batches `first` .. `last` of the run, from 1; the loss of each is its number."""
    for done in range(first, last + 1):
        epoch, step = divmod(done - 1, STEPS)
        log(StepDone(epoch, step + 1, STEPS, done + offset))
        if step + 1 == STEPS:
            log(EpochDone(epoch, 5, {"box": epoch + offset}, 0.1, 2.0, 48, {"ap": 0.5}, steps=STEPS))


def test_a_run_that_was_killed_goes_on_without_steps_twice(tmp_path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    log = TensorBoardLog(tmp_path)
    report(log, 1, 31, offset=0.5)  # killed after its state of batch 24 was saved
    log.close()
    again = TensorBoardLog(tmp_path)
    report(again, 25, 48)
    again.close()
    found = read(tmp_path / "tensorboard")
    assert EVERY == 10
    loss = points(found, "step/loss")
    assert list(loss) == [10, 20, 30, 40]
    assert loss[10] == 5.5 + 0.5  # mean of 1 .. 10
    assert loss[30] == 27.5  # of 25 .. 30, as the second process saw them
    assert points(found, "loss/box") == {12: 0.5, 24: 1.5, 36: 2.0, 48: 3.0}
    assert points(found, "epoch/lr") == dict.fromkeys((12, 24, 36, 48), 0.1)
    assert points(found, "epoch/pictures per second") == dict.fromkeys((12, 24, 36, 48), 24.0)
    assert points(found, "val/ap") == dict.fromkeys((12, 24, 36, 48), 0.5)


def test_the_command_writes_numbers_and_pictures(tmp_path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    import cv2

    data = write_sample(tmp_path / "data", format="yolo", images=10, seed=2, hw=(64, 96))
    out = tmp_path / "run"
    words = ["--imgsz", "64", "--epochs", "1", "--batch", "4", "--workers", "0", "--backbone-weights", "none", "-q"]
    words += ["--option", "neck_channels=16", "--tensorboard", "--out", str(out)]
    assert main(["train", str(data), *words]) == 0
    found = read(out / "tensorboard")
    with open(out / "results.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    for name in ("val/ap", *(name for name in row if name.startswith("loss/"))):
        assert points(found, name) == {2: float(row[name])}  # 8 pictures in batches of 4
    kinds = {tag.split("/")[0] for tag in found.Tags()["images"]}
    assert kinds == {"annotated", "found"}
    (picture,) = found.Images(next(tag for tag in found.Tags()["images"] if tag.startswith("annotated")))
    decoded = cv2.imdecode(np.frombuffer(picture.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (64, 96, 3)


def test_without_the_package_nothing_is_begun(tmp_path, capsys, monkeypatch) -> None:
    data = write_sample(tmp_path / "data", format="yolo", images=4, seed=2, hw=(64, 96))
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert main(["train", str(data), "--tensorboard", "--out", str(tmp_path / "run")]) == 1
    assert "pip install 'detseg[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
