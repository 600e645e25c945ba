"""`Truth`: a picture's objects and its ignored regions apart, as the two stages of a region network want them."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class Annotated(Protocol):
    """Truth as a detector is given it: boxes (n, 4), labels (n,), ignored (n,) bool."""

    @property
    def boxes(self) -> Tensor: ...

    @property
    def labels(self) -> Tensor: ...

    @property
    def ignored(self) -> Tensor: ...


class Truth(NamedTuple):
    """boxes (T, 4) and labels (T,) of the objects, regions (R, 4) that are neither objects nor background."""

    boxes: Tensor
    labels: Tensor
    regions: Tensor

    @classmethod
    def of(cls, target: Annotated) -> Truth:
        """The objects and the ignored regions of `target`."""
        counts = ~target.ignored
        return cls(target.boxes[counts], target.labels[counts], target.boxes[target.ignored])
