"""Two processes that share every batch against one that has it for itself; and what becomes of a run that loses one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from detseg.annotations import AnnotationSet
from detseg.annotations.sample import write_sample
from detseg.checkpoints import load, read_card
from detseg.cli import train_validation
from detseg.cli.main import main
from detseg.errors import DetsegError
from detseg.images import ImageFile
from detseg.parts.batch_share import normaliser, sharing
from detseg.pipeline import Pace, detect_files
from detseg.postprocess import Selection
from detseg.runtimes.live import LiveRuntime
from detseg.training.config import TrainConfig
from detseg.training.data import EpochBatches
from detseg.training.folder import RunFolder, state_file
from detseg.training.loop import Trainer
from detseg.training.processes import Processes, start
from detseg.training.setup import prepare

# batch norms that learn see their own part on a CPU; both sides keep theirs as they are
_FROZEN = """
from torch import nn
nn.modules.batchnorm._BatchNorm.train = lambda self, mode=True: nn.Module.train(self, False)
"""

# two ranks as torchrun would have started them, forked so that all is imported once
_AS_TORCHRUN = (
    _FROZEN
    + """
import os, socket, sys

import albumentations, hotcoco, matplotlib.backends.backend_agg
import detseg.cli.train_validation, detseg.training.loop, detseg.training.setup
from detseg.cli.main import main

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
ranks = []
for rank in range(2):
    pid = os.fork()
    if not pid:
        told = {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2,
                "LOCAL_WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": rank}
        os.environ.update({name: str(value) for name, value in told.items()})
        os._exit(int(main(sys.argv[1:])))
    ranks.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in ranks] == [0, 0]
"""
)

# launched by the command itself; the second process kills itself in the middle of the second epoch
_DYING = (
    _FROZEN
    + """
import atexit, os, signal, sys

import detseg.training.loop as loop
from detseg.cli.main import main

