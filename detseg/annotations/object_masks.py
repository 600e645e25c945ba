"""Objects in pictures of numbers: each number another object, or each connected part of a class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from detseg.annotations.categories import Categories
from detseg.annotations.dataset import AnnotationSet
from detseg.annotations.draft import Draft
from detseg.annotations.semantic import IGNORE, SemanticSet

BACKGROUND_NAMES = frozenset({"background", "__background__", "_background_", "bg"})


class MaskedObject(NamedTuple):
    """The pixels of one number: run lengths {"size", "counts"}, box xyxy, count of pixels."""

    number: int
    rle: dict[str, Any]
    box: tuple[float, float, float, float]
    area: int


def objects_in(numbers: NDArray[np.integer], passed_over: Sequence[int] = (0,)) -> Iterator[MaskedObject]:
    """The objects of an (h, w) picture of numbers, in their order; some numbers are no objects."""
    h, w = numbers.shape
    columns = numbers.T.ravel()  # run lengths go column by column
    places = np.flatnonzero(~np.isin(columns, passed_over))
    order = np.argsort(columns[places], kind="stable")
    places, found = places[order], columns[places[order]]
    first = np.flatnonzero(np.concatenate([[True], found[1:] != found[:-1]])) if len(found) else np.zeros(0, int)
    for start, end in zip(first.tolist(), [*first[1:].tolist(), len(found)], strict=False):
        yield _object(int(found[start]), places[start:end], h, w)


def _object(number: int, places: NDArray[np.intp], h: int, w: int) -> MaskedObject:
    """places: sorted, of the object's pixels, counted column by column."""
    breaks = np.flatnonzero(np.diff(places) != 1)
    begins = places[np.concatenate([[0], breaks + 1])]
    ends = places[np.concatenate([breaks, [len(places) - 1]])] + 1
    edges = np.stack([begins, ends], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], edges, [h * w] * int(edges[-1] < h * w)]))
    rle = coco_mask.frPyObjects({"size": [h, w], "counts": counts.tolist()}, h, w)
    xs, ys = places // h, places % h
    box = (float(xs[0]), float(ys.min()), float(xs[-1] + 1), float(ys.max() + 1))
    return MaskedObject(number, {"size": [h, w], "counts": rle["counts"]}, box, len(places))


def components(of_class: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(h, w) -> the connected parts (8 neighbours) numbered from 1; 0 elsewhere."""
    _, numbers = cv2.connectedComponents(of_class.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    return np.asarray(numbers, np.int32)


def objects_from_label_maps(maps: SemanticSet) -> AnnotationSet:
    """Label maps as objects: every connected part (8 neighbours) of a class is one, its mask the outline.

    Touching objects of one class become one: label maps do not tell them apart. A class called background is no
    object; IGNORE pixels are none. Raises DataError for a mask that cannot be used.
    """
    names = maps.categories.names
    kept = [i for i, name in enumerate(names) if name.lower() not in BACKGROUND_NAMES]
    draft = Draft(maps.root, maps.format)
    draft.faults += maps.faults
    number = 0
    for image, file in enumerate(maps.image_files):
        label_map = maps.label_map(image)
        h, w = label_map.shape
        picture = draft.add_picture(file, (h, w), file, int(maps.image_ids[image]))
        for label, index in enumerate(kept):
            of_class = label_map == index
            if index == IGNORE or not of_class.any():
                continue
            for part in objects_in(components(of_class)):
                number += 1
                draft.add_box(picture, part.box, label, number, area=part.area, segmentation=part.rle)
    return draft.finish(Categories(tuple(maps.categories.ids[i] for i in kept), tuple(names[i] for i in kept)))
