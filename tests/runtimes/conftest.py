"""A small detector with every habit that makes folding and exporting hard, known to the catalog as `tiny`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from detseg import catalog
from detseg.annotations import Categories
from detseg.checkpoints import Card, save
from detseg.detectors.contract import Detector
from detseg.preprocess import Preprocess
from detseg.results import RawDetections

CLASSES = 3
TINY_CARD = Card(
    model="tiny",
    config={"quirk": ""},
    categories=Categories.from_names(["a", "b", "c"]),
    preprocess=Preprocess((48, 64)),
)


class Tiny(Detector):
    """5 batch norms of which 2 may be folded: that of `plain`, and `early`, defined before its input."""

    def __init__(self, classes: int, quirk: str) -> None:
        super().__init__()
        self.quirk = quirk
        self.early = nn.BatchNorm2d(8)
        self.plain = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.conv = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.before = nn.BatchNorm2d(8)  # not after a convolution
        self.twice, self.twice_norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)  # one norm, two uses
        self.rectified, self.relu, self.late = nn.Conv2d(8, 8, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, 4 + classes, 1)
        self.register_buffer("reach", torch.tensor([20.0]), persistent=False)
        for norm in (m for m in self.modules() if isinstance(m, nn.BatchNorm2d)):
            nn.init.normal_(norm.bias)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def losses(self, images: Tensor, targets: list) -> dict[str, Tensor]:
        return {"nothing": self.head.weight.sum() * 0}

    def detect(self, images: Tensor) -> RawDetections:
        x = self.plain(images)
        x = x + self.before(self.early(self.conv(x)).sigmoid())
        x = self.twice_norm(self.twice(self.twice_norm(self.twice(x)).sigmoid()))
        x = self.late(self.relu(self.rectified(x)))
        raw = self.head(x).flatten(2).transpose(1, 2)
        corner = raw[..., :2] * 10
        boxes = torch.cat([corner, corner + raw[..., 2:4].sigmoid() * self.reach], dim=-1)
        if self.quirk == "differs" and torch.compiler.is_compiling():
            boxes = boxes + 1
        if self.quirk == "decides" and images.sum() > 0:
            boxes = -boxes
        return RawDetections(boxes, raw[..., 4:].sigmoid())


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Makes the catalog build `tiny`; called with a quirk it writes a weight file."""
    known = catalog.build

    def build(name, config, num_classes, **options):
        return Tiny(num_classes, config["quirk"]) if name == "tiny" else known(name, config, num_classes, **options)

    monkeypatch.setattr(catalog, "build", build)

    def write(quirk: str = "", **changes) -> Path:
        torch.manual_seed(0)
        values = {name: getattr(TINY_CARD, name) for name in ("model", "categories", "preprocess")}
        card = Card(**(values | {"config": {"quirk": quirk}} | changes))
        path = tmp_path / f"tiny{quirk}.safetensors"
        save(path, card, Tiny(CLASSES, quirk).state_dict())
        return path

    return write
