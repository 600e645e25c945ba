"""`Entry`: a model one can train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

UsualNMS = Literal["hard", "vote"]
Task = Literal["detect", "segment"]


@dataclass(frozen=True)
class Entry:
    """A model one can train: `module` holds `build`, `config_from_json`, `config_to_json`, `configure`.

    `options` make it what it is; `backbone` and `training`, settings of a run where this model departs from the usual
    ones, are only what is taken when nobody says otherwise. `structure` are the settings that a checkpoint decides
    when training starts from it. `nms` is what its overlapping candidates become unless someone says otherwise.
    """

    name: str
    module: str
    paper: str
    summary: str
    imgsz: int
    options: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = "efficientnet_lite0"
    training: Mapping[str, Any] = field(default_factory=dict)
    structure: tuple[str, ...] = ()
    nms: UsualNMS = "hard"
    task: Task = "detect"
