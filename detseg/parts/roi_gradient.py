"""RoIAlign whose gradient is quick on a CPU.

torchvision's kernel adds up the gradient of a map number by number, in one thread: 40 % of a training step of a light
Faster R-CNN. A cell of a pooled region is a weighted sum of the map's pixels, the same for all channels, so the
gradient is a product with one sparse matrix; the numbers are the same but for rounding.

Shapes: N pictures, S regions over all pictures, C channels, P pooled cells along a side, T = 2 * sampling terms of a
cell along an axis.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import roi_align


def aligned_regions(x: Tensor, regions: Tensor, size: int, scale: float, sampling: int) -> Tensor:
    """`torchvision.ops.roi_align`: (N, C, H, W), regions (S, 5) picture and xyxy -> (S, C, size, size)."""
    quick = x.device.type == "cpu" and sampling > 0 and x.requires_grad and torch.is_grad_enabled()
    if not quick:
        found: Tensor = roi_align(x, regions, size, scale, sampling)
        return found
    pooled: Tensor = _Aligned.apply(x, regions, size, scale, sampling)
    return pooled


class _Aligned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, regions: Tensor, size: int, scale: float, sampling: int) -> Tensor:
        ctx.save_for_backward(regions)
        ctx.shape, ctx.settings = x.shape, (size, scale, sampling)
        pooled: Tensor = roi_align(x, regions, size, scale, sampling)
        return pooled

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (regions,) = grads, ctx.saved_tensors
        count, channels, height, width = ctx.shape
        weights = _weights_of_pixels(regions, (count, height, width), *ctx.settings)
        found = weights @ grad.permute(0, 2, 3, 1).reshape(-1, channels)
        return found.view(count, height, width, channels).permute(0, 3, 1, 2), None, None, None, None


def _weights_of_pixels(regions: Tensor, shape: tuple[int, int, int], size: int, scale: float, sampling: int) -> Tensor:
    """Sparse (N * H * W, S * P * P): how much of each pixel is in each cell."""
    count, height, width = shape
    corners = regions[:, 1:] * scale
    sides = (corners[:, 2:] - corners[:, :2]).clamp(min=1)  # as in torchvision without `aligned`
    columns, of_columns = _terms(corners[:, 0], sides[:, 0], size, sampling, width)
    rows, of_rows = _terms(corners[:, 1], sides[:, 1], size, sampling, height)
    first = regions[:, 0].long()[:, None, None] * height
    pixels = ((first + rows)[:, :, None, :, None] * width + columns[:, None, :, None, :]).flatten()
    weights = (of_rows[:, :, None, :, None] * of_columns[:, None, :, None, :]).flatten()  # (S, P, P, T, T)
    order = pixels.argsort(stable=True)
    begins = torch.zeros(count * height * width + 1, dtype=torch.long)
    torch.cumsum(torch.bincount(pixels, minlength=count * height * width), 0, out=begins[1:])
    cells = order // (2 * sampling) ** 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        shape_of = (count * height * width, len(regions) * size * size)
        # a pixel that is in a cell by several points has a term for each
        return torch.sparse_csr_tensor(begins, cells, weights[order], shape_of, check_invariants=False)


def _terms(start: Tensor, side: Tensor, size: int, sampling: int, length: int) -> tuple[Tensor, Tensor]:
    """Along one axis: the places (S, P, T) that a cell is interpolated from, and their weights.

    As RoIAlign has it: points up to one pixel outside count as if on the edge, others not at all.
    """
    steps = (torch.arange(size * sampling, dtype=start.dtype, device=start.device) + 0.5) / (size * sampling)
    points = start[:, None] + side[:, None] * steps
    counts = ((points >= -1) & (points <= length)).to(points.dtype) / sampling
    points = points.clamp(0, length - 1)
    low = points.floor()
    beyond = points - low
    places = torch.stack([low, (low + 1).clamp(max=length - 1)], dim=-1).long()
    weights = torch.stack([(1 - beyond) * counts, beyond * counts], dim=-1)
    shape = (len(start), size, 2 * sampling)
    return places.view(shape), weights.view(shape)
