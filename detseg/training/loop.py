"""The training loop, for every model: forward, sum of named losses, finite check, step, average, validate, keep.

Built on Lightning Fabric for devices and precision. It prints nothing: what happens is handed to `report`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from detseg.annotations import AnnotationSet
from detseg.annotations.origin import origin_of
from detseg.annotations.semantic import SemanticSet
from detseg.detectors.contract import Detector
from detseg.errors import DataError, DetsegError
from detseg.preprocess import Preprocess
from detseg.segmenters.contract import Segmenter
from detseg.training.config import TrainConfig
from detseg.training.data import Batch, EpochBatches, FrameSet, loader
from detseg.training.folder import RunFolder, RunState, Stateful
from detseg.training.schedule import MovingAverage, cosine_factor
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

    def run(self) -> RunState:
        """Trains from where the folder's state says to the last epoch, then does the later stages of the model.

        Returns the final state.
        """
        state, feed = self._start()
        while state.epoch < self.config.epochs and not self._out_of_patience(state):
            done = self._epoch(feed, state)
            if self._is_due(state.epoch):
                done = self._validated(done, state)
            state.close_epoch(done.row())
            self._save(state)
            self.folder.show(state)
            self.report(done)
        if isinstance(self.model, Detector) and self.model.later_stages:
            metrics = finish(self.model, self.data, self.folder, state.epoch, self.validate, self.report)
            state = replace(state, best=decisive(metrics), best_epoch=state.epoch)
        return state

    def _start(self) -> tuple[RunState, Any]:
        """The state that the run goes on from, put back into all that has one; and the loader of batches."""
        config = self.config
        self.fabric = Fabric(accelerator=_accelerator(config.device), devices=1, precision=config.precision)
        self.model.to(memory_format=torch.channels_last)
        self.network: Any
        self.optimizer: Any
        self.network, self.optimizer = self.fabric.setup(self.model, make_optimizer(self.model, config))
        self.network.mark_forward_method("losses")
        self.average = MovingAverage(self.model, config.ema) if config.ema else None
        self.batches = EpochBatches(len(self.data), config, self.data.truth.image_hw)
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
        state = self.folder.load_state(self.parts)
        if state is None:
            state = RunState()
            self._save(state)
        else:
            self.folder.tidy()
            self.folder.show(state)  # a run killed after its state was written left a table that is behind it
        return state, feed

    def _epoch(self, feed: Any, state: RunState) -> EpochDone:
        """What is left of the running epoch."""
        self.model.train()
        so_far, steps = state.running, len(self.batches)
        self.batches.epoch, self.batches.first = state.epoch, so_far.batches
        started = time.perf_counter() - so_far.seconds
        for i, batch in enumerate(feed if so_far.batches < steps else (), start=so_far.batches):
            so_far.lr = self._set_rate(state.epoch * steps + i, steps)
            closes = (i + 1) % self.config.accumulate == 0 or i + 1 == steps
            losses = self._losses(batch, state.epoch, i)
            if closes:
                self._step()
            so_far.add(losses, len(batch.frames), batch.unreadable)
            so_far.seconds = time.perf_counter() - started
            if closes and self._keeps(state.epoch, i, steps):
                self._save(state)
            self.report(StepDone(state.epoch, i + 1, steps, sum(losses.values())))
        if not so_far.pictures:
            path, cause = so_far.unreadable[0]
            raise DataError(f"{self.data.truth.root}: not one picture could be read; the first: {path}: {cause}")
        return EpochDone(state.epoch, self.config.epochs, so_far.means, so_far.lr, so_far.seconds, so_far.pictures)

    def _losses(self, batch: Batch, epoch: int, number: int) -> Metrics:
        """The named losses of a batch, its gradients added to those of batches before; none of an empty batch."""
        if not len(batch.frames):
            return {}
        self._seed(epoch, number)
        images = normalised(batch.frames.to(self.fabric.device), self.preprocess)
        losses = self.network.losses(images, batch.truth(self.fabric.device))
        total = torch.stack(list(losses.values())).sum()
        values = {name: float(value.detach()) for name, value in losses.items()}
        _check_finite(values, batch.files, self.data.truth)
        self.fabric.backward(total / self.config.accumulate)
        self._has_gradients = True
        return values

    def _step(self) -> None:
        """Moves the weights, and their average towards them; nothing where no picture of the step could be read."""
        if not self._has_gradients:
            return
        if norm := self.config.clip_norm:
            self.fabric.clip_gradients(self.network, self.optimizer, max_norm=norm, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._has_gradients = False
        if self.average is not None:
            self.average.update(self.model)

    def _seed(self, epoch: int, batch: int) -> None:
        """Whatever the model draws (samples, drop-out) depends on where in the run it draws, not on what was before."""
        words = np.random.SeedSequence([self.config.seed, epoch, batch]).generate_state(1, np.uint64)
        torch.manual_seed(int(words[0]))

    def _keeps(self, epoch: int, batch: int, batches: int) -> bool:
        """Whether the state is saved within the epoch, after the optimiser step that `batch` of `batches` closed."""
        every, accumulate = self.config.checkpoint_every, self.config.accumulate
        done = epoch * math.ceil(batches / accumulate) + batch // accumulate + 1
        # a validation may take long; where there is none the state at the end of the epoch follows at once
        return every > 0 and done % every == 0 and (batch + 1 < batches or self._is_due(epoch))

    def _save(self, state: RunState) -> None:
        self.folder.save_state(state, self.parts)

    def _set_rate(self, step: int, steps_per_epoch: int) -> float:
        config = self.config
        warmup = round(config.warmup_epochs * steps_per_epoch)
        factor = cosine_factor(step, config.epochs * steps_per_epoch, warmup, config.final_lr)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        return config.lr * factor

    def _is_due(self, epoch: int) -> bool:
        return (epoch + 1) % self.config.eval_every == 0 or epoch + 1 == self.config.epochs

    def _validated(self, done: EpochDone, state: RunState) -> EpochDone:
        """Scores the averaged weights and keeps them where they are the best so far."""
        own = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        if self.average is not None:
            self.model.load_state_dict(self.average.state)
        try:
            metrics = self.validate(self.model)
            score = decisive(metrics)
            better = score > state.best
            state.stale = 0 if better else state.stale + 1
            if better:
                state.best, state.best_epoch = score, done.epoch + 1
            self.folder.save_weights(self.model, metrics, done.epoch + 1, best=better)
        finally:
            self.model.load_state_dict(own)
        return replace(done, metrics=metrics)

    def _out_of_patience(self, state: RunState) -> bool:
        return 0 < self.config.patience <= state.stale


def decisive(metrics: Metrics) -> float:
    """The number by which the best weights are kept: of masks where they are measured, else of boxes, or of maps."""
    return next(metrics[name] for name in ("mask_ap", "ap", "miou") if name in metrics)


def normalised(frames: Tensor, preprocess: Preprocess) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in channels-last memory, as the network wants it."""
    mean = torch.tensor(preprocess.mean, device=frames.device)
    std = torch.tensor(preprocess.std, device=frames.device)
    # the permuted view of an NHWC tensor already is channels-last: nothing is copied
    return ((frames.float() - mean) / std).permute(0, 3, 1, 2)


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Two rates (backbone, rest), each with and without weight decay (biases and batch norms have none)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("backbone."), parameter.ndim > 1), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "lr": config.lr * (config.backbone_lr if in_backbone else 1),
            "base_lr": config.lr * (config.backbone_lr if in_backbone else 1),
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (in_backbone, decays), parameters in groups.items()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(settings, lr=config.lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(settings, lr=config.lr)


def _check_finite(losses: Metrics, files: list[str], truth: AnnotationSet | SemanticSet) -> None:
    broken = [f"{name} = {value}" for name, value in losses.items() if not math.isfinite(value)]
    if broken:
        places = [f"{file} ({origin_of(truth, truth.image_files.index(file))})" for file in dict.fromkeys(files)]
        raise NonFiniteLoss(
            f"the loss is not finite: {', '.join(broken)}; pictures of the batch: {'; '.join(places)}. Look at their "
            "annotations (detseg data check), or lower --lr; the last state that was saved is intact"
        )


def _accelerator(device: str) -> str:
    return {"auto": "auto", "cpu": "cpu", "cuda": "cuda", "gpu": "cuda", "mps": "mps"}.get(device.split(":")[0], device)
