"""Objects from a label map: what belongs to a class, cut where objects touch.

L. Vincent, P. Soille: Watersheds in digital spaces, 1991; here scikit-image's. The landscape is the distance of each
pixel to the next one of another class, upside down: every object is a basin, and basins meet in the necks between them.
Made for things of one kind that lie side by side: cells, grains, stones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg.annotations.categories import Categories
from detseg.annotations.object_masks import BACKGROUND_NAMES, objects_in
from detseg.results import Detections, LabelMap, Masks

Numbers = NDArray[np.int32]


@dataclass(frozen=True)
class Watershed:
    """How regions are cut; all in pixels. Raises ValueError when out of range.

    `depth`: two centres are two objects where the way from one to the other comes nearer to the border by this much
    than the lesser of them is; `smoothing`: sigma of a Gaussian over the distances, against ragged borders;
    `min_area`: smaller objects are none.
    """

    depth: float = 1.0
    smoothing: float = 1.0
    min_area: int = 16

    def __post_init__(self) -> None:
        if self.depth <= 0 or self.smoothing < 0 or self.min_area < 1:
            raise ValueError(
                f"depth must be above 0, smoothing at least 0 and min_area at least 1, got {self.depth}, "
                f"{self.smoothing} and {self.min_area}"
            )


def object_classes(categories: Categories) -> tuple[int, ...]:
    """All classes but background."""
    return tuple(i for i, name in enumerate(categories.names) if name.lower() not in BACKGROUND_NAMES)


def instances(found: LabelMap, classes: Sequence[int], watershed: Watershed | None = None) -> Detections:
    """The objects of some classes in a label map, best first; masks are disjoint, boxes tight.

    A score is the mean over the object's pixels of how sure the network is of them, 1 where `found` does not tell.
    """
    settings = watershed or Watershed()
    shares = np.ones(found.image_hw, np.float32) if found.shares is None else found.shares
    boxes, scores, labels, counts = [], [], [], []
    for label in classes:
        numbers = cut(found.labels == label, settings)
        sums = np.bincount(numbers.ravel(), shares.ravel())
        for one in objects_in(numbers):
            if one.area < settings.min_area:
                continue
            boxes.append(one.box)
            scores.append(min(1.0, sums[one.number] / one.area))
            labels.append(label)
            counts.append(one.rle["counts"])
    return Detections(
        found.image_hw,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels, np.int64),
        found.path,
        Masks(found.image_hw, tuple(counts)),
    ).by_score()


def cut(region: NDArray[np.bool_], watershed: Watershed) -> Numbers:
    """(h, w) bool -> the number of each pixel's object, from 1 on; 0 outside the region."""
    from skimage.segmentation import watershed as flooded  # a second to import

    if not region.any():
        return np.zeros(region.shape, np.int32)
    distance = cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    if watershed.smoothing:
        distance = cv2.GaussianBlur(distance, (0, 0), watershed.smoothing)
    centres = _centres(np.where(region, distance, 0).astype(np.float32), region, watershed.depth)
    return np.asarray(flooded(-distance, centres, mask=region, connectivity=np.ones((3, 3))), np.int32)


def _centres(distance: NDArray[np.float32], region: NDArray[np.bool_], depth: float) -> Numbers:
    """(h, w) the number of each object's middle, 0 elsewhere: one for every part of the region at least."""
    from skimage.morphology import local_maxima, reconstruction

    square = np.ones((3, 3))
    # after this what stands out by less than `depth` is as high as what it stands on
    lowered = reconstruction(distance - np.float32(depth), distance, footprint=square)
    tops = region & local_maxima(lowered, footprint=square)
    # a part that nowhere is `depth` high is one object
    count, parts = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
    topped = np.zeros(count, np.bool_)
    topped[parts[tops]] = True
    tops |= region & ~topped[parts]
    return np.asarray(cv2.connectedComponents(tops.astype(np.uint8), connectivity=8)[1], np.int32)
