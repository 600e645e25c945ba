"""Pictures resized as RoIAlign samples them, but whole: a row of weights for each row and column that is made.

K. He, G. Gkioxari, P. Dollar, R. Girshick: Mask R-CNN, 2017, arXiv 1703.06870, sec. 3: each pixel is the mean of
`samples` x `samples` values, each by bilinear interpolation; beyond the picture lie zeros. A crop of the resized
picture is therefore what RoIAlign cuts out of the original one there. By matrices it is the same on every runtime.
"""

from __future__ import annotations

import torch
from torch import Tensor


def resampled(
    images: Tensor,
    spans: tuple[tuple[float, float], tuple[float, float]],
    size_hw: tuple[int, int],
    samples: tuple[int, int] = (1, 1),
) -> Tensor:
    """(N, C, H, W) -> (N, C, *size_hw): what lies between `spans` = ((top, bottom), (left, right)), in pixels.

    Pixel i covers i .. i + 1; the spans may reach beyond the picture.
    """
    down, across = (
        row_weights(length, span, count, n).to(images.device)
        for length, span, count, n in zip(images.shape[2:], spans, size_hw, samples, strict=True)
    )
    return down @ (images @ across.T)


def row_weights(length: int, span: tuple[float, float], count: int, samples: int = 1) -> Tensor:
    """(count, length) float32: how much each of `length` pixels is in each of `count` that share out `span` evenly."""
    start, end = span
    at = start + (torch.arange(count * samples, dtype=torch.float64) + 0.5) * (end - start) / (count * samples) - 0.5
    beyond = (at < -1) | (at > length)  # within a pixel of the edge its colour goes on, as RoIAlign has it
    at = at.clamp(0, length - 1)
    weights = (1 - (at[:, None] - torch.arange(length)).abs()).clamp(min=0)
    weights[beyond] = 0
    return weights.view(count, samples, length).mean(dim=1).float()
