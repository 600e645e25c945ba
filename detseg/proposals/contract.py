"""`Proposals`: places in one picture where objects may be, best first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _no_boxes() -> NDArray[np.float32]:
    return np.zeros((0, 4), np.float32)


def _no_scores() -> NDArray[np.float32]:
    return np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False)
class Proposals:
    """boxes (n, 4) float32 xyxy in the pixels of the upright picture; scores (n,) float32, never rising.

    Read-only. Raises ValueError for anything else. There are no classes: what is there is for others to say.
    """

    boxes: NDArray[np.float32] = field(default_factory=_no_boxes)
    scores: NDArray[np.float32] = field(default_factory=_no_scores)

    def __post_init__(self) -> None:
        boxes, scores = np.array(self.boxes, np.float32), np.array(self.scores, np.float32)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"boxes must be (n, 4), got {boxes.shape}")
        if scores.shape != (len(boxes),):
            raise ValueError(f"{len(boxes)} boxes need as many scores, got {scores.shape}")
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ValueError("boxes and scores must be finite numbers")
        if (boxes[:, 2:] <= boxes[:, :2]).any():
            raise ValueError("boxes must have x1 < x2 and y1 < y2")
        if (np.diff(scores) > 0).any():
            raise ValueError("the best must come first: scores rise")
        for name, array in (("boxes", boxes), ("scores", scores)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @classmethod
    def of(cls, boxes: Any, scores: Any = None) -> Proposals:
        """From boxes in any order, best first; without scores they are in order, and each has the score 1."""
        xyxy = np.asarray(boxes, np.float32).reshape(-1, 4)
        values = np.ones(len(xyxy), np.float32) if scores is None else np.asarray(scores, np.float32).reshape(-1)
        if len(values) != len(xyxy):
            raise ValueError(f"{len(xyxy)} boxes need as many scores, got {len(values)}")
        order = np.argsort(-values, kind="stable")
        return cls(xyxy[order], values[order])

    def __len__(self) -> int:
        return len(self.boxes)

    def best(self, count: int | None) -> Proposals:
        """The first `count`; all for None."""
        return Proposals(self.boxes[:count], self.scores[:count])