if os.environ.get("LOCAL_RANK") == "1":
    losses = loop.Trainer._losses
    def until(self, batch, place, **named):
        if place == (1, 1):
            open(os.environ["DIED"], "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return losses(self, batch, place, **named)
    loop.Trainer._losses = until
else:
    atexit.register(lambda: print("ended in order", file=sys.stderr))
sys.exit(main())
"""
)

YOLO_WORDS = ("-m", "yolo", "--imgsz", "64", "--option", "neck_channels=16", "--mixup", "0.3")
UNET_WORDS = (
    *("-m", "unet-valid", "--imgsz", "32", "--option", "width=8", "--option", "steps=2", "--option", "dropout=0"),
    *("--option", "loss.terms=cross_entropy+dice"),
)


def words(data: Path, model: tuple[str, ...], out: Path) -> list[str]:
    return [
        *("train", str(data), *model, "--epochs", "2", "--batch", "3", "--accumulate", "2", "--eval-every", "1"),
        *("--optimizer", "sgd", "--lr", "0.05", "--workers", "0", "--backbone-weights", "none", "--device", "cpu"),
        *("--checkpoint-every", "1", "--out", str(out)),
    ]


def driven(driver: str, *line: str, place: Path) -> subprocess.CompletedProcess[str]:
    script = place / "driver.py"
    script.write_text(driver)
    return subprocess.run(
        [sys.executable, str(script), *line], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, check=False, timeout=600,
    )  # fmt: skip


@pytest.fixture
def frozen_norms(monkeypatch) -> None:
    kind = nn.modules.batchnorm._BatchNorm
    monkeypatch.setattr(kind, "train", lambda self, mode=True: nn.Module.train(self, False))


def _own(parts: dict[str, Any]) -> dict[str, torch.Tensor]:
    return parts["model"]


def _averaged(parts: dict[str, Any]) -> dict[str, torch.Tensor]:
    return parts["average"]["state"]


def _distance(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours if ours[name].numel())


def expect_same_run(one: Path, two: Path) -> None:
    """Within 1e-5 all weights and their averages, losses too; and weights that moved by much more than that."""
    states = [torch.load(state_file(run), weights_only=True) for run in (one, two)]
    weights, averages = ([pick(state["parts"]) for state in states] for pick in (_own, _averaged))
    for ours, theirs in (weights, averages):
        assert ours.keys() == theirs.keys()
        assert _distance(ours, theirs) < 1e-5
    assert _distance(weights[0], averages[0]) > 1e-3
    rows = [state["state"]["rows"] for state in states]
    assert len(rows[0]) == len(rows[1]) == 2
    for ours, theirs in zip(*rows, strict=True):
        for name in (name for name in ours if name.startswith("loss/")):
            assert float(theirs[name]) == pytest.approx(float(ours[name]), rel=1e-4)


def expect_same_numbers(two: Path, data: Path) -> None:
    """The numbers that the processes merged are those of one process with the same weights, to the last bit."""
    prepared = prepare(TrainConfig.load(two / "config.yaml", devices=1), "x")
    prepared.model.load_state_dict(load(two / "weights" / "last.safetensors")[1])
    with start(prepared.config) as group:
        numbers = train_validation.of(prepared, group, lambda *_: None)(prepared.model)
    assert read_card(two / "weights" / "last.safetensors").training["metrics"] == numbers


@pytest.mark.parametrize("model", [UNET_WORDS, (*UNET_WORDS, "--finetune-at", "1")], ids=["", "two phases"])
def test_a_segmenter_learns_alike_in_two_processes(model, frozen_norms, tmp_path):
    data = write_sample(tmp_path / "data", format="coco", images=12, seed=3, hw=(48, 64))
    assert main(words(data, model, tmp_path / "one")) == 0
    done = driven(_AS_TORCHRUN, *words(data, model, tmp_path / "two"), place=tmp_path)
    assert done.returncode == 0, done.stderr
    expect_same_run(tmp_path / "one", tmp_path / "two")
    expect_same_numbers(tmp_path / "two", data)
    assert read_card(tmp_path / "two" / "weights" / "last.safetensors").training["metrics"]["miou"] > 0
    assert done.stdout.count("best mean IoU") == 1
    assert done.stderr.count("epoch 1/2: ") == 1
    assert "6 pictures a step (2 batches of 3 on 2 devices)" in done.stderr


@pytest.mark.slow
def test_a_detector_that_loses_a_process_ends_at_once_and_is_resumed(frozen_norms, tmp_path, monkeypatch):
    data = write_sample(tmp_path / "data", format="coco", images=12, seed=3, hw=(48, 64))
    line = words(data, YOLO_WORDS, tmp_path / "two")
    monkeypatch.setenv("DIED", str(tmp_path / "died"))
    lost = driven(_DYING, *line, "--devices", "2", place=tmp_path)
    assert time.time() - (tmp_path / "died").stat().st_mtime < 50
    assert lost.returncode == 1
    assert "Traceback" not in lost.stderr
    assert "ended in order" not in lost.stderr  # else threads of torch's, which wait for the lost one, may abort it
    assert "process" in lost.stderr.splitlines()[-1]
    assert "--resume" in lost.stderr
    assert "epoch 1/2: " in lost.stderr
    assert "epoch 2/2: " not in lost.stderr
    resumed = driven(_AS_TORCHRUN, "train", "--resume", str(tmp_path / "two"), place=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "epoch 1/2: " not in resumed.stderr
    assert main(words(data, YOLO_WORDS, tmp_path / "one")) == 0
    expect_same_run(tmp_path / "one", tmp_path / "two")
    expect_same_numbers(tmp_path / "two", data)


def test_every_picture_of_a_batch_goes_to_one_process():
    config = TrainConfig(data="x", batch=5, seed=3, mosaic=0.5)
    whole = list(EpochBatches(17, config))
    for count in (2, 3, 7):
        parts = [list(EpochBatches(17, config, part=(rank, count))) for rank in range(count)]
        for batch, *shares in zip(whole, *parts, strict=True):
            assert sorted(ticket for share in shares for ticket in share) == sorted(batch)
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_pictures_are_measured_in_the_batches_of_one_process():
    shares = [train_validation.own_share(11, 2, rank, 3) for rank in range(3)]
    assert shares == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10]]
    assert train_validation._in_order(shares, 11, 2) == list(range(11))


@dataclass
class OneOf:
    """A process of two: the second one's share is known when the first one asks."""

    rank: int
    shares: list[Any]
    count: int = 2

    @property
    def first(self) -> bool:
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        self.shares.insert(0, value)
        return self.shares

    def of_first(self, value: Any) -> Any:
        return value


def test_detections_of_two_processes_are_measured_as_those_of_one(tmp_path):
    data = write_sample(tmp_path / "data", format="coco", images=12, seed=3, hw=(48, 64))
    config = TrainConfig(
        data=str(data), split="train", val_split="train", imgsz=64, batch=2, device="cpu", backbone_weights=None,
        options={"neck_channels": 16},
    )  # fmt: skip
    prepared = prepare(config, "x")
    for layer in prepared.model.modules():  # it is sure of too little to say anything otherwise
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    pictures = prepared.truth
    files = [ImageFile(pictures.image_path(i), PurePosixPath(name)) for i, name in enumerate(pictures.image_files)]
    runtime = LiveRuntime(prepared.card, prepared.model)
    outcomes = detect_files(files, runtime, Selection.for_measuring(), pace=Pace(2))
    found = [outcome.found for outcome in outcomes]
    # of what an untrained model says, every third answer is true: numbers that are not 0
    index = np.concatenate([np.full(len(one.boxes[::3]), i) for i, one in enumerate(found)])
    truth = AnnotationSet.from_columns(
        root=pictures.root, format="coco", categories=pictures.categories, image_files=pictures.image_files,
        image_hw=pictures.image_hw, image_index=index, boxes=np.concatenate([one.boxes[::3] for one in found]),
        labels=np.concatenate([one.labels[::3] for one in found]),
    )  # fmt: skip
    judged = replace(prepared, validation=truth)
    with start(config) as alone:
        one = train_validation.of(judged, alone, lambda *_: None)(prepared.model)
    shares: list[Any] = []
    train_validation.of(judged, OneOf(1, shares), lambda *_: None)(prepared.model)
    two = train_validation.of(judged, OneOf(0, shares), lambda *_: None)(prepared.model)
    assert [len(share) for share in shares] == [6, 4]  # 10 pictures in batches of 2
    assert two == one
    assert 0 < one["ap"] < 1


def test_a_sum_over_parts_is_divided_by_the_count_of_the_whole():
    sums, counts, pictures = [6.0, 3.0], [2, 1], [3, 1]  # two processes
    assert normaliser(0) == 1
    assert normaliser(torch.tensor(0)) == 1
    loss = 0.0
    for own, count, own_pictures in zip(sums, counts, pictures, strict=True):
        weight = own_pictures / sum(pictures)
        with sharing(weight, lambda mine, count=count: [mine[0] - count + sum(counts)]):
            loss += weight * own / normaliser(torch.tensor(count))
    assert loss == pytest.approx(sum(sums) / sum(counts))
    with sharing(0.0, list):
        assert normaliser(0) == 1.0


@pytest.mark.parametrize(
    ("model", "count", "told"),
    [("yolo", 9, "a batch of 3 cannot be shared out to 9"), ("rcnn", 2, "leave --devices out")],
)
def test_what_cannot_be_shared_is_refused(model, count, told, tmp_path, monkeypatch):
    monkeypatch.setattr(Processes, "count", count)
    data = write_sample(tmp_path / "data", format="coco", images=5, seed=3, hw=(48, 64))
    config = TrainConfig(
        data=str(data), model=model, imgsz=64, batch=3, device="cpu", backbone_weights=None, workers=0
    )  # fmt: skip
    prepared = prepare(config, "x")
    folder = RunFolder(tmp_path / "run", prepared.card)
    trainer = Trainer(prepared.model, prepared.card.preprocess, prepared.data, config, folder, dict, print)
    with pytest.raises(DetsegError, match=told):
        trainer.run()
