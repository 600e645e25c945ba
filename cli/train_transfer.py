"""What `detseg train` says of what is learnt again: the recipe and its reason, the checkpoint's part, the rates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from .tables import counted, printable, table

if TYPE_CHECKING:
    from detseg.training.inheritance import Inherited
    from detseg.training.setup import Prepared

_SHOWN = 4  # names of a longer list


def about_recipe(prepared: Prepared) -> list[str]:
    """Which recipe it is, why, and what of it was given otherwise."""
    from detseg.training.transfer import RECIPES

    config = prepared.config
    if config.transfer not in RECIPES:
        return []
    recipe = RECIPES[config.transfer]
    if prepared.likeness is None:
        why = f"--transfer {config.transfer}, for {recipe.meant_for}; here: {_amount(prepared)}"
    else:
        alike = {"similar": "like", "different": "unlike"}[prepared.likeness]
        why = f"--transfer {config.transfer}: {_amount(prepared)}, {alike} what the weights have learnt from"
    given = {name: getattr(config, name) for name, value in recipe.settings.items() if getattr(config, name) != value}
    own = [f"{name} {value}" for name, value in given.items()]
    reason = wrap(recipe.reason, 110, initial_indent="  ", subsequent_indent="  ")
    return [why, *reason, *([f"  but for what was given: {', '.join(own)}"] if own else [])]


def _amount(prepared: Prepared) -> str:
    """Such as "20 pictures with 240 objects of 3 classes, which is little data"."""
    from detseg.annotations import AnnotationSet
    from detseg.training.setup import has_little

    truth = prepared.truth
    with_objects = f" with {counted(len(truth.boxes), 'object')}" if isinstance(truth, AnnotationSet) else ""
    amount = "little" if has_little(truth) else "much"
    classes = f"{len(truth.categories)} class{'' if len(truth.categories) == 1 else 'es'}"
    return f"{counted(len(truth), 'picture')}{with_objects} of {classes}, which is {amount} data"


def about_checkpoint(prepared: Prepared) -> list[str]:
    """What the checkpoint gave, of which classes, and what starts anew."""
    taken = prepared.inherited
    if taken is None:
        return []
    file = printable(Path(prepared.config.weights or "").name)
    source = f"{file} ({taken.model}, {taken.classes} classes)"
    lines = [f"{source}: {taken.share:.1%} of the network is taken as it is, {_about_classes(taken)}"]
    if taken.anew:
        layers = counted(len(taken.anew), "layer")
        lines.append(f"{layers} that it has not, or in another size, start anew: {_some(taken.anew)}")
    if stuck := _stuck(prepared, taken):
        layers = counted(len(stuck), "layer")
        lines.append(f"{layers} of these are frozen and stay at random numbers; --freeze 0 --learn-bn has all learn")
    return lines


def _about_classes(taken: Inherited) -> str:
    if not taken.known:
        return "none of the classes is known to it" + (": their predictions start anew" if taken.by_class else "")
    if not taken.unknown:
        return f"all {len(taken.known)} classes are known to it"
    return f"{_some(taken.known)} are known to it, {_some(taken.unknown)} start anew"


def _stuck(prepared: Prepared, taken: Inherited) -> list[str]:
    """The layers that took nothing and do not learn either."""
    learns: dict[str, bool] = {}
    for name, parameter in prepared.model.named_parameters():
        layer = name.rpartition(".")[0]
        learns[layer] = learns.get(layer, False) or parameter.requires_grad
    return [layer for layer in taken.anew if learns.get(layer) is False]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(printable(name) for name in names[:_SHOWN]) + more


def about_rates(prepared: Prepared) -> str:
    """A table of the parts of the network and their highest rates, in each phase of the run."""
    from detseg.training.optimizer import learning_parts
    from detseg.training.schedule import phases

    spans = [f"epochs {phase.first + 1} to {phase.end}" for phase in phases(prepared.config)]
    columns = spans if len(spans) > 1 else ["learning rate"]
    rows = [
        (
            part.name + _stages(part.stages),
            f"{part.learning / 1e6:.3f} M",
            *(f"{rate:.3g}" if rate else "-" for rate in part.rates),
        )
        for part in learning_parts(prepared.model, prepared.config)
    ]
    return table(("part", "learns", *columns), rows, right=range(1, 2 + len(columns)))


def _stages(numbers: tuple[int, int] | None) -> str:
    if numbers is None:
        return ""
    first, last = numbers
    return f", stage {first}" if first == last else f", stages {first} to {last}"
