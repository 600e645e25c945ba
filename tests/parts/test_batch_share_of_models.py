"""A batch that processes share, of every model that can be. Oracle: the loss of the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from detseg.parts.batch_share import sharing
from detseg.parts.label_maps import IGNORE, LabelMaps
from detseg.parts.map_losses import Criterion, LossConfig
from tests.parts.test_class_rows_of_models import DETECTORS, SEGMENTERS, made
from tests.targets import target

# nothing is drawn at random where all are taken
EVERY_REGION = {"rpn.samples": 10**6, "box.samples": 10**6}
OPTIONS = {
    "fast-rcnn": {"box.samples": 10**6},
    "faster-rcnn": EVERY_REGION,
    "faster-rcnn-mobilenet-fpn-320": EVERY_REGION,
    "mask-rcnn": EVERY_REGION,
    "rfcn": {"rpn.samples": 10**6, "regions.hardest": False, "regions.samples": 10**6},
}
# pictures that are drawn from at random; and stages that processes cannot share
NOT_ASKED = ("sliding-window", "patch-classifier", "rcnn")
PARTS = (slice(0, 1), slice(1, 3))  # what each process has: a picture without objects; two others
HW = (96, 96)


def part_by_part(losses: Callable[[slice], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What two processes minimise together; they are asked twice, first for what they count."""
    weights = [(part.stop - part.start) / PARTS[-1].stop for part in PARTS]
    counted: list[list[Tensor]] = []
    for part, weight in zip(PARTS, weights, strict=True):
        mine: list[Tensor] = []
        with sharing(weight, lambda counts, mine=mine: mine.append(torch.tensor(counts)) or list(counts)):
            losses(part)
        counted.append(mine)
    totals = [sum(counts).tolist() for counts in zip(*counted, strict=True)]
    found: dict[str, Tensor] = {}
    for part, weight in zip(PARTS, weights, strict=True):
        left = iter(totals)
        with sharing(weight, lambda counts, left=left: next(left)):
            for name, value in losses(part).items():
                found[name] = found.get(name, torch.zeros(())) + weight * value
    return found


def of_detector(model: Any, name: str) -> Callable[[slice], dict[str, Tensor]]:
    images = torch.randn(3, 3, *HW, generator=torch.Generator().manual_seed(0))
    targets = [
        target([], []),
        target([[10, 12, 50, 60], [40, 30, 90, 90]], [1, 0]),
        target([[5, 50, 45, 92], [30, 20, 70, 44], [60, 50, 95, 95]], [0, 1, 1]),
    ]
    if name == "mask-rcnn":
        targets = [replace(t, masks=torch.zeros(len(t.labels), *HW, dtype=torch.bool)) for t in targets]
        for t in targets:
            for mask, (x1, y1, x2, y2) in zip(t.masks, t.boxes.int().tolist(), strict=True):
                mask[y1 + 3 : y2, x1 + 3 : x2] = True
    if model.takes_proposals:
        near = torch.tensor([[0.0, 0, 40, 40], [8, 10, 52, 64], [0, 48, 48, 96], [60, 0, 96, 30]])
        targets = [replace(t, proposals=torch.cat([near, t.boxes + 1])) for t in targets]
    return lambda part: model.losses(images[part], targets[part])


def of_segmenter(model: Any) -> Callable[[slice], dict[str, Tensor]]:
    images = torch.randn(3, 3, *HW, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 2, (3, *HW), generator=torch.Generator().manual_seed(1))
    labels[0], labels[1, :70] = IGNORE, IGNORE
    return lambda part: model.losses(images[part], LabelMaps(labels[part]))


def expect_parts_to_add_up(losses: Callable[[slice], dict[str, Tensor]], learnt: list[Tensor]) -> None:
    """Every loss, and the gradients of all together."""
    whole, parts = losses(slice(0, 3)), part_by_part(losses)
    assert parts.keys() == whole.keys()
    assert sum(whole.values()) > 0
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-5, msg=lambda told, name=name: name + told)
    ours, theirs = (
        torch.cat([g.flatten() for g in torch.autograd.grad(sum(found.values()), learnt, materialize_grads=True)])
        for found in (parts, whole)
    )
    assert theirs.norm() > 0
    assert (ours - theirs).norm() < 1e-3 * theirs.norm()


def learnt(model: Any) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@pytest.mark.parametrize("name", [name for name in DETECTORS if name not in NOT_ASKED])
def test_losses_of_a_detectors_parts_add_up(name: str):
    model = made(name, {**DETECTORS[name], **OPTIONS.get(name, {})}, 2)
    expect_parts_to_add_up(of_detector(model, name), learnt(model))


@pytest.mark.parametrize("name", [name for name in SEGMENTERS if name not in NOT_ASKED])
def test_losses_of_a_segmenters_parts_add_up(name: str):
    model = made(name, SEGMENTERS[name], 2)
    expect_parts_to_add_up(of_segmenter(model), learnt(model))


@pytest.mark.parametrize("term", ["cross_entropy", "focal", "dice", "generalised_dice", "jaccard", "tversky"])
def test_losses_of_label_maps_add_up(term: str):
    criterion = Criterion(LossConfig(terms=term, class_weights=(1.0, 3.0)))
    logits = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(2), requires_grad=True)
    labels = torch.randint(0, 2, (3, 8, 8), generator=torch.Generator().manual_seed(3))
    labels[0] = IGNORE
    expect_parts_to_add_up(lambda part: criterion(logits[part], LabelMaps(labels[part])), [logits])
