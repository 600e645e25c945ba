"""Frames that go on beyond their borders, mirrored.

O. Ronneberger et al.: U-Net, 2015, arXiv 1505.04597, section 2 and fig. 2, the overlap-tile strategy: what a network
without padding needs beyond the picture's border is the picture, mirrored.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mirrored(images: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """(N, C, H, W) -> with so many `rows` above and below and `columns` left and right, each at least 0.

    The outermost pixels are the mirror and stand once. A picture shorter than what it is to be extended by is mirrored
    again and again; one of a single row or column repeats it.
    """
    height, width = images.shape[2:]
    images = images.index_select(2, _there_and_back(height, rows, images.device))
    return images.index_select(3, _there_and_back(width, columns, images.device))


def _there_and_back(length: int, more: tuple[int, int], device: torch.device) -> Tensor:
    """The indices 0 .. length - 1, gone on with to both sides: ... 2 1 0 1 2 ... length - 1, length - 2 ..."""
    period = max(1, 2 * (length - 1))
    places = torch.arange(-more[0], length + more[1], device=device) % period
    return torch.minimum(places, period - places)
