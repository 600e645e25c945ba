"""The training loop, for every model: forward, sum of named losses, finite check, step, average, validate, keep.

Built on Lightning Fabric for devices and precision. It prints nothing: what happens is handed to `report`.

Several processes share every batch: the same pictures a step as one process would have, their losses weighted so that
the gradients are those of the whole batch. What still differs from one process: samples and drop-out that the model
draws, losses that are no sum over pictures or pixels (Dice, Jaccard, Lovasz, hard negatives of the whole batch, and the
means over drawn regions of the R-CNN family), and on CPUs batch norms that learn, each of which sees its own part; on
GPUs they are synchronised.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detseg.annotations.origin import origin_of
from detseg.detectors.contract import Detector, Target
from detseg.errors import DataError, DetsegError
from detseg.parts.batch_share import sharing
from detseg.parts.depthwise import quicken
from detseg.parts.label_maps import IGNORE, LabelMaps
from detseg.preprocess import Preprocess
from detseg.segmenters.contract import Segmenter
from detseg.training.compiled import compile_network
from detseg.training.config import TrainConfig
from detseg.training.data import Batch, EpochBatches, FrameSet, Ticket, collate, loader
from detseg.training.folder import EpochSoFar, RunFolder, RunState, Stateful
from detseg.training.memory import largest_batch, telling_of_memory
from detseg.training.optimizer import make_optimizer
from detseg.training.processes import Processes, start
from detseg.training.schedule import MovingAverage, phase_of, rate_factor
from detseg.training.stages import StageStep, finish

Metrics = dict[str, float]
Validate = Callable[[Any], Metrics]  # of the model as it is; see `decisive` for what it must hold


@dataclass(frozen=True)
class StepDone:
    """Told after every optimiser step."""

    epoch: int
    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class EpochDone:
    """Told after every epoch: mean losses, and metrics where the epoch was validated."""

    epoch: int
    epochs: int
    losses: Metrics
    lr: float
    seconds: float
    pictures: int
    metrics: Metrics = field(default_factory=dict)
    steps: int = 0  # batches of an epoch

    def row(self) -> dict[str, float]:
        """The line of results.csv."""
        numbers = {f"loss/{name}": value for name, value in self.losses.items()}
        numbers |= {f"val/{name}": value for name, value in self.metrics.items()}
        rate = self.pictures / self.seconds if self.seconds else math.nan
        return {
            "epoch": self.epoch + 1,
            "lr": self.lr,
            "seconds": self.seconds,
            "pictures/s": rate,
            **numbers,
        }


Report = Callable[[StepDone | EpochDone | StageStep], None]
Lap = Callable[[str], None]  # told which part of a step has just ended


def _untimed(part: str) -> None:
    """Nobody looks at the clock."""


class NonFiniteLoss(DetsegError):
    """A loss became infinite or not a number; names the loss, the batch's pictures and where their truth stands."""


