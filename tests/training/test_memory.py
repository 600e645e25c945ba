"""Want of memory: what is said, and how the largest batch is looked for. No GPU is needed: the errors are planted."""

from __future__ import annotations

import pytest
import torch
import yaml

from detseg.annotations.sample import write_sample
from detseg.cli.main import main
from detseg.detectors.yolo import YOLO
from detseg.training import memory
from detseg.training.config import TrainConfig
from detseg.training.memory import OutOfMemory, is_want_of_memory, largest, largest_batch, telling_of_memory
from tests.cli.test_train_command import TINY

WANTS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
]


@pytest.mark.parametrize("want", WANTS, ids=lambda error: type(error).__name__)
def test_it_is_told_with_the_next_step(want, tmp_path, capsys, monkeypatch):
    data = write_sample(tmp_path / "data", format="yolo", images=10, seed=2, hw=(64, 96))

    def losses(*_):
        raise want

    monkeypatch.setattr(YOLO, "losses", losses)
    assert main(["train", str(data), *TINY, "--accumulate", "3", "--device", "cpu", "--out", str(tmp_path / "r")]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: out of memory with batches of 8 at 64 pixels")
    assert "--batch 4 --accumulate 6" in told
    assert "--imgsz below 64" in told
    assert "--precision bf16-mixed" in told


def test_remedies_that_are_none_are_left_out():
    config = TrainConfig(data="x", batch=1, precision="bf16-mixed")
    with pytest.raises(OutOfMemory, match="--imgsz") as told, telling_of_memory(config):
        raise MemoryError
    assert "--batch" not in str(told.value)
    assert "--precision" not in str(told.value)


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes differ"), telling_of_memory(TrainConfig(data="x")):
        raise RuntimeError("shapes differ")
    assert not is_want_of_memory(ValueError("out of memory"))


def test_a_killed_worker_is_told():
    with pytest.raises(OutOfMemory, match="fewer --workers"), telling_of_memory(TrainConfig(data="x", workers=7)):
        raise RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed.")


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 7, 8, 37, 100, 1000])
def test_the_largest_that_fits_is_found_in_few_tries(limit):
    tries = []
    assert largest(lambda n: tries.append(n) or n <= limit, 100) == min(limit, 100)
    assert len(tries) == len(set(tries)) <= 15
    assert all(1 <= n <= 100 for n in tries)


def test_the_largest_batch_leaves_a_fifth_of_memory(monkeypatch):
    """A step of n pictures takes 10 n + 30 of 1000, and dies beyond 1000: 77 leave a fifth."""
    peak = [0]

    class Properties:
        total_memory = 1000

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: peak[0])

    def step(model, count):
        peak[0] = 10 * count + 30
        if peak[0] > 1000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        model.weight.data.zero_()

    model = torch.nn.Linear(2, 2)
    before = model.weight.detach().clone()
    assert largest_batch(model, step, torch.device("cpu"), 500) == 77
    assert torch.equal(model.weight, before)
    assert largest_batch(model, step, torch.device("cpu"), 20) == 20
    monkeypatch.setattr(memory, "SPARE", 0.97)
    with pytest.raises(OutOfMemory, match="not even one picture"):
        largest_batch(model, step, torch.device("cpu"), 500)


def test_without_a_gpu_auto_is_the_default(tmp_path, capsys):
    data = write_sample(tmp_path / "data", format="yolo", images=10, seed=2, hw=(64, 96))
    out = tmp_path / "run"
    words = [*TINY, "--batch", "auto", "--device", "cpu", "--out", str(out)]
    assert main(["train", str(data), *words]) == 0
    assert "--batch auto: 16, the default, since there is no GPU to fill" in capsys.readouterr().err
    assert yaml.safe_load((out / "config.yaml").read_text())["batch"] == 16
    assert main(["train", "--resume", str(out), "--batch", "auto"]) == 2
    assert "leave --batch auto out" in capsys.readouterr().err
