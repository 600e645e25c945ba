"""The detectors by name: what `-m NAME` means. Nothing heavy is imported until a model is asked for.

A name is a model file plus the options that make it what it is; a checkpoint stores the full config, so a changed
default here never changes an old checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from detseg.errors import DetsegError

if TYPE_CHECKING:
    from detseg.detectors.contract import Detector


@dataclass(frozen=True)
class Entry:
    """A model one can train: `module` holds `build`, `config_from_json`, `configure`.

    `options` make it what it is; `backbone` and `training`, settings of a run where this model departs from the usual
    ones, are only what is taken when nobody says otherwise.
    """

    name: str
    module: str
    paper: str
    summary: str
    imgsz: int
    options: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = "efficientnet_lite0"
    training: Mapping[str, Any] = field(default_factory=dict)


_PAPER_YOLO = {"decoding": "exp", "assignment": "best", "objectness": "one", "box_loss": "iou"}
_ENTRIES = (
    Entry("yolo", "yolo", "YOLOv3 (2018)", "three scales, tuned for CPUs: the default", 320),
    Entry(
        "yolov3",
        "yolo",
        "YOLOv3 (2018)",
        "three scales, assignment and decoding of the paper",
        416,
        _PAPER_YOLO,
    ),
    Entry(
        "yolov2",
        "yolo",
        "YOLO9000 (2017)",
        "one scale, assignment and decoding of the paper, objectness learns the IoU",
        416,
        {**_PAPER_YOLO, "objectness": "iou", "strides": (32,), "anchors_per_scale": 5},
    ),
)
CATALOG = {entry.name: entry for entry in _ENTRIES}


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


def build(name: str, config: Mapping[str, Any], num_classes: int, *, backbone_weights: str | None = None) -> Detector:
    """The detector `name` with the config of a checkpoint, with random weights (or the backbone's own)."""
    module = import_module(f"detseg.detectors.{entry(name).module}")
    settings = module.config_from_json({**config, "num_classes": num_classes})
    model: Detector = module.build(settings, backbone_weights=backbone_weights)
    return model
