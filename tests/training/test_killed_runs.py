"""kill -9 at the worst moments of a run: what is resumed ends as the run that was left alone, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kill_resume import differences
from detseg.annotations.sample import write_sample

# A real command in a forked process that kills itself on the way, so that the moment is no matter of luck.
_DRIVER = """
import os, signal, sys

import albumentations, hotcoco, matplotlib.backends.backend_agg  # once, not in every child
import torch

import detseg.cli.train_validation, detseg.training.setup
import detseg.training.folder as folder
import detseg.training.loop as loop
from detseg.cli.main import main

whole, killed, words = sys.argv[1], sys.argv[2], sys.argv[3:]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def after(room, name, times):
    real, left = getattr(room, name), [times]
    def then(*given, **named):
        answer = real(*given, **named)
        left[0] -= 1
        if not left[0]:
            die()
        return answer
    setattr(room, name, then)

def half_written():
    real, left = torch.save, [3]
    def cut(bundle, path):
        left[0] -= 1
        real(bundle, path)
        if not left[0]:
            os.truncate(path, os.path.getsize(path) // 2)
            die()
    torch.save = cut

MOMENTS = {
    # 3 epochs of 5 batches, a step every 2 batches and at the end, a state every 2 steps and at the end
    "in the first epoch, past a state and a batch of the next step": lambda: after(loop.Trainer, "_losses", 5),
    "half of a state is written": half_written,
    "the epoch's weights are kept, its state is not": lambda: after(folder.RunFolder, "save_weights", 1),
    "the epoch's state is kept, its table is not": lambda: after(folder.RunFolder, "save_state", 2),
}

def child(prepare, line):
    pid = os.fork()
    if not pid:
        prepare()
        os._exit(int(main(line)))
    return os.waitpid(pid, 0)[1]

assert child(lambda: None, [*words, "--out", whole]) == 0
line = [*words, "--out", killed]
for name, prepare in MOMENTS.items():
    assert child(prepare, line) == signal.SIGKILL, name
    line = ["train", "--resume", killed, "-q"]
assert child(lambda: None, line) == 0
assert child(lambda: None, line) == 0
"""

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
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER, str(whole), str(killed), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not list(differences(whole, killed))
    assert "the run was finished already" in done.stderr
    for run in (whole, killed):
        epochs = [line.split(",")[0] for line in Path(run, "results.csv").read_text().splitlines()[1:]]
        assert epochs == ["1", "2", "3"]
    assert not list(killed.rglob(".part-*"))
