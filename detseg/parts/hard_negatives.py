"""Hard negative mining: of the background only what is mistaken most, in proportion to the positives.

W. Liu et al. 2016, SSD, section 2.2: "we sort them using the highest confidence loss for each default box and pick
the top ones so that the ratio between the negatives and positives is at most 3:1".
"""

from __future__ import annotations

import torch
from torch import Tensor


def hard_negatives(loss: Tensor, positive: Tensor, excluded: Tensor, ratio: float = 3.0) -> Tensor:
    """(N, P) losses if it were background, which are positive, which are neither -> (N, P) True for those to learn.

    Picture by picture the `ratio` times its number of positives with the highest loss; none where it has no positive.
    """
    with torch.no_grad():
        rest = loss.masked_fill(positive | excluded, -torch.inf)
        rank = rest.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        wanted = ratio * positive.sum(dim=1, keepdim=True)
        return (rank < wanted) & ~positive & ~excluded
