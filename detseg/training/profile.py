"""Where the time of training goes: some steps of a run of which nothing is kept, and what its figures advise.

The parts of a step are those of the loop. What the workers do is measured apart, a frame at a time in this process: how
long reading and decoding take, laying in and altering, and putting frames into a batch.
"""

from __future__ import annotations

import copy
import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch

from detseg.annotations.semantic import SemanticSet
from detseg.errors import DataError
from detseg.training.config import TrainConfig
from detseg.training.data import EpochBatches, FrameSet, Ticket, collate
from detseg.training.folder import RunFolder, RunState
from detseg.training.loop import StepDone, Trainer
from detseg.training.picture_cache import PictureCache
from detseg.training.processes import Processes
from detseg.training.setup import Prepared

STEPS, WARM_UP = 20, 3
PARTS = ("waiting for data", "moving", "forward", "backward", "optimiser", "average", "other")
_FRAMES = 24  # of which the workers' time is measured
_ENDLESS = 1_000_000  # epochs; the steps end before


@dataclass(frozen=True)
class FrameCost:
    """Seconds a training frame takes a worker: reading and decoding its pictures, altering them, batching it."""

    read: float
    alter: float
    collate: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.read + self.alter + self.collate


@dataclass(frozen=True)
class Profile:
    """What was measured: seconds a step by `PARTS`, and what the advice rests on.

    `memory`: the most bytes, of the GPU where there is one, else of this process. `decoded`: bytes of all pictures.
    """

    steps: int
    batch: int
    seconds: dict[str, float]
    frame: FrameCost
    memory: int
    memory_there: int | None
    decoded: int
    config: TrainConfig
    gpu: bool
    cores: int
    fast_bf16: bool

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return sum(self.seconds.values())

    @property
    def rate(self) -> float:
        """Pictures a second."""
        return self.batch / self.step

    def share(self, *parts: str) -> float:
        """Of a step."""
        return sum(self.seconds.get(part, 0.0) for part in parts) / self.step

    @property
    def workers_needed(self) -> int:
        """So many that a step finds its frames there."""
        busy = self.step - self.seconds.get("waiting for data", 0.0)
        return max(1, math.ceil(self.frame.total * self.batch / busy)) if busy else self.cores


class Stopwatch:
    """Adds up seconds between laps; on a GPU once it has done what it was given."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def __call__(self, part: str) -> None:
        """The time since the last lap went into `part`."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now


class _Enough(Exception):
    """As many steps were done as are measured."""


class _Nothing(RunFolder):
    """A run folder that keeps nothing."""

    def save_state(self, state: Any, parts: Any) -> None:
        """Not kept."""

    def save_weights(self, model: Any, metrics: Any, epoch: int, *, best: bool) -> None:
        """Not kept."""

    def show(self, state: Any) -> None:
        """Not shown."""

    def load_state(self, parts: Any) -> RunState | None:
        """There is none."""
        return None


def measure(prepared: Prepared, group: Processes, steps: int = STEPS, warm_up: int = WARM_UP) -> Profile:
    """Trains `warm_up + steps` steps and measures the latter. The model is trained on; no file is written.

    Raises what training raises.
    """
    # without ends: neither validation, nor the plain last epochs
    config = prepared.config.model_copy(update={"epochs": _ENDLESS, "eval_every": _ENDLESS, "checkpoint_every": 0})
    data = copy.copy(prepared.data)
    data.config = config
    device = group.fabric.device
    watch = Stopwatch(device)
    done = 0

    def report(event: Any) -> None:
        nonlocal done
        if not isinstance(event, StepDone):
            return
        done += 1
        if done == warm_up:
            watch.seconds.clear()
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
        if done == warm_up + steps:
            raise _Enough

    trainer = Trainer(
        model=prepared.model,
        preprocess=prepared.card.preprocess,
        data=data,
        config=config,
        folder=_Nothing(Path(), prepared.card),
        validate=lambda model: {},
        report=report,
        processes=group,
        lap=watch,
    )
    with suppress(_Enough):
        trainer.run()
    watch.seconds.pop("between epochs", None)
    return Profile(
        steps=steps,
        batch=config.batch,
        seconds={part: watch.seconds[part] / steps for part in PARTS},
        frame=frame_cost(data),
        memory=_peak_memory(device),
        memory_there=torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None,
        decoded=PictureCache.decoded(data.truth.image_hw, maps=isinstance(data.truth, SemanticSet)),
        config=prepared.config,
        gpu=device.type != "cpu",
        cores=os.cpu_count() or 1,
        fast_bf16=_fast_bf16(device),
    )


