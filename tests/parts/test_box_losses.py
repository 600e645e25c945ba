"""Oracle: torchvision's own box losses and the numpy formulas of the geometry room."""

from __future__ import annotations

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
