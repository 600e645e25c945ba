"""Truth of one picture, written by hand."""

from __future__ import annotations

import torch

from detseg.detectors.contract import Target


def target(boxes: list[list[float]], labels: list[int], ignored: list[bool] | None = None) -> Target:
    """xyxy boxes, class indices, and which are ignored; none unless told."""
    flags = ignored or [False] * len(labels)
    return Target(
        torch.tensor(boxes).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(flags, dtype=torch.bool),
    )
