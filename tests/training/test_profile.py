"""What a profile measures adds up, it leaves nothing behind, and its advice follows from the figures."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detseg.annotations.sample import write_sample
from detseg.cli.main import main
from detseg.cli.train_profile import told
from detseg.training import profile as profiling
from detseg.training.config import TrainConfig
from detseg.training.loop import Trainer
from detseg.training.processes import start
from detseg.training.profile import PARTS, FrameCost, Profile, Stopwatch, advice, measure
from detseg.training.setup import prepare

GB = 10**9
# a step of one second in which nothing stands out: on a GPU that is well filled, without bfloat16
CALM = Profile(
    steps=20,
    batch=10,
    seconds=dict.fromkeys(PARTS, 0.0) | {"forward": 0.45, "backward": 0.45, "other": 0.1},
    frame=FrameCost(read=0.01, alter=0.02, collate=0.0),
    memory=8 * GB,
    memory_there=10 * GB,
    decoded=3 * GB,
    config=TrainConfig(data="x", imgsz=320, workers=1),
    gpu=True,
    cores=8,
    fast_bf16=False,
)
WAITING = CALM.seconds | {"forward": 0.2, "backward": 0.2, "waiting for data": 0.5}


def with_settings(profile: Profile, **changes) -> Profile:
    return replace(profile, config=profile.config.model_copy(update=changes))


def test_nothing_to_change_is_said() -> None:
    assert advice(CALM) == ["No part of a step stands out."]


def test_steps_that_wait_want_as_many_workers_as_make_their_frames() -> None:
    waiting = replace(CALM, seconds=WAITING, frame=FrameCost(0.03, 0.10, 0.01))
    assert waiting.workers_needed == 3  # 10 frames of 0.14 s in the 0.5 s of work: 2.8 at once
    assert advice(waiting) == ["Steps wait 50% of their time for data: --workers 3 can make the frames in time."]
    assert "--workers 2 " in advice(replace(waiting, gpu=False, cores=3))[0]  # one core is the network's
    (told_none,) = advice(with_settings(waiting, workers=3))
    assert "--workers" not in told_none
    assert "a smaller --imgsz" in told_none


def test_a_step_that_waits_a_little_is_left_alone() -> None:
    little = CALM.seconds | {"waiting for data": 0.04}
    assert not any("wait" in line for line in advice(replace(CALM, seconds=little)))


def test_decoding_that_costs_most_wants_a_cache_unless_there_is_one() -> None:
    reading = replace(CALM, seconds=WAITING, frame=FrameCost(0.10, 0.04, 0.01))
    assert any("Decoding is 67% of making a frame: --cache 3.2GB" in line for line in advice(reading))
    assert not any("--cache" in line for line in advice(with_settings(reading, cache=GB)))
    assert not any("--cache" in line for line in advice(replace(reading, frame=FrameCost(0.04, 0.10, 0.01))))


def test_bfloat16_is_for_those_who_compute_it_fast() -> None:
    fast = replace(CALM, fast_bf16=True)
    assert advice(fast) == ["The network takes 90% of a step: --precision bf16-mixed makes it faster here."]
    assert advice(with_settings(fast, precision="bf16-mixed")) == advice(CALM)


def test_memory_that_is_free_wants_larger_batches() -> None:
    assert advice(replace(CALM, memory=4 * GB)) == ["40% of the GPU's memory is used: --batch auto fills it."]


def test_updates_that_cost_much_are_to_be_rarer() -> None:
    seconds = CALM.seconds | {"forward": 0.3, "backward": 0.4, "optimiser": 0.15, "average": 0.05}
    (line,) = advice(replace(CALM, seconds=seconds))
    assert "Updating the weights takes 20% of a step" in line
    assert "--accumulate 2" in line


def test_a_network_that_is_all_the_time_of_a_cpu_wants_fewer_pixels() -> None:
    (line,) = advice(replace(CALM, gpu=False, memory_there=None))
    assert "--imgsz 256 costs about 64%" in line  # (256 / 320)^2


def test_there_are_never_more_than_three_sentences() -> None:
    seconds = dict.fromkeys(PARTS, 0.0) | {"waiting for data": 0.1, "forward": 0.5, "backward": 0.2, "average": 0.2}
    frame = FrameCost(0.10, 0.04, 0.01)
    assert len(advice(replace(CALM, seconds=seconds, frame=frame, memory=GB, fast_bf16=True))) == 3


def test_a_stopwatch_gives_each_part_its_time(monkeypatch) -> None:
    clock = iter([0.0, 1.0, 1.5, 4.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    watch = Stopwatch(torch.device("cpu"))
    for part in ("forward", "backward", "forward"):
        watch(part)
    assert dict(watch.seconds) == {"forward": 4.0, "backward": 0.5}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    return write_sample(tmp_path_factory.mktemp("shapes"), format="voc", images=8, seed=1, hw=(64, 96))


TINY = {"imgsz": 64, "batch": 2, "workers": 0, "backbone_weights": None, "options": {"neck_channels": 16}}


def test_slow_parts_are_found(shapes, monkeypatch) -> None:
    """The oracle is time that the test itself adds: to reading, to the data's way, to the forward pass."""
    config = TrainConfig(data=str(shapes), mosaic=0, augment="light", **TINY)
    prepared = prepare(config, "detseg train")
    losses, read = type(prepared.model).losses, prepared.data.read

    def slow_losses(self, *given):
        time.sleep(0.3)
        return losses(self, *given)

    def slow_read(index):
        time.sleep(0.2)
        return read(index)

    monkeypatch.setattr(type(prepared.model), "losses", slow_losses)
    prepared.data.read = slow_read
    steps: list[int] = []
    run_step = Trainer._step
    monkeypatch.setattr(Trainer, "_step", lambda self: steps.append(1) or run_step(self))
    found = measure(prepared, start(config), steps=2, warm_up=1)
    assert len(steps) == 3
    assert set(found.seconds) == set(PARTS)
    assert found.seconds["waiting for data"] > 0.4  # two pictures, read in this process
    assert found.seconds["forward"] > 0.3
    assert found.frame.read > 0.2 > found.frame.collate
    assert found.frame.total == pytest.approx(found.frame.read + found.frame.alter + found.frame.collate)
    assert found.decoded == len(prepared.data) * 64 * 96 * 3
    text = told(found)
    assert all(part in text for part in PARTS)
    assert "steps wait" in text.lower()


def test_the_command_tells_and_leaves_nothing(shapes, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(profiling, "measure", lambda prepared, group: measure(prepared, group, steps=2, warm_up=1))
    words = ["--imgsz", "64", "--batch", "2", "--workers", "0", "--backbone-weights", "none"]
    assert main(["train", str(shapes), *words, "--option", "neck_channels=16", "--profile"]) == 0
    shown = capsys.readouterr().out
    assert "2 steps of 2 pictures" in shown
    assert "waiting for data" in shown
    assert list(tmp_path.iterdir()) == []
    assert main(["train", "--resume", str(tmp_path), "--profile"]) == 2
