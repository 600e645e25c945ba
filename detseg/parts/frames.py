"""Pictures of different sizes in one batch: where each ends in its frame, and what that means for boxes.

N pictures; sizes_hw (N, 2): height and width of each from the top left of its frame.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def padded(images: Tensor, multiple: int) -> Tensor:
    """(N, 3, H, W) -> with zeros at right and bottom so that both sides are multiples of `multiple`."""
    height, width = images.shape[-2:]
    down, right = -height % multiple, -width % multiple
    return F.pad(images, (0, right, 0, down)) if down or right else images


def sizes_of(images: Tensor, sizes_hw: Tensor | None) -> Tensor:
    """(N, 2) float on the images' device: `sizes_hw`, or of None the whole frame for each."""
    if sizes_hw is None:
        return torch.tensor(images.shape[-2:], dtype=torch.float32, device=images.device).expand(len(images), 2)
    return sizes_hw.to(images.device, torch.float32)


def clipped(boxes: Tensor, sizes_hw: Tensor) -> Tensor:
    """(n, ..., 4) boxes cut to the picture of their row, (n, 2) sizes -> the same shape."""
    limits = sizes_hw.flip(-1).reshape(len(sizes_hw), *[1] * (boxes.ndim - 2), 2)  # (w, h)
    corners = boxes.unflatten(-1, (2, 2)).clamp(min=0)
    return torch.minimum(corners, limits.unsqueeze(-2)).flatten(-2)


def whole_frames(images: Tensor) -> list[Tensor]:
    """For each picture its frame as the one proposal (1, 4)."""
    height, width = images.shape[2:]
    whole = torch.tensor([[0.0, 0.0, width, height]], device=images.device)
    return [whole] * images.shape[0]
