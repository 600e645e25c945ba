"""The quick gradient of RoIAlign is torchvision's own."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import roi_align

from detseg.parts.roi_gradient import aligned_regions


def gradients(x: torch.Tensor, regions: torch.Tensor, size: int, scale: float, sampling: int):
    found = []
    for pool in (aligned_regions, roi_align):
        leaf = x.clone().requires_grad_()
        pooled = pool(leaf, regions, size, scale, sampling)
        pooled.backward(torch.linspace(-1, 1, pooled.numel(), dtype=pooled.dtype).view(pooled.shape))
        found.append((pooled.detach(), leaf.grad))
    return found


@pytest.mark.parametrize("sampling", [1, 2, 3, 0])
@pytest.mark.parametrize("size", [1, 7])
def test_it_is_that_of_torchvision(size: int, sampling: int) -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 9, 13, generator=rng, dtype=torch.float64).to(memory_format=torch.channels_last)
    corners = torch.rand(60, 2, generator=rng, dtype=torch.float64) * torch.tensor([13.0, 9.0]) * 16
    sides = torch.rand(60, 2, generator=rng, dtype=torch.float64) * 200
    regions = torch.cat([torch.randint(3, (60, 1), generator=rng).double(), corners - 60, corners - 60 + sides], dim=1)
    special = [
        [1, 0, 0, 208, 144],  # the whole map
        [1, 50, 50, 50, 50],  # nothing, which counts as one pixel
        [1, -900, -900, -500, -500],  # outside: no gradient
        [2, 200, 140, 400, 300],  # mostly outside
        [2, -16, -16, 0, 0],  # its points less than a pixel outside
        [0, 16, 16, 32, 32],  # points exactly on pixels
    ]
    regions = torch.cat([regions, torch.tensor(special, dtype=torch.float64)])
    (pooled, ours), (expected, theirs) = gradients(x, regions, size, 1 / 16, sampling)
    assert torch.equal(pooled, expected)
    assert theirs.abs().max() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_no_region_means_no_gradient() -> None:
    (pooled, ours), (expected, theirs) = gradients(torch.randn(2, 3, 4, 4), torch.zeros(0, 5), 2, 0.5, 2)
    assert pooled.shape == expected.shape == (0, 3, 2, 2)
    assert torch.equal(ours, theirs)
    assert not ours.any()
