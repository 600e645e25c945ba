"""Who learns how fast: the head at the rate of the run, the stages of the backbone at rates of their own.

Rates that fall from stage to stage towards the picture: J. Howard, S. Ruder: Universal Language Model Fine-tuning for
Text Classification, ACL 2018 (arXiv 1801.06146), section 3.2 ("discriminative fine-tuning").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from detseg.backbones.spec import Backbone, BackboneError
from detseg.training.config import TrainConfig
from detseg.training.schedule import phases


@dataclass(frozen=True)
class LearningPart:
    """A part of a model whose parameters have one rate; for telling.

    `stages`: the first and last of the backbone's stages, from 1; None: all of the backbone, or the rest of the model.
    `learning`: how many numbers learn in the end. `rates`: the highest in each phase of the run; 0: it does not learn.
    """

    name: str
    stages: tuple[int, int] | None
    learning: int
    rates: tuple[float, ...]


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """A group for every rate (head, backbone or its stages), with weight decay and without (biases, batch norms).

    What is frozen for good is in no group; a backbone that rests must be made to rest after this. Raises BackboneError
    where stages are to have their own rates and there are none.
    """
    factors, groups = rate_factors(model, config), dict[tuple[bool, float, bool], list[nn.Parameter]]()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (_in_backbone(name), factors[name], parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    settings: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": config.lr * factor,
            "base_lr": config.lr * factor,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (_, factor, decays), parameters in groups.items()
    ]
    # One pass over memory instead of ten. It pairs numbers by where they lie: autograd lays gradients as it found the
    # parameters. Where gradients are scaled it would undo that itself, too late for clipping.
    fused = config.precision != "16-mixed"
    if config.optimizer == "sgd":
        return torch.optim.SGD(settings, lr=config.lr, momentum=0.9, nesterov=True, fused=fused)
    return torch.optim.AdamW(settings, lr=config.lr, fused=fused)


def rate_factors(model: nn.Module, config: TrainConfig) -> dict[str, float]:
    """Every parameter's rate, times `lr`: of the k-th stage from the top, from 0, `backbone_lr` times `layer_decay`**k.

    What the backbone has outside its stages counts as its top.
    """
    stages = _stages(model) if config.layer_decay < 1 else {}
    top = max(stages.values(), default=0)
    return {
        name: config.backbone_lr * config.layer_decay ** (top - stages.get(id(parameter), top))
        if _in_backbone(name)
        else 1.0
        for name, parameter in model.named_parameters()
    }


def learning_parts(model: nn.Module, config: TrainConfig) -> list[LearningPart]:
    """The head, then the backbone from its top down; stages of one rate are one part."""
    try:
        stages = _stages(model)
    except BackboneError:  # it cannot be taken apart; only told of as a whole
        stages = {}
    factors, top = rate_factors(model, config), max(stages.values(), default=0)
    rows: dict[int | None, _Row] = {None: _Row(1.0), **{k: _Row(0.0) for k in range(top, -1, -1)}}
    for name, parameter in model.named_parameters():
        row = rows[stages.get(id(parameter), top) if _in_backbone(name) else None]
        if parameter.requires_grad:
            row.factor = factors[name]
            row.learning += parameter.numel()
    parts = [_part("head", None, rows.pop(None), config)]
    for k, row in rows.items():
        assert k is not None
        numbers = (k + 1, k + 1) if stages else None
        parts.append(_part("backbone", numbers, row, config))
    return _joined(parts)


@dataclass
class _Row:
    factor: float
    learning: int = 0


def _part(name: str, numbers: tuple[int, int] | None, row: _Row, config: TrainConfig) -> LearningPart:
    own = config.lr * row.factor if row.learning else 0.0
    rates = tuple(0.0 if name == "backbone" and phase.backbone_rests else own * phase.peak for phase in phases(config))
    return LearningPart(name, numbers, row.learning, rates)


def _joined(parts: list[LearningPart]) -> list[LearningPart]:
    """Neighbours that have the same name and rates as one."""
    joined = parts[:1]
    for part in parts[1:]:
        last = joined[-1]
        if part.name != last.name or part.rates != last.rates or part.stages is None or last.stages is None:
            joined.append(part)
            continue
        stages = (part.stages[0], last.stages[1])
        joined[-1] = LearningPart(part.name, stages, part.learning + last.learning, part.rates)
    return joined


def _in_backbone(name: str) -> bool:
    return name.startswith("backbone.")


def _stages(model: nn.Module) -> dict[int, int]:
    """Of every parameter of the backbone's stages, by its id, the number of its stage."""
    backbone = model.backbone
    assert isinstance(backbone, Backbone)
    return {
        id(parameter): number
        for number, stage in enumerate(backbone.stages())
        for module in (stage if isinstance(stage, list) else [stage])
        for parameter in module.parameters()
    }
