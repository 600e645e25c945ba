"""`MaskHead`: the shape of what is in a box, class by class, as a small picture of its own.

K. He, G. Gkioxari, P. Dollár, R. Girshick: Mask R-CNN, 2017, arXiv 1703.06870, section 3 and figure 4 (right).
Shapes: S boxes over all pictures, K classes, M sides of a mask, T truths of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from detseg.parts.batch_share import normaliser
from detseg.parts.box_heads import conv_blocks


@dataclass(frozen=True)
class MaskConfig:
    """The mask head; the defaults are the paper's numbers for a pyramid."""

    size: int = 14  # of the features of a box; its mask is twice as wide
    sampling: int = 2  # points that RoIAlign reads along each side of a cell
    convs: tuple[int, ...] = (256, 256, 256, 256)
    norm: bool = False  # batch norm behind each of them
    width: int = 256  # of the layer that doubles the size

    def __post_init__(self) -> None:
        if min(self.size, self.width, *self.convs) < 1:
            raise ValueError("sizes and widths must be at least 1")


class MaskHead(nn.Module):
    """Pooled features -> a logit for each class and each part of the box."""

    def __init__(self, channels: int, classes: int, config: MaskConfig) -> None:
        super().__init__()
        self.convs = conv_blocks(channels, config.convs, config.norm)
        last = config.convs[-1] if config.convs else channels
        self.larger = nn.ConvTranspose2d(last, config.width, 2, stride=2)
        self.logits = nn.Conv2d(config.width, classes, 1)
        for layer in (self.larger, self.logits):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(S, C, size, size) -> (S, K, M, M)."""
        logits: Tensor = self.logits(F.relu(self.larger(self.convs(x))))
        return logits.float()


def mask_loss(
    logits: Tensor, labels: Tensor, boxes: Sequence[Tensor], truths: Sequence[Tensor], masks: Sequence[Tensor]
) -> Tensor:
    """Mean binary cross entropy of the masks of the boxes' own classes (sec. 3); zero without boxes.

    logits (S, K, M, M), labels (S,); for each picture boxes (S_i, 4), the rows (S_i,) of the truths they answer for,
    and the truths' masks (T, H, W) in the frame.
    """
    side = logits.shape[-1]
    count = normaliser(len(labels)) * side**2
    if not len(labels):
        return logits.sum() * 0
    goals = torch.cat([_within(m, b, t, side) for m, b, t in zip(masks, boxes, truths, strict=True)])
    mine = logits[torch.arange(len(labels), device=labels.device), labels]
    return F.binary_cross_entropy_with_logits(mine, goals, reduction="sum") / count


@torch.no_grad()
def _within(masks: Tensor, boxes: Tensor, truths: Tensor, side: int) -> Tensor:
    """(T, H, W) masks, (S, 4) boxes, (S,) rows -> (S, side, side): what each box holds of its truth's mask."""
    if not len(boxes):
        return boxes.new_zeros(0, side, side)
    wanted, rows = truths.unique(return_inverse=True)  # of hundreds of masks a few are asked for
    regions = torch.cat([rows[:, None].to(boxes), boxes], dim=1)
    held: Tensor = roi_align(masks[wanted, None].to(boxes), regions, side)[:, 0]
    return held
