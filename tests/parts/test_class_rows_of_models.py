"""A checkpoint for other classes, of every model. Oracle: classes that change places, and nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from detseg import catalog

SMALL = {"backbone": "mobilenet_v3_small"}
DETECTORS: dict[str, dict[str, Any]] = {
    "yolo": SMALL,
    "ssd": SMALL,
    "ssdlite": SMALL,
    "localiser": SMALL,
    "sliding-window": {},
    "fast-rcnn": SMALL,
    "faster-rcnn": SMALL,
    "faster-rcnn-mobilenet-fpn-320": {},
    "mask-rcnn": SMALL,
    "rfcn": SMALL,
    "rcnn": SMALL,
    "darknet": {},
}
SEGMENTERS: dict[str, dict[str, Any]] = {
    "fcn": SMALL,
    "fcn-r50": {"backbone": "resnet18"},
    "segnet": {"backbone": "basic", "width": 8},
    "dilated-r50": {"backbone": "resnet18"},
    "deeplabv3-mobilenet": {},
    "deeplabv3plus": {"width": 16, "low_level": 8},
    "lraspp": SMALL,
    "lraspp-mobilenet": {},
    "unet": SMALL,
    "unet-valid": {"width": 4},
    "unet-plus-plus": SMALL,
    "vnet": {"width": 4},
    "patch-classifier": {},
}


def made(name: str, options: dict[str, Any], classes: int) -> Any:
    entry, module = catalog.entry(name), catalog.module(name)
    torch.manual_seed(classes)
    config = module.configure(classes, {"backbone": entry.backbone, **entry.options, **options}, None)
    model = module.build(config)
    with torch.no_grad():  # scores that start at zero would be alike, whatever their rows
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if parameter.ndim < 2 or not parameter.any() else 1e-3))
    return model.eval()


@pytest.mark.parametrize(("name", "options"), [*DETECTORS.items(), *SEGMENTERS.items()])
def test_what_differs_between_numbers_of_classes_is_told(name: str, options: dict[str, Any]):
    two, three = made(name, options, 2), made(name, options, 3)
    told = three.class_rows()
    states = two.state_dict(), three.state_dict()
    differing = {n for n in states[1] if states[0][n].shape != states[1][n].shape}
    covered = {n for n in differing if n in told or n.rpartition(".")[0] in told}
    assert differing
    assert differing == covered
    for n in covered:
        arranged = told.get(n) or told[n.rpartition(".")[0]]
        assert arranged.classes(len(states[1][n])) == 3
    adapted = three.adapted(states[0], {2: 1})
    for n in covered:
        assert adapted[n].shape == states[1][n].shape
    three.load_state_dict({n: v for n, v in adapted.items() if v.shape == states[1][n].shape}, strict=False)


def told_by(model: Any, task: str) -> list[Tensor]:
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if task == "segment":
            return [model.segment(images)]
        return [part for part in model.detect(images) if part is not None]


@pytest.mark.parametrize(("name", "options"), [*DETECTORS.items(), *SEGMENTERS.items()])
def test_classes_change_places(name: str, options: dict[str, Any]):
    model, other = made(name, options, 2), made(name, options, 2)
    task = catalog.entry(name).task
    before = told_by(model, task)
    other.load_state_dict(other.adapted(model.state_dict(), {0: 1, 1: 0}))
    after = told_by(other, task)
    if task == "segment":
        torch.testing.assert_close(after[0][:, [1, 0]], before[0], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(after[0], before[0], atol=1e-4)
        return
    boxes, scores = before[:2]
    assert (scores[..., 0] - scores[..., 1]).abs().max() > 3e-4 * scores.max()
    torch.testing.assert_close(after[1][..., [1, 0]], scores, atol=1e-5, rtol=1e-5)
    swapped = after[0][:, :, [1, 0]] if boxes.ndim == 4 else after[0]
    torch.testing.assert_close(swapped, boxes, atol=1e-3, rtol=1e-4)
