"""`Detections`: the objects found in one picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.results.masks import Masks


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes, scores and labels of one picture, in its own pixels, upright.

    boxes (n, 4) float32 xyxy; scores (n,) float32 in [0, 1]; labels (n,) int64, class index 0..K-1 (the writers
    turn it into the data set's own id). `image_hw` is the size of the picture, `path` where it came from. `masks`,
    of a model that outlines its objects, hold the pixels of each; a mask is not bound to lie in its box.
    Raises ValueError when shapes, dtypes or values contradict each other.
    """

    image_hw: tuple[int, int]
    boxes: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    scores: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    path: Path | None = None
    masks: Masks | None = None

    def __post_init__(self) -> None:
        n = len(self.boxes)
        _expect("boxes", self.boxes, (n, 4), np.float32)
        _expect("scores", self.scores, (n,), np.float32)
        _expect("labels", self.labels, (n,), np.int64)
        if not np.isfinite(self.boxes).all():
            raise ValueError("boxes must be finite numbers")
        if n and not (self.scores.min() >= 0 and self.scores.max() <= 1):
            raise ValueError(f"scores must lie in [0, 1], got {self.scores.min()} .. {self.scores.max()}")
        if n and self.labels.min() < 0:
            raise ValueError(f"labels must be class indices >= 0, got {self.labels.min()}")
        if self.masks is not None:
            _expect_masks(self.masks, n, self.image_hw)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: NDArray[Any] | slice) -> Detections:
        """The detections at `rows` (indices, a mask or a slice)."""
        masks = None if self.masks is None else self.masks[rows]
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], labels=self.labels[rows], masks=masks)

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], float, int]]:
        """(box, score, label) of each object."""
        for box, score, label in zip(self.boxes, self.scores, self.labels, strict=True):
            yield box, float(score), int(label)

    def by_score(self) -> Detections:
        """The same detections, best first; equal scores keep their order."""
        return self[np.argsort(-self.scores, kind="stable")]

    def of_classes(self, labels: list[int]) -> Detections:
        """Only the detections whose class index is one of `labels`."""
        return self[np.isin(self.labels, labels)]


def _expect(name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: type[Any]) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"{name} must be {np.dtype(dtype).name} of shape {shape}, got {array.dtype.name} of shape {array.shape}"
        )


def _expect_masks(masks: Masks, count: int, image_hw: tuple[int, int]) -> None:
    if len(masks) != count:
        raise ValueError(f"there must be a mask for each of {count} objects, got {len(masks)}")
    if tuple(masks.image_hw) != tuple(image_hw):
        raise ValueError(f"masks must be of the picture's size {tuple(image_hw)}, got {tuple(masks.image_hw)}")
