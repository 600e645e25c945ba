"""`LabelMap`: the class of every pixel of one picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.geometry import rle as run_lengths


@dataclass(frozen=True, eq=False)
class LabelMap:
    """labels (h, w) uint8: class index 0..K-1 of each pixel of the upright picture; `path` where it came from.

    `shares` (h, w) float32 in [0, 1], where somebody asked for them: how sure the network is of each pixel's class.
    Raises ValueError for another shape or dtype.
    """

    labels: NDArray[np.uint8]
    path: Path | None = None
    shares: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.dtype != np.uint8:
            raise ValueError(f"labels must be uint8 of shape (h, w), got {self.labels.dtype} of {self.labels.shape}")
        if self.shares is not None and (self.shares.shape != self.labels.shape or self.shares.dtype != np.float32):
            raise ValueError(f"shares must be float32 of shape {self.labels.shape}, got {self.shares.dtype}")

    @property
    def image_hw(self) -> tuple[int, int]:
        """The size of the picture."""
        return self.labels.shape[0], self.labels.shape[1]

    def mask(self, label: int) -> dict[str, Any]:
        """Where a class is, as COCO's run lengths {"size", "counts"}."""
        return run_lengths.encode(self.labels == label)

    def areas(self, num_classes: int) -> NDArray[np.int64]:
        """(K,) pixels of each class. Raises ValueError where a label is none of them."""
        counts = np.bincount(self.labels.reshape(-1), minlength=num_classes)
        if len(counts) > num_classes:
            raise ValueError(f"a label is {len(counts) - 1}, and there are {num_classes} classes")
        return counts.astype(np.int64)
