"""How well proposals cover the objects of a data set: recall, average best overlap (ABO), its mean over classes (MABO).

For every object the best IoU with any proposal of its picture (Uijlings et al. 2013, section 5, equation 7). Crowds and
difficult objects are left out, as everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet
from detseg.geometry import boxes as box_geometry
from detseg.proposals.contract import Proposals


@dataclass(frozen=True)
class Coverage:
    """Recall and mean best overlap of some objects; not a number where there are none."""

    objects: int
    recall_50: float
    recall_70: float
    best_overlap: float

    @classmethod
    def of(cls, overlaps: NDArray[np.float64]) -> Coverage:
        """(n,) best overlaps."""
        if not len(overlaps):
            return cls(0, math.nan, math.nan, math.nan)
        return cls(
            len(overlaps), float((overlaps >= 0.5).mean()), float((overlaps >= 0.7).mean()), float(overlaps.mean())
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; None for what is not a number."""
        return {name: None if math.isnan(value) else value for name, value in vars(self).items()}


def best_overlaps(truth: AnnotationSet, picture: int, proposals: Proposals) -> NDArray[np.float64]:
    """(n,) for each annotation of the picture, those to be ignored too, the best IoU with any proposal."""
    objects = truth.boxes[truth.rows(picture)]
    if not len(proposals):
        return np.zeros(len(objects))
    return np.asarray(box_geometry.iou(objects, proposals.boxes.astype(np.float64)).max(axis=1, initial=0))


def coverage(truth: AnnotationSet, overlaps: NDArray[np.float64]) -> tuple[Coverage, dict[str, Coverage]]:
    """(M,) best overlaps of all annotations -> of all objects, and of each class that has any."""
    if overlaps.shape != truth.labels.shape:
        raise ValueError(f"{len(truth.labels)} annotations need as many overlaps, got {overlaps.shape}")
    counted = ~truth.ignored
    labels, values = truth.labels[counted], overlaps[counted]
    names = truth.categories.names
    by_class = {names[k]: Coverage.of(values[labels == k]) for k in np.unique(labels).tolist()}
    return Coverage.of(values), by_class


def mean_over_classes(by_class: dict[str, Coverage]) -> float:
    """MABO: the mean of the classes' average best overlaps; not a number where there are no objects."""
    return float(np.mean([c.best_overlap for c in by_class.values()])) if by_class else math.nan
