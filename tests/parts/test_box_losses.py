"""Oracle: torchvision's own box losses and the numpy formulas of the geometry room."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchvision.ops as ops

from detseg.geometry import boxes as geometry
from detseg.parts.box_losses import box_loss, paired_iou


def pairs(n: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    corners = torch.rand((2, n, 2), generator=generator) * 80
    sides = torch.rand((2, n, 2), generator=generator) * 60 + 1
    a, b = torch.cat([corners, corners + sides], dim=2).unbind()
    b[: n // 4] = a[: n // 4] + 3  # some that overlap much
    return a, b


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        ("giou", ops.generalized_box_iou_loss),
        ("diou", ops.distance_box_iou_loss),
        ("ciou", ops.complete_box_iou_loss),
    ],
)
def test_losses_and_their_gradients_are_torchvisions(kind, theirs):
    a, b = pairs()
    mine_in, theirs_in = a.clone().requires_grad_(), a.clone().requires_grad_()
    mine, expected = box_loss(mine_in, b, kind), theirs(theirs_in, b)
    torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-5)
    mine.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(mine_in.grad, theirs_in.grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_pairs_say_what_the_geometry_room_says(kind):
    a, b = pairs()
    table = getattr(geometry, kind)(a.double().numpy(), b.double().numpy())
    np.testing.assert_allclose(paired_iou(a, b, kind).numpy(), np.diag(table), atol=1e-5)


def test_degenerate_boxes_give_finite_gradients():
    a = torch.tensor([[5.0, 5, 5, 5], [0, 0, 10, 10]], requires_grad=True)
    box_loss(a, torch.tensor([[5.0, 5, 5, 5], [3, 3, 3, 3]]), "ciou").sum().backward()
    assert torch.isfinite(a.grad).all()


def test_each_kind_by_hand():
    # (0, 0, 2, 2) and (1, 1, 3, 3) share 1 of 7; the box around both has 9, its diagonal squared is 18, their centres
    # are sqrt 2 apart. (0, 0, 2, 2) and (0, 0, 2, 1): 1/2; centres 1/2 apart, diagonal squared 8; arctan 1 and arctan 2
    a, b = torch.tensor([[0.0, 0, 2, 2]]).repeat(2, 1), torch.tensor([[1.0, 1, 3, 3], [0, 0, 2, 1]])
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(2)) ** 2
    expected = {
        "iou": [1 / 7, 1 / 2],
        "giou": [1 / 7 - 2 / 9, 1 / 2],
        "diou": [1 / 7 - 2 / 18, 1 / 2 - 0.25 / 8],
        "ciou": [1 / 7 - 2 / 18, 1 / 2 - 0.25 / 8 - v * v / (0.5 + v)],
    }
    for kind, values in expected.items():
        assert box_loss(a, b, kind).tolist() == pytest.approx([1 - value for value in values], abs=1e-6)
