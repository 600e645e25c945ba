"""`Masks`: which pixels belong to each object of a picture, as COCO's run lengths: a few hundred bytes an object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from detseg.geometry import rle as run_lengths


@dataclass(frozen=True, eq=False)
class Masks:
    """n masks of one picture of `image_hw` pixels; `counts`: for each COCO's compressed run lengths.

    Raises ValueError where one is not the text of a mask of this size.
    """

    image_hw: tuple[int, int]
    counts: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        for row, text in enumerate(self.counts):
            if not isinstance(text, bytes):
                raise ValueError(f"mask {row} must be bytes of run lengths, got {type(text).__name__}")
            try:
                run_lengths.check_runs(run_lengths.runs_of_text(text), self.image_hw)
            except ValueError as error:
                raise ValueError(f"mask {row} cannot be used: {error}") from error

    @classmethod
    def of(cls, masks: Sequence[NDArray[np.bool_]] | NDArray[np.bool_], image_hw: tuple[int, int]) -> Masks:
        """From (n, h, w) masks of the whole picture."""
        return cls._checked(image_hw, tuple(run_lengths.encode(mask)["counts"] for mask in masks))

    @classmethod
    def concatenate(cls, several: Sequence[Masks]) -> Masks:
        """The masks of one picture that came in parts, at least one."""
        return cls._checked(several[0].image_hw, tuple(text for one in several for text in one.counts))

    @classmethod
    def _checked(cls, image_hw: tuple[int, int], counts: tuple[bytes, ...]) -> Masks:
        """Of texts that were looked at before: they are not read again."""
        masks = object.__new__(cls)
        object.__setattr__(masks, "image_hw", image_hw)
        object.__setattr__(masks, "counts", counts)
        return masks

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, rows: NDArray[Any] | slice) -> Masks:
        """The masks at `rows` (indices, a mask or a slice)."""
        kept = np.arange(len(self.counts))[rows]
        return self._checked(self.image_hw, tuple(self.counts[row] for row in kept.tolist()))

    def rle(self, row: int) -> dict[str, Any]:
        """{"size": [h, w], "counts": bytes}, the form that pycocotools takes."""
        h, w = self.image_hw
        return {"size": [int(h), int(w)], "counts": self.counts[row]}

    def segmentation(self, row: int) -> dict[str, Any]:
        """The same as COCO's JSON has it: counts are text."""
        return {**self.rle(row), "counts": self.counts[row].decode("ascii")}

    def mask(self, row: int) -> NDArray[np.bool_]:
        """(h, w) the pixels of one object."""
        return run_lengths.decode(self.rle(row))

    def areas(self) -> NDArray[np.int64]:
        """(n,) pixels of each."""
        coded = [self.rle(row) for row in range(len(self))]
        return np.asarray(coco_mask.area(coded) if coded else [], np.int64)