@dataclass
class Trainer:
    """One run: `Trainer(...).run()`. Goes on from the state in `folder` where there is one."""

    model: Detector | Segmenter
    preprocess: Preprocess
    data: FrameSet[Any]
    config: TrainConfig
    folder: RunFolder
    validate: Validate
    report: Report
    processes: Processes | None = None  # None: they are started here
    lap: Lap = _untimed

    def run(self) -> RunState:
        """Trains from where the folder's state says to the last epoch, then does the later stages of the model.

        Returns the final state. Raises OutOfMemory, NonFiniteLoss, DataError, DetsegError.
        """
        with telling_of_memory(self.config):
            return self._run()

    def _run(self) -> RunState:
        state, feed = self._start()
        while state.epoch < self.config.epochs and not self._out_of_patience(state):
            done = self._epoch(feed, state)
            if self._is_due(state.epoch):
                done = self._validated(done, state)
            state.close_epoch(done.row())
            self._save(state)
            self._show(state)
            self._tell(done)
        if isinstance(self.model, Detector) and self.model.later_stages:
            metrics = finish(self.model, self.data, self.folder, state.epoch, self.validate, self.report)
            state = replace(state, best=decisive(metrics), best_epoch=state.epoch)
        return state

    def _start(self) -> tuple[RunState, Any]:
        """The state that the run goes on from, put back into all that has one; and the loader of batches."""
        config = self.config
        self.group = self.processes or start(config)
        self.fabric = self.group.fabric
        self._expect_shareable()
        self.model.to(memory_format=torch.channels_last)
        quicken(self.model)
        if self.group.count > 1 and self.fabric.device.type == "cuda":  # torch has it for GPUs only
            nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        self.network: Any
        self.optimizer: Any
        self.network, self.optimizer = self.fabric.setup(self.model, make_optimizer(self.model, config))
        self.network.mark_forward_method("losses")
        if config.compile:
            compile_network(self.model, self.fabric.device)
        self.average = MovingAverage(self.model, config.ema) if config.ema else None
        self.data.keep_pictures(self.group.on_this_machine)
        part = (self.group.rank, self.group.count)
        self.batches = EpochBatches(len(self.data), config, self.data.truth.image_hw, part, self.data.draw)
        feed = self.fabric.setup_dataloaders(
            loader(self.data, self.batches, config.workers), use_distributed_sampler=False, move_to_device=False
        )
        self.parts: dict[str, Stateful] = {
            "model": self.model,
            "optimizer": self.optimizer,
            "precision": self.fabric.strategy.precision,  # the scaler of 16-mixed; nothing in other precisions
            **({"average": self.average} if self.average is not None else {}),
        }
        self._has_gradients = False
        return self._state(), feed

    def _expect_shareable(self) -> None:
        count = self.group.count
        if count > self.config.batch:
            raise DetsegError(
                f"a batch of {self.config.batch} cannot be shared out to {count} processes; raise --batch"
            )
        if count > 1 and isinstance(self.model, Detector) and self.model.later_stages:
            raise DetsegError(
                f"{self.config.model} has stages after its training by gradient, which one process does; leave "
                "--devices out"
            )

    def _state(self) -> RunState:
        """What the folder holds, put back into the parts; a new one is saved at once."""
        state = self.folder.load_state(self.parts)
        self.group.wait()  # nobody writes before all have read
        if state is None:
            state = RunState()
            self._save(state)
        else:
            if self.group.first:
                self.folder.tidy()
            self._show(state)  # a run killed after its state was written left a table that is behind it
        return state

    def _epoch(self, feed: Any, state: RunState) -> EpochDone:
        """What is left of the running epoch."""
        backbone: Any = self.model.backbone
        backbone.rest(phase_of(self.config, state.epoch).backbone_rests)
        self.model.train()
        so_far, steps = state.running, len(self.batches)
        self.batches.epoch, self.batches.first = state.epoch, so_far.batches
        started = time.perf_counter() - so_far.seconds
        self.lap("between epochs")
        for i, batch in enumerate(feed if so_far.batches < steps else (), start=so_far.batches):
            self.lap("waiting for data")
            so_far.lr = self._set_rate(state.epoch * steps + i, steps)
            closes = (i + 1) % self.config.accumulate == 0 or i + 1 == steps
            losses, pictures = self._losses(batch, (state.epoch, i), closes=closes)
            if closes:
                self._step()
            so_far.add(losses, pictures, batch.unreadable)
            so_far.seconds = time.perf_counter() - started
            if closes and self._keeps(state.epoch, i, steps):
                self._save(state)
            self._tell(StepDone(state.epoch, i + 1, steps, sum(losses.values())))
            self.lap("other")
        self._gather_unreadable(so_far)
        if not so_far.pictures:
            path, cause = so_far.unreadable[0]
            raise DataError(f"{self.data.truth.root}: not one picture could be read; the first: {path}: {cause}")
        means, seconds, pictures = so_far.means, so_far.seconds, so_far.pictures
        return EpochDone(state.epoch, self.config.epochs, means, so_far.lr, seconds, pictures, steps=steps)

    def _losses(self, batch: Batch, place: tuple[int, int], *, closes: bool) -> tuple[Metrics, int]:
        """The named losses of the batch, its gradients added to those of batches before; and how many pictures it has.

        `place`: epoch and number of the batch. `closes`: an optimiser step follows. Of a batch that processes share,
        each adds the gradients of its part, weighted by its share of the pictures; the losses are of the whole.
        """
        counts = [int(count) for count in self.group.gather(len(batch.frames))]
        pictures, own = sum(counts), len(batch.frames)
        several = self.group.count > 1
        # gradients that are still to be exchanged make even an empty batch count, for nothing
        if not pictures and not (several and closes and self._has_gradients):
            return {}, 0
        share = own / pictures if pictures else 0.0
        self._seed(*place)
        frames, truth = (batch.frames, batch.truth(self.fabric.device)) if own else self._nothing()
        images = normalised(frames.to(self.fabric.device), self.preprocess)
        self.lap("moving")
        with ExitStack() as within:
            if several:
                within.enter_context(sharing(share, self.group.total))
                within.enter_context(self.fabric.no_backward_sync(self.network, enabled=not closes))
            losses = self.network.losses(images, truth)
            shares = [float(value.detach()) * share for value in losses.values()]
            values = dict(zip(losses, self.group.total(shares), strict=True))
            self._check_finite(values, batch.files)
            total = torch.stack(list(losses.values())).sum()
            self.lap("forward")
            # DDP takes the mean over the processes where their weighted sum is wanted
            weight = share * self.group.count
            self.fabric.backward((total * weight if several else total) / self.config.accumulate)
        self.lap("backward")
        self._has_gradients = True
        return values, pictures

    def _nothing(self) -> tuple[Tensor, list[Target] | LabelMaps]:
        """A frame without truth, for a process that has no picture of a batch but must take part in its step."""
        height, width = self.config.frame_hw
        frames, device = torch.zeros(1, height, width, 3, dtype=torch.uint8), self.fabric.device
        if not isinstance(self.model, Detector):
            return frames, LabelMaps(torch.full((1, height, width), IGNORE, device=device))
        masks = torch.zeros(0, height, width, dtype=torch.bool)
        whole = torch.tensor([[0.0, 0.0, width, height]])
        return frames, [replace(Target.empty(), masks=masks, proposals=whole).to(device)]

    def _step(self) -> None:
        """Moves the weights, and their average towards them; nothing where no picture of the step could be read."""
        if not self._has_gradients:
            return
        if norm := self.config.clip_norm:
            self.fabric.clip_gradients(self.network, self.optimizer, max_norm=norm, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._has_gradients = False
        self.lap("optimiser")
        if self.average is not None:
            self.average.update(self.model)
            self.lap("average")

    def _seed(self, epoch: int, batch: int) -> None:
        """Whatever the model draws (samples, drop-out) depends on where in the run it draws, not on what was before."""
        where = [self.config.seed, epoch, batch, *([self.group.rank] if self.group.rank else [])]
        torch.manual_seed(int(np.random.SeedSequence(where).generate_state(1, np.uint64)[0]))

    def _check_finite(self, losses: Metrics, files: list[str]) -> None:
        """Raises NonFiniteLoss in all processes at once, with the pictures of all."""
        broken = [f"{name} = {value}" for name, value in losses.items() if not math.isfinite(value)]
        if not broken:
            return
        truth = self.data.truth
        shown = dict.fromkeys(file for part in self.group.gather(files) for file in part)
        places = [f"{file} ({origin_of(truth, truth.image_files.index(file))})" for file in shown]
        raise NonFiniteLoss(
            f"the loss is not finite: {', '.join(broken)}; pictures of the batch: {'; '.join(places)}. Look at their "
            "annotations (detseg data check), or lower --lr; the last state that was saved is intact"
        )

    def _keeps(self, epoch: int, batch: int, batches: int) -> bool:
        """Whether the state is saved within the epoch, after the optimiser step that `batch` of `batches` closed."""
        every, accumulate = self.config.checkpoint_every, self.config.accumulate
        done = epoch * math.ceil(batches / accumulate) + batch // accumulate + 1
        # a validation may take long; where there is none the state at the end of the epoch follows at once
        return every > 0 and done % every == 0 and (batch + 1 < batches or self._is_due(epoch))

    def _save(self, state: RunState) -> None:
        self._gather_unreadable(state.running)
        if self.group.first:
            self.folder.save_state(state, self.parts)

    def _gather_unreadable(self, so_far: EpochSoFar) -> None:
        so_far.unreadable = sorted({row for part in self.group.gather(so_far.unreadable) for row in part})

    def _show(self, state: RunState) -> None:
        if self.group.first:
            self.folder.show(state)

    def _tell(self, event: StepDone | EpochDone) -> None:
        if self.group.first:
            self.report(event)

    def _set_rate(self, step: int, steps_per_epoch: int) -> float:
        factor = rate_factor(self.config, step, steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        return self.config.lr * factor

    def _is_due(self, epoch: int) -> bool:
        return (epoch + 1) % self.config.eval_every == 0 or epoch + 1 == self.config.epochs

    def _validated(self, done: EpochDone, state: RunState) -> EpochDone:
        """Scores the averaged weights and keeps them where they are the best so far."""
        own = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        if self.average is not None:
            self.model.load_state_dict(self.average.state)
        self.group.share_buffers(self.model)
        try:
            metrics = self.validate(self.model)
            score = decisive(metrics)
            better = score > state.best
            state.stale = 0 if better else state.stale + 1
            if better:
                state.best, state.best_epoch = score, done.epoch + 1
            if self.group.first:
                self.folder.save_weights(self.model, metrics, done.epoch + 1, best=better)
        finally:
            self.model.load_state_dict(own)
        return replace(done, metrics=metrics)

    def _out_of_patience(self, state: RunState) -> bool:
        return 0 < self.config.patience <= state.stale


def batch_that_fits(model: Detector | Segmenter, data: FrameSet[Any], config: TrainConfig, fabric: Any) -> int | None:
    """The largest batch of a device, by steps as in training at the largest frames; None where it is no GPU."""
    if fabric.device.type != "cuda":
        return None
    side = round(config.imgsz * (1 + config.multi_scale) / 32) * 32
    frame_hw = (side, round(side * config.longest)) if config.fit == "shorter" else (side, side)
    samples = [data[Ticket(0, i, frame_hw, mosaic=config.mosaic > 0)] for i in range(min(len(data), 8))]
    samples = [sample for sample in samples if sample[0] is not None]
    if not samples:
        raise DataError(f"{data.truth.root}: none of the first {min(len(data), 8)} pictures can be read")

    def step(copied: Any, count: int) -> None:
        batch = collate([samples[i % len(samples)] for i in range(count)])
        copied.train().to(memory_format=torch.channels_last)
        optimizer = make_optimizer(copied, config)
        for _ in range(2):  # the optimiser's moments are there from the second step on
            images = normalised(batch.frames.to(fabric.device), data.preprocess)
            with fabric.autocast():
                losses = copied.losses(images, batch.truth(fabric.device))
            torch.stack(list(losses.values())).sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return largest_batch(model, step, fabric.device, len(data))


def decisive(metrics: Metrics) -> float:
    """The number by which the best weights are kept: of masks where they are measured, else of boxes, or of maps."""
    return next(metrics[name] for name in ("mask_ap", "ap", "miou") if name in metrics)


def normalised(frames: Tensor, preprocess: Preprocess) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in channels-last memory, as the network wants it."""
    mean = torch.tensor(preprocess.mean, device=frames.device)
    std = torch.tensor(preprocess.std, device=frames.device)
    # the permuted view of an NHWC tensor already is channels-last: nothing is copied
    return ((frames.float() - mean) / std).permute(0, 3, 1, 2)
