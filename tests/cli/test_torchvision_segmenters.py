"""`detseg weights import` with torchvision's segmenters. Oracle: torchvision's own answers to the same pictures."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import segmentation

from detseg.checkpoints import read_card
from detseg.checkpoints.torchvision_files import BUILDERS
from detseg.cli.main import main
from detseg.runtimes import open_runtime

SEGMENTERS = [name for name in BUILDERS if hasattr(segmentation, name)]
LIGHT = ("deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")


def made(builder: str, classes: int, **options) -> nn.Module:
    torch.manual_seed(0)
    model = getattr(segmentation, builder)(weights=None, weights_backbone=None, num_classes=classes, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(2, 3, 96, 96))  # batch norms fit what they see: answers differ by place
    return model.eval()


def test_all_six_are_there():
    assert len(SEGMENTERS) == 6


@pytest.mark.parametrize(
    "builder", [pytest.param(name, marks=() if name in LIGHT else pytest.mark.slow) for name in SEGMENTERS]
)
def test_every_segmenter_says_what_torchvision_says(builder, tmp_path, capsys):
    theirs, file = made(builder, 21), tmp_path / "net.pth"
    torch.save(theirs.state_dict(), file)
    assert main(["weights", "import", str(file), "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["torchvision"] == builder
    assert "taken for PASCAL VOC's" in told.err
    card = read_card(file.with_suffix(".safetensors"))
    assert card.task == "segment"
    assert card.categories.names[:3] == ("background", "aeroplane", "bicycle")
    assert card.categories.ids == tuple(range(21))
    frames = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8), (128, 96))[None]
    found = open_runtime(file.with_suffix(".safetensors"), device="cpu").segment(frames)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # torchvision's presets
    with torch.no_grad():
        wanted = theirs(((torch.from_numpy(frames) / 255 - mean) / std).permute(0, 3, 1, 2))["out"].numpy()
    assert wanted.std() > 0.01
    np.testing.assert_allclose(found, wanted, atol=2e-4 * max(1.0, float(np.abs(wanted).max())))


def test_own_classes_and_files_without_the_auxiliary_head(tmp_path, capsys):
    theirs = made("deeplabv3_mobilenet_v3_large", 3, aux_loss=False)
    torch.save({"model": theirs.state_dict(), "epoch": 2}, tmp_path / "mine.pth")
    assert main(["weights", "import", str(tmp_path / "mine.pth")]) == 4
    assert "has 3 classes, which are not PASCAL VOC's" in capsys.readouterr().err
    (tmp_path / "few.names").write_text("cat\n")
    assert main(["weights", "import", str(tmp_path / "mine.pth"), "--names", str(tmp_path / "few.names")]) == 4
    assert "3 classes with the background, 1 names" in capsys.readouterr().err
    (tmp_path / "my.names").write_text("cat\ndog\n")
    assert main(["weights", "import", str(tmp_path / "mine.pth"), "--names", str(tmp_path / "my.names")]) == 0
    card = read_card(tmp_path / "mine.safetensors")
    assert card.categories.names == ("background", "cat", "dog")
    assert card.config["auxiliary_weight"] == 0
