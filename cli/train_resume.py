"""`detseg train --resume`: a run goes on as it began. What would change its result is shown, and refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detseg.errors import DetsegError

from .tables import printable

if TYPE_CHECKING:
    from detseg.training.config import TrainConfig
    from detseg.training.setup import Prepared

# what may be another: where and how fast a run goes on. What is in the data is compared by itself.
_FREE = ("data", "device", "devices", "nodes", "workers", "cache", "tensorboard", "checkpoint_every")

Difference = tuple[str, Any, Any]  # name, the run's value, the new one


def resumed_config(run: Path, given: Mapping[str, Any], *, force: bool, quiet: bool) -> TrainConfig:
    """The configuration of the run in a folder, with what was given on the command line.

    Raises DetsegError where there is no run, and unless `force` where something given would change its result.
    """
    from detseg.training.config import TrainConfig

    file = run / "config.yaml"
    if not file.is_file():
        raise DetsegError(f"{run}: no run to resume: it has no config.yaml")
    began = TrainConfig.load(file)
    options = {**began.options, **given.get("options", {})}
    now = TrainConfig.load(file, **{**given, **({"options": options} if options else {})})
    told: list[Difference] = [
        (name, was, getattr(now, name))
        for name, was in began.model_dump(exclude={"options", *_FREE}).items()
        if was != getattr(now, name)
    ]
    told += [
        (f"option {name}", began.options.get(name), value)
        for name, value in options.items()
        if value != began.options.get(name)
    ]
    _refuse(run, "settings", told, force, quiet)
    return now


def expect_same_data(run: Path, prepared: Prepared, *, force: bool, quiet: bool) -> None:
    """Raises DetsegError, unless `force`, where the data are not those that the run in a folder began with."""
    from detseg.training.folder import origin_of_run

    began = origin_of_run(run)
    if began is None:
        return
    was, now = began["data"], prepared.origin["data"]
    told = [(name, was.get(name), now.get(name)) for name in {**was, **now} if was.get(name) != now.get(name)]
    _refuse(run, "data", told, force, quiet)


def _refuse(run: Path, what: str, told: list[Difference], force: bool, quiet: bool) -> None:
    if not told:
        return
    lines = [printable(f"  {name}: {_word(was)} -> {_word(now)}") for name, was, now in told]
    if not (quiet and force):
        click.echo("\n".join([f"{run}: the {what} of the run, and those of now:", *lines]), err=True)
    if not force:
        raise DetsegError(
            f"{run}: with other {what} the run would not end as it began; give it the same ones, or --force goes on "
            "regardless"
        )


def _word(value: Any) -> str:
    return "none" if value is None else str(value)
