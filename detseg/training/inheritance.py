"""What a model takes from a checkpoint of other classes, or of another kind, and what starts anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from detseg import checkpoints
from detseg.annotations import Categories, ClassMatch
from detseg.detectors.contract import Detector
from detseg.segmenters.contract import Segmenter


@dataclass(frozen=True)
class Inherited:
    """What came of a checkpoint of `model` for `classes` classes. Layers are named as in the network.

    `whole`: layers taken as they are, and `share`, how many of the model's numbers those are; `by_class`: predictions
    of which the rows were taken that are about a known class or about none; `anew`: layers that took nothing, or not
    all of their tensors. `known`, `unknown`: classes of the data that the checkpoint knows, and does not.
    """

    model: str
    classes: int
    known: tuple[str, ...]
    unknown: tuple[str, ...]
    whole: tuple[str, ...]
    by_class: tuple[str, ...]
    anew: tuple[str, ...]
    share: float


def inherit(model: Detector | Segmenter, weights: str, categories: Categories) -> Inherited:
    """Copies every tensor that fits from a weight file, and of predictions the rows of classes that it knows.

    Raises WeightsError where the file cannot be read.
    """
    card, state = checkpoints.load(weights)
    own = model.state_dict()
    classes = ClassMatch.of(card.categories, categories).to_model
    taken = {
        name: value
        for name, value in model.adapted(state, classes).items()
        if name in own and own[name].shape == value.shape
    }
    model.load_state_dict(taken, strict=False)
    anew = _layers(name for name in own if name not in taken)
    speaking = model.class_rows()
    by_class = _layers(
        name
        for name, value in taken.items()
        if {name, _layer(name)} & speaking.keys() and not _same(value, state.get(name))
    )
    by_class = tuple(layer for layer in by_class if layer not in anew)
    whole = tuple(layer for layer in _layers(own) if layer not in {*anew, *by_class})
    return Inherited(
        model=card.model,
        classes=len(card.categories),
        known=tuple(name for i, name in enumerate(categories.names) if i in classes),
        unknown=tuple(name for i, name in enumerate(categories.names) if i not in classes),
        whole=whole,
        by_class=by_class,
        anew=anew,
        share=_numbers(own, whole) / max(1, _numbers(own, _layers(own))),
    )


def _layer(tensor: str) -> str:
    return tensor.rpartition(".")[0] or tensor


def _layers(tensors: Iterable[str]) -> tuple[str, ...]:
    """The layers that tensors belong to, in the order of the network, each once."""
    return tuple(dict.fromkeys(map(_layer, tensors)))


def _numbers(state: Mapping[str, Tensor], layers: Iterable[str]) -> int:
    wanted = set(layers)
    return sum(value.numel() for name, value in state.items() if _layer(name) in wanted)


def _same(value: Tensor, other: Tensor | None) -> bool:
    return other is not None and value.shape == other.shape and torch.equal(value, other)