def frame_cost(data: FrameSet[Any], frames: int = _FRAMES) -> FrameCost:
    """Of some frames of the first epoch, made as a worker makes them. Raises DataError where none can be."""
    data = copy.copy(data)
    data.cache = None
    reading = 0.0
    read = data.read

    def timed(index: int) -> Any:
        nonlocal reading
        started = time.perf_counter()
        try:
            return read(index)
        finally:
            reading += time.perf_counter() - started

    data.read = timed  # type: ignore[method-assign]
    batches = EpochBatches(len(data), data.config, data.truth.image_hw, draw=data.draw)
    tickets = _first(batches, frames)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        data[tickets[0]]  # the first loads libraries
        reading, started = 0.0, time.perf_counter()
        samples = [data[ticket] for ticket in tickets]
        making = time.perf_counter() - started
    finally:
        cv2.setNumThreads(threads)
    there = [sample for sample in samples if sample[0] is not None]
    if not there:
        raise DataError(f"{data.truth.root}: none of {len(tickets)} pictures can be read")
    started = time.perf_counter()
    collate([sample for sample in there if sample[0].image.shape == there[0][0].image.shape])  # type: ignore[union-attr]
    together = time.perf_counter() - started
    return FrameCost(reading / len(tickets), (making - reading) / len(tickets), together / len(there))


def _first(batches: Iterable[list[Ticket]], count: int) -> list[Ticket]:
    tickets: list[Ticket] = []
    for batch in batches:
        tickets += batch
        if len(tickets) >= count:
            break
    return tickets[:count]


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _fast_bf16(device: torch.device) -> bool:
    """Whether products in bfloat16 have units of their own."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and probe is not None and bool(probe())


WAITING_IS_MUCH = 0.05  # of a step
READING_IS_MUCH = 0.5  # of a frame's making
UPDATE_IS_MUCH = 0.15  # of a step: the optimiser and the average, which do not depend on how many pictures it has
NETWORK_IS_MUCH = 0.8  # of a step
MEMORY_IS_LITTLE = 0.5  # of a GPU's


def advice(profile: Profile) -> list[str]:
    """One to three sentences that follow from the figures, the most useful first."""
    found = _of_data(profile) if profile.share("waiting for data") >= WAITING_IS_MUCH else []
    found += _of_network(profile)
    calm = "No part of a step stands out."
    return found[:3] or [calm]


def _of_data(profile: Profile) -> list[str]:
    """For steps that wait: decode once; more workers, as long as there are cores for them; less to alter."""
    config, frame = profile.config, profile.frame
    lines = []
    waits = f"Steps wait {profile.share('waiting for data'):.0%} of their time for data"
    most = profile.cores if profile.gpu else max(1, profile.cores - 1)  # without a GPU one is for the network
    wanted = min(profile.workers_needed, most)
    if wanted > config.workers:
        lines.append(f"{waits}: --workers {wanted} can make the frames in time.")
    if frame.read >= READING_IS_MUCH * frame.total and not config.cache:
        size = math.ceil(profile.decoded * 1.05 / 1e8) / 10  # tenths of GB
        share = frame.read / frame.total
        lines.append(
            f"Decoding is {share:.0%} of making a frame: --cache {size:.1f}GB keeps every picture decoded after its "
            "first epoch."
        )
    if not lines:
        lines.append(
            f"{waits}, with as many workers as there are cores for: a smaller --imgsz, less --mosaic or a lighter "
            "--augment makes frames cheaper."
        )
    return lines


def _of_network(profile: Profile) -> list[str]:
    """For what is left: cheaper numbers, fuller batches, fewer updates, fewer pixels."""
    config, lines = profile.config, []
    network = profile.share("forward", "backward")
    if profile.fast_bf16 and config.precision == "32-true" and network >= 0.5:
        lines.append(f"The network takes {network:.0%} of a step: --precision bf16-mixed makes it faster here.")
    if profile.gpu and profile.memory_there and profile.memory < MEMORY_IS_LITTLE * profile.memory_there:
        used = profile.memory / profile.memory_there
        lines.append(f"{used:.0%} of the GPU's memory is used: --batch auto fills it.")
    update = profile.share("optimiser", "average")
    if update >= UPDATE_IS_MUCH:
        lines.append(
            f"Updating the weights takes {update:.0%} of a step, however many pictures it has: a larger --batch, or "
            "--accumulate 2, does it less often."
        )
    if not profile.gpu and network >= NETWORK_IS_MUCH:
        smaller = max(32, round(config.imgsz * 0.75 / 32) * 32)
        lines.append(
            f"The network takes {network:.0%} of a step: --imgsz {smaller} costs about "
            f"{(smaller / config.imgsz) ** 2:.0%} of it, a lighter --backbone or more --freeze stages less, too."
        )
    return lines
