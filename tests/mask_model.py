"""A detector that answers with masks, whose answer is known: it finds what is red and what is green, and outlines it.

Two candidates, two classes, as in `colour_model`, and for each a mask of 8 by 8: how much of each part of its box is
of the colour. `install` lists it in the catalog as a model that can be trained: what it learns is nothing, what it is
told is kept for the test to look at.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from detseg import catalog
from detseg.backbones.spec import Backbone, FeatureSpec, Stage
from detseg.detectors.contract import Detector, Target
from detseg.results import RawDetections

NAME = "colour-masks"
SIDE = 8


class Config(NamedTuple):
    """What a checkpoint of it stores."""

    num_classes: int
    backbone: str = "none"


class Nothing(Backbone):
    """A backbone without anything to learn or freeze."""

    features = (FeatureSpec(3, 1),)
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The images."""
        return [images]

    def stages(self) -> list[Stage]:
        """Two, as many as are frozen where nothing is said."""
        return [nn.Identity(), nn.Identity()]


class ColourMasks(Detector):
    """Boxes and masks of the red and the green pixels; frames are not normalised."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = Nothing()
        self.weight = nn.Parameter(torch.ones(2, 1))
        self.seen: list[tuple[Tensor, list[Target]]] = []

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """How far the weight is from 2; images and targets are kept."""
        self.seen.append((images, targets))
        return {"loss": ((self.weight - 2) ** 2).sum()}

    def detect(self, images: Tensor) -> RawDetections:
        """(N, 2, 4), (N, 2, K), (N, 2, 8, 8)."""
        red, green, blue = images.unbind(1)
        colours = torch.stack([(red > 150) & (green < 100), (green > 150) & (red < 100)], 1) & (blue < 100)[:, None]
        boxes = torch.stack([self._ends(colours, across) for across in (2, 3)], -1).flatten(2)
        scores = torch.zeros(len(images), 2, self.config.num_classes)
        there = colours.flatten(2).any(-1)
        scores[:, [0, 1], [0, 1]] = there * torch.tensor([0.9, 0.8])
        one = [boxes[:, i] for i in (0, 1)]
        masks = [
            roi_align(colours[:, i : i + 1].float(), [b[None] for b in one[i]], SIDE, sampling_ratio=4, aligned=True)
            for i in (0, 1)
        ]
        return RawDetections(boxes, scores, torch.cat(masks, 1))

    @staticmethod
    def _ends(colours: Tensor, across: int) -> Tensor:
        """(N, 2, 2) first and last + 1 of the columns (2) or rows (3) that show the colour."""
        shown = colours.any(dim=across).float()
        places = torch.arange(shown.shape[-1])
        first = torch.where(shown > 0, places, shown.shape[-1]).amin(-1)
        return torch.stack([first, torch.where(shown > 0, places + 1, 0).amax(-1)], -1).float()


def module() -> ModuleType:
    """The model's module, as the catalog wants one."""
    made: Any = ModuleType(f"detseg.detectors.{NAME}")
    made.NEEDS_MASKS = True
    made.configure = lambda classes, options, anchors: Config(classes)
    made.config_from_json = lambda values: Config(**values)
    made.config_to_json = lambda config: {k: v for k, v in config._asdict().items() if k != "num_classes"}

    def build(config: Config, **_: object) -> ColourMasks:
        return ColourMasks(config)

    made.build = build
    found: ModuleType = made
    return found


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists the model as long as the test runs."""
    training: Mapping[str, Any] = {"mosaic": 0.0, "multi_scale": 0.0, "augment": "none", "ema": 0.0}
    entry = catalog.Entry(NAME, NAME, "a test", "finds what is red or green", 160, backbone="none", training=training)
    monkeypatch.setitem(catalog.CATALOG, NAME, entry)
    monkeypatch.setitem(sys.modules, f"detseg.detectors.{NAME}", module())
