"""Sums of probabilities in pieces against the same as ordinary tensors; their gradients by differences; bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from detseg.parts import soft_regions
from detseg.parts.label_maps import IGNORE, LabelMaps
from detseg.parts.soft_regions import SoftRegions


@pytest.fixture(params=[5, 1000], ids=["many pieces", "one piece"], autouse=True)
def pieces(request, monkeypatch) -> None:
    """84 pixels in pieces of 5 end in a piece of 4."""
    monkeypatch.setattr(soft_regions, "_ON_CPU", request.param)


def random(dtype: torch.dtype) -> tuple[Tensor, LabelMaps]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (2, 6, 7), generator=generator)
    labels[0, 2:4, :3] = IGNORE
    return torch.randn(2, 5, 6, 7, generator=generator, dtype=dtype), LabelMaps(labels)


def expected(logits: Tensor, labels: Tensor) -> SoftRegions:
    """The same with a tensor of truth that is 1 where a pixel counts and is of the class."""
    truth = torch.stack([labels == c for c in range(5)], dim=1).to(logits.dtype)
    counts = (labels != IGNORE)[:, None]
    p = logits.softmax(dim=1) * counts
    right = (logits.log_softmax(dim=1) * truth).sum(dim=1)
    return SoftRegions(right, *((x).sum(dim=(0, 2, 3)) for x in (p, truth, p * truth, p * p)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_they_are_the_sums(layout):
    logits, truth = random(torch.float32)
    ours = SoftRegions.of(logits.to(memory_format=layout), truth)
    for found, wanted in zip(ours, expected(logits, truth.labels), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    assert ours.true[4] == 0


@pytest.mark.parametrize("name", ["right", "found", "both", "squared"])
def test_gradients_are_those_of_differences(name):
    logits, truth = random(torch.float64)
    logits.requires_grad_()
    assert gradcheck(lambda x: getattr(SoftRegions.of(x, truth), name), logits)


def test_half_precision_around_it_changes_nothing():
    """Logits of bfloat16 are taken as they are; sums and gradients are not made in it."""
    given, truth = random(torch.float32)
    halves = given.bfloat16()
    gradients = []
    for logits, within in ((halves.float(), False), (halves.float(), True), (halves, True)):
        leaf = logits.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=within):
            soft = SoftRegions.of(leaf, truth)
            total = torch.stack([part.sum() for part in soft]).sum() + (soft.both / soft.found).sum()
        total.backward()
        assert soft.right.dtype == soft.found.dtype == torch.float32
        gradients.append((total.detach(), leaf.grad.float()))
    assert gradients[0][0] == gradients[1][0] == gradients[2][0]
    assert torch.equal(gradients[0][1], gradients[1][1])
    torch.testing.assert_close(gradients[2][1], gradients[0][1], rtol=1e-2, atol=1e-3)
