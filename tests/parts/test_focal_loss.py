"""Oracle: torchvision's focal loss, and cases worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision.ops as ops

from detseg.parts.focal_loss import binary_focal_loss


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.5, 2.0])
def test_values_and_gradients_are_torchvisions_for_plain_truths(gamma):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(400, generator=generator) * 3
    truth = (torch.rand(400, generator=generator) < 0.3).float()
    mine, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = binary_focal_loss(mine, truth, gamma)
    expected = ops.sigmoid_focal_loss(theirs, truth, alpha=-1, gamma=gamma)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-5)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-4)


def test_by_hand():
    # sigmoid(ln 3) = 3/4: for a truth of 1 the loss is (1/4)^2 ln(4/3), for 1/4 it is (1/2)^2 of the cross entropy
    logits = torch.tensor([math.log(3), math.log(3)])
    entropy = -(0.25 * math.log(0.75) + 0.75 * math.log(0.25))
    expected = [math.log(4 / 3) / 16, entropy / 4]
    assert binary_focal_loss(logits, torch.tensor([1.0, 0.25]), 2.0).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
def test_a_truth_that_is_met_gives_no_infinite_gradient(gamma):
    logits = torch.tensor([0.0, 80.0, -80.0], requires_grad=True)
    binary_focal_loss(logits, torch.tensor([0.5, 1.0, 0.0]), gamma).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_without_gamma_it_is_the_cross_entropy():
    logits, truth = torch.linspace(-4, 4, 9), torch.linspace(0, 1, 9)
    expected = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    assert torch.equal(binary_focal_loss(logits, truth), expected)
