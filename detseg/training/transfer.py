"""Recipes of transfer learning: what of a network that has learnt before is to learn again.

The four cases of the textbooks (as J. Yosinski and others, How transferable are features in deep neural networks?,
NIPS 2014, arXiv 1411.1792, give reasons for: what early layers know is general, what late ones know is special):

| | pictures like those of the weights | other pictures |
|---|---|---|
| little data | `head` | `late` |
| much data | `all` | `all`, or `scratch` |

Whether pictures are alike nobody but the user can say; whether there are many is counted. What each sets is a default:
settings given by hand win.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Likeness = Literal["similar", "different"]
Transfer = Literal["none", "head", "late", "all", "scratch", "similar", "different"]
LIKENESSES: tuple[Likeness, ...] = get_args(Likeness)

# below any of these data count as little: a rule of thumb
LITTLE_PICTURES = 1000
LITTLE_OBJECTS = 100  # of a class, on average


@dataclass(frozen=True)
class Recipe:
    """What a recipe sets (`TrainConfig`), what it is meant for, and why it does what it does, as a sentence."""

    settings: Mapping[str, Any]
    meant_for: str
    reason: str


RECIPES: dict[str, Recipe] = {
    "head": Recipe(
        {"freeze_stages": "all", "freeze_bn": True, "backbone_lr": 0.2, "layer_decay": 1.0, "finetune_at": 0},
        "little data, like those that the weights have learnt from",
        "the backbone stays as it is, since its features fit and few pictures would spoil them; the head learns alone",
    ),
    "late": Recipe(
        {"freeze_stages": 3, "freeze_bn": True, "backbone_lr": 0.2, "layer_decay": 1.0, "finetune_at": 0},
        "little data, unlike those that the weights have learnt from",
        "early stages stay as they are, since edges and textures are the same everywhere; late stages learn what is "
        "special here, slower than the head",
    ),
    "all": Recipe(
        {"freeze_stages": 0, "freeze_bn": False, "backbone_lr": 0.2, "layer_decay": 0.8, "finetune_at": 0},
        "much data",
        "every layer learns, batch norms too: the later the layer, the faster",
    ),
    "scratch": Recipe(
        {
            **{"freeze_stages": 0, "freeze_bn": False, "backbone_lr": 1.0, "layer_decay": 1.0, "finetune_at": 0},
            "backbone_weights": None,
        },
        "much data, unlike any that there are weights of",
        "every layer learns at one rate from random numbers, which takes many more epochs",
    ),
}


def governed(transfer: str) -> frozenset[str]:
    """The names of all that a recipe may set."""
    if transfer == "none":
        return frozenset()
    names = [transfer] if transfer in RECIPES else ["head", "late", "all"]
    return frozenset(name for recipe in names for name in RECIPES[recipe].settings)


def chosen(likeness: Likeness, *, little: bool) -> Transfer:
    """The recipe for so much data of such a likeness. `scratch` never: weights cost nothing and seldom harm."""
    if not little:
        return "all"
    return "head" if likeness == "similar" else "late"


def likeness_of(transfer: str) -> Likeness | None:
    """What was said of the data where they are to choose the recipe; None where a recipe, or none, is named."""
    return next((likeness for likeness in LIKENESSES if likeness == transfer), None)


def is_little(pictures: int, objects: int | None, classes: int) -> bool:
    """Whether so many training pictures are few; `objects` is None where truth is label maps."""
    few_objects = objects is not None and objects < LITTLE_OBJECTS * classes
    return pictures < LITTLE_PICTURES or few_objects
