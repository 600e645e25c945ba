"""`balanced_sample`: a few positives and negatives of many, at random, so that the negatives do not drown them.

S. Ren et al. 2015, Faster R-CNN, sec. 3.1.3: "we randomly sample 256 anchors in an image ... where the sampled
positive and negative anchors have a ratio of up to 1:1"; R. Girshick 2015, Fast R-CNN, sec. 2.3: 25 % positives.
"""

from __future__ import annotations

import torch
from torch import Tensor


def balanced_sample(positive: Tensor, negative: Tensor, count: int, share: float) -> tuple[Tensor, Tensor]:
    """(P,) bool each -> rows of the positives and of the negatives drawn, ascending.

    At most `share` of `count` are positives; negatives make up for those that are missing. Draws from torch's
    generator, positives first.
    """
    drawn = _draw(positive, int(count * share))
    return drawn, _draw(negative, count - len(drawn))


def _draw(among: Tensor, most: int) -> Tensor:
    rows = among.nonzero()[:, 0]
    return rows[torch.randperm(len(rows), device=rows.device)[:most]].sort().values
