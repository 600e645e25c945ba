"""Learning rate over the run and its phases, and the moving average of the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from detseg.training.config import TrainConfig


def cosine_factor(step: int, total: int, warmup: int, final: float) -> float:
    """The factor of the base rate at `step` of `total`: linear up to 1, then half a cosine down to `final`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@dataclass(frozen=True)
class Phase:
    """Epochs `first` to `end`, the last not included, with a warm-up and a cosine of their own.

    `peak`: times every rate. `backbone_rests`: nothing of the backbone learns, and no gradient of it is computed.
    """

    first: int
    end: int
    peak: float
    backbone_rests: bool


def phases(config: TrainConfig) -> tuple[Phase, ...]:
    """One phase; two where the backbone joins later (`finetune_at`)."""
    whole = Phase(config.finetune_at, config.epochs, config.finetune_lr if config.finetune_at else 1.0, False)
    return (Phase(0, config.finetune_at, 1.0, True), whole) if config.finetune_at else (whole,)


def phase_of(config: TrainConfig, epoch: int) -> Phase:
    """The phase that `epoch`, from 0, belongs to."""
    return next(phase for phase in reversed(phases(config)) if phase.first <= epoch)


def rate_factor(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The factor of the base rates at `step` of the run."""
    phase = phase_of(config, step // steps_per_epoch)
    total = (phase.end - phase.first) * steps_per_epoch
    warmup = round(config.warmup_epochs * steps_per_epoch)
    return phase.peak * cosine_factor(step - phase.first * steps_per_epoch, total, warmup, config.final_lr)


class MovingAverage:
    """Exponential moving average of a model's floating state; young averages forget faster.

    After step n the weight of the old value is min(decay, (1 + n) / (10 + n)).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs back."""
        return {"steps": self.steps, "state": self.state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.steps = state_dict["steps"]
        for name, value in state_dict["state"].items():
            self.state[name].copy_(value)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average a step towards the model's present weights."""
        self.steps += 1
        new = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        mine: list[Tensor] = []
        theirs: list[Tensor] = []
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                mine.append(self.state[name])
                theirs.append(value.detach())
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(mine, theirs, new)
