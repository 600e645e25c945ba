"""kill -9 at the worst moments of a run: what is resumed ends as the run that was left alone, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kill_resume import differences
from detseg.annotations.sample import write_sample
from tests.killed_runs import in_turn

# the third kill is between its phases: the weights of the first are kept, its state is not
DETECTOR = (
    *("-m", "yolo", "--imgsz", "64", "--option", "neck_channels=16", "--mixup", "0.3"),
    *("--finetune-at", "2", "--layer-decay", "0.5"),
)
SEGMENTER = (
    "-m",
    "unet-valid",
    "--imgsz",
    "32",
    "--option",
    "width=8",
    "--option",
    "steps=2",
    "--option",
    "dropout=0.5",
)


@pytest.mark.parametrize("model", [DETECTOR, SEGMENTER], ids=["detector in two phases", "segmenter"])
def test_killed_four_times_it_ends_the_same(model, tmp_path):
    data = write_sample(tmp_path / "data", format="coco", images=12, seed=3, hw=(48, 64))
    words = [
        *("train", str(data), *model, "--epochs", "3", "--batch", "2", "--accumulate", "2", "--checkpoint-every", "2"),
        *("--eval-every", "1", "--workers", "0", "--backbone-weights", "none", "--device", "cpu", "--patience", "9"),
    ]
    whole, killed, told = in_turn("loop", words, tmp_path)
    assert not list(differences(whole, killed))
    assert "the run was finished already" in told
    for run in (whole, killed):
        epochs = [line.split(",")[0] for line in Path(run, "results.csv").read_text().splitlines()[1:]]
        assert epochs == ["1", "2", "3"]
    assert not list(killed.rglob(".part-*"))
