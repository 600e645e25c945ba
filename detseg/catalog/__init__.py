"""The models by name: what `-m NAME` means. Torch-free: nothing heavy is imported until a model is asked for.

A name is a model file plus the options that make it what it is; a checkpoint stores the full config, so a changed
default here never changes an old checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from detseg.catalog.detectors import DETECTORS
from detseg.catalog.entry import Entry, Task, UsualNMS
from detseg.catalog.segmenters import SEGMENTERS
from detseg.errors import DetsegError

__all__ = ["CATALOG", "Entry", "Task", "UsualNMS", "build", "entry", "module", "names", "usual_nms"]

CATALOG = {entry.name: entry for entry in (*DETECTORS, *SEGMENTERS)}
_ROOMS = {"detect": "detectors", "segment": "segmenters"}


def names() -> list[str]:
    """The models' names."""
    return list(CATALOG)


def entry(name: str) -> Entry:
    """The model called `name`; DetsegError with a suggestion when there is none."""
    if name not in CATALOG:
        near = get_close_matches(name, CATALOG, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise DetsegError(f"no model is called {name!r}; {hint}there are: {', '.join(CATALOG)}")
    return CATALOG[name]


def usual_nms(name: str) -> UsualNMS:
    """What becomes of the overlapping candidates of the model `name`; of one that is not known the best stays."""
    return CATALOG[name].nms if name in CATALOG else "hard"


def module(name: str) -> Any:
    """The module of the model `name`: `configure`, `build`, `config_from_json`, `config_to_json`."""
    found = entry(name)
    return import_module(f"detseg.{_ROOMS[found.task]}.{found.module}")


def build(name: str, config: Mapping[str, Any], num_classes: int, *, backbone_weights: str | None = None) -> Any:
    """The model `name` with the config of a checkpoint, with random weights (or the backbone's own)."""
    own = module(name)
    return own.build(own.config_from_json({**config, "num_classes": num_classes}), backbone_weights=backbone_weights)
