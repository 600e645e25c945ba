"""`Matcher`: which prior (default box, anchor, proposal) answers for which truth.

Shapes: T truths, P priors. The answer is a row of P numbers: the truth's index, or one of the two below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

BACKGROUND = -1
UNDECIDED = -2  # neither: between the thresholds, or in an ignored region


@dataclass(frozen=True)
class Matcher:
    """Matches by overlap: from `high` on a prior answers for its best truth, below `low` it is background.

    `forced` says which priors answer for a truth whatever the overlap:
    "no"; "best": the one prior that overlaps a truth most (SSD sec. 2.2), even where another truth suits that prior
    better; "ties": every prior that overlaps a truth as much as none does more, each for its own best truth (Faster
    R-CNN sec. 3.1.2, case (i), in the way of Detectron).
    Raises ValueError when low > high.
    """

    high: float = 0.5
    low: float = 0.5
    forced: Literal["no", "best", "ties"] = "no"

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"low must not be above high, got {self.low} and {self.high}")

    def __call__(self, overlaps: Tensor) -> Tensor:
        """(T, P) overlaps -> (P,) int64: index of the truth, BACKGROUND or UNDECIDED. No truth: all BACKGROUND."""
        truths, priors = overlaps.shape
        if not truths or not priors:
            return torch.full((priors,), BACKGROUND, dtype=torch.int64, device=overlaps.device)
        best, nearest = overlaps.max(dim=0)
        matched = torch.where(best < self.high, UNDECIDED, nearest)
        matched = torch.where(best < self.low, BACKGROUND, matched)
        if self.forced == "best":
            # of two truths with the same best prior the later one gets it, on every device
            claimed = overlaps.argmax(dim=1)
            order = torch.arange(truths, device=overlaps.device)
            matched = matched.scatter_reduce(0, claimed, order, "amax", include_self=False)
        elif self.forced == "ties":
            ties = (overlaps == overlaps.amax(dim=1, keepdim=True)).any(dim=0)
            matched = torch.where(ties, nearest, matched)
        return matched
