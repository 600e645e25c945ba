"""What is wrong with the objects of a set: given twice, outlines that disagree with boxes and areas, classes unused.

M: annotations.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from detseg.annotations import AnnotationSet
from detseg.annotations.categories import Categories
from detseg.annotations.outlines import Segmentation, rle_of
from detseg.checks.finding import Findings
from detseg.geometry.boxes import iou

_SAME = 0.99  # IoU from which two boxes are one
_OUTSIDE = 1.0  # pixels that a point may lie outside without a word: formats count and round differently
_BOX_PX, _BOX_SHARE = 3.0, 0.05  # how far a side of the box may lie from the outline's: pixels, and of the box
_AREA_SHARE = 0.1  # of the larger area
_NAMED = 8  # pictures named in one message


def check_objects(truth: AnnotationSet, split: str | None, source: str, found: Findings) -> None:
    """Records what is wrong with the objects of one part; `source` is the file or folder that it was read from."""
    _check_repeats(truth, split, source, found)
    for row in np.flatnonzero(truth.outlines.has).tolist():
        for kind, message in faults_of_outline(outlined(truth, row)):
            _add(found, kind, message, truth, row, split, source)
    for row in np.flatnonzero(too_large(truth)).tolist():
        message = f"area {truth.areas[row]:.6g} of {_of(truth, row)} is larger than its box"
        _add(found, "area", message, truth, row, split, source)


def check_classes(categories: Categories, used: NDArray[np.bool_], source: str, found: Findings) -> None:
    """Names that differ only by case or blanks, and classes without objects; `used` (K,)."""
    alike: dict[str, list[str]] = {}
    for name in categories.names:
        alike.setdefault(re.sub(r"[\s_-]+", " ", name).strip().casefold(), []).append(name)
        if name != name.strip():
            found.add("blank-in-name", source, f"class {name!r} begins or ends with a blank")
    for names in alike.values():
        if len(names) > 1:
            words = ", ".join(repr(name) for name in names)
            found.add("similar-names", source, f"classes {words} differ only by case or blanks")
    empty = [name for name, has in zip(categories.names, used.tolist(), strict=True) if not has]
    if empty:
        more = f" and {len(empty) - 20} more" if len(empty) > 20 else ""
        message = f"{len(empty)} of {len(categories)} classes have no object: {', '.join(empty[:20])}{more}"
        found.add("class-without-objects", source, message, count=len(empty))


def check_empty(truth: AnnotationSet, split: str | None, source: str, found: Findings) -> None:
    """One note on the pictures without objects."""
    empty = np.flatnonzero(np.diff(truth.starts) == 0)
    if len(empty):
        names = ", ".join(truth.image_files[i] for i in empty[:_NAMED])
        more = ", ..." if len(empty) > _NAMED else ""
        message = f"{len(empty)} of {len(truth)} pictures have no object: {names}{more}"
        found.add("empty-picture", source, message, split=split, count=len(empty))


def repeats(truth: AnnotationSet) -> Iterator[tuple[int, int]]:
    """Pairs of rows of one picture, first < second, whose boxes are one (IoU above 0.99)."""
    counts = np.diff(truth.starts)
    for image in np.flatnonzero(counts > 1).tolist():
        start, end = truth.starts[image], truth.starts[image + 1]
        boxes = truth.boxes[start:end]
        # boxes of an IoU above 0.99 begin near each other: sorted by their left edge, few need comparing
        order = np.argsort(boxes[:, 0], kind="stable")
        left = boxes[order, 0]
        reach = 0.011 * np.maximum(boxes[order, 2] - left, 1)
        ends = np.searchsorted(left, left + reach, side="right")
        for place in np.flatnonzero(ends - np.arange(len(left)) > 1).tolist():
            first, others = order[place], order[place + 1 : ends[place]]
            same = others[iou(boxes[first : first + 1], boxes[others])[0] > _SAME]
            yield from ((int(start + min(first, o)), int(start + max(first, o))) for o in same.tolist())


def duplicates(truth: AnnotationSet) -> Iterator[tuple[int, int]]:
    """Pairs of rows that are one object given twice: one class, one box, and outlines that do not differ."""
    for first, second in repeats(truth):
        same = truth.labels[first] == truth.labels[second] and truth.crowd[first] == truth.crowd[second]
        if same and not _differ(truth, first, second):
            yield first, second


def _check_repeats(truth: AnnotationSet, split: str | None, source: str, found: Findings) -> None:
    for first, second in sorted(duplicates(truth), key=lambda pair: (pair[1], pair[0])):
        name = truth.categories.names[truth.labels[second]]
        message = f"the same {name!r} as {_named(truth, first)} in {_picture(truth, second)}"
        _add(found, "duplicate-annotation", message, truth, second, split, source)
    for first, second in sorted(repeats(truth), key=lambda pair: (pair[1], pair[0])):
        name, other = (truth.categories.names[truth.labels[row]] for row in (second, first))
        if name != other:
            message = f"{name!r} has the box of {other!r} {_named(truth, first)} in {_picture(truth, second)}"
            _add(found, "two-classes", message, truth, second, split, source)


def _differ(truth: AnnotationSet, first: int, second: int) -> bool:
    """Are both outlined, and the outlines not one? Two objects may share a box, such as the arms of a cross."""
    if not (truth.outlines.has[first] and truth.outlines.has[second]):
        return False
    image = int(np.searchsorted(truth.starts, first, side="right")) - 1
    h, w = truth.image_hw[image].tolist()
    if min(h, w) < 1:
        return truth.outlines.text(first) != truth.outlines.text(second)
    masks = [truth.outlines.rle(row, (h, w)) for row in (first, second)]
    return float(coco_mask.iou([masks[0]], [masks[1]], [0])[0, 0]) < 0.9


@dataclass(frozen=True, eq=False)
class Outlined:
    """An outlined object: xyxy, area, crowd, its outline, the size of its picture, and how to call it."""

    box: NDArray[np.float64]
    area: float
    crowd: bool
    outline: Segmentation
    hw: tuple[int, int]
    name: str


def outlined(truth: AnnotationSet, row: int) -> Outlined:
    """An object that has an outline."""
    outline = truth.outlines.segmentation(row)
    assert outline is not None  # only rows that have one are asked for
    h, w = truth.image_hw[_image(truth, row)].tolist()
    return Outlined(truth.boxes[row], float(truth.areas[row]), bool(truth.crowd[row]), outline, (h, w), _of(truth, row))


def faults_of_outline(thing: Outlined) -> Iterator[tuple[str, str]]:
    """(kind, message) of each."""
    if thing.crowd and isinstance(thing.outline, list):
        yield "crowd-polygon", f"{thing.name} is a crowd, but outlined by polygons"
    if min(thing.hw) < 1:
        return
    if isinstance(thing.outline, list):
        far = _out_by(thing.outline, thing.hw)
        if far > _OUTSIDE:
            yield "outline-outside", f"the outline of {thing.name} reaches {far:.6g} pixels out of the picture"
    try:
        mask = rle_of(thing.outline, thing.hw)
    except ValueError as error:
        yield "bad-outline", f"the outline of {thing.name} cannot be drawn: {error}"
        return
    area, box = float(coco_mask.area(mask)), _bounds(thing, mask)
    if area == 0:
        yield "bad-outline", f"the outline of {thing.name} covers no pixel"
        return
    if (np.abs(box - thing.box) > np.maximum(_BOX_PX, _BOX_SHARE * np.tile(thing.box[2:] - thing.box[:2], 2))).any():
        yield "outline-box", f"the outline of {thing.name} spans {_words(box)}, its box is {_words(thing.box)}"
    # what rasterising may change: half a pixel along the border
    border = float((box[2:] - box[:2]).sum()) * (2 if isinstance(thing.outline, list) else 0)
    if abs(area - thing.area) > max(_AREA_SHARE * max(area, thing.area), border):
        yield "area", f"area {thing.area:.6g} of {thing.name}, but its outline covers {area:.0f} pixels"


def _bounds(thing: Outlined, mask: dict[str, object]) -> NDArray[np.float64]:
    """xyxy of what the outline covers inside the picture."""
    if isinstance(thing.outline, list):
        points = np.concatenate([np.reshape(ring, (-1, 2)) for ring in thing.outline])
        h, w = thing.hw
        return np.clip(np.concatenate([points.min(axis=0), points.max(axis=0)]), 0, [w, h, w, h]).astype(np.float64)
    x, y, w, h = coco_mask.toBbox(mask).tolist()
    return np.array([x, y, x + w, y + h])


def _out_by(rings: list[list[float]], hw: tuple[int, int]) -> float:
    """How many pixels the farthest point lies outside; 0 where all are inside."""
    points = np.concatenate([np.reshape(ring, (-1, 2)) for ring in rings])
    return float(max(-points.min(), (points - (hw[1], hw[0])).max(), 0.0))


def too_large(truth: AnnotationSet) -> NDArray[np.bool_]:
    """(M,) objects without outline whose area is larger than their box can be."""
    sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
    # files may count the last pixel in, and round
    largest = (sides + 2).prod(axis=1) * 1.05
    wrong: NDArray[np.bool_] = ~truth.outlines.has & (truth.areas > largest)
    return wrong


# ---- words ----


def _add(
    found: Findings, kind: str, message: str, truth: AnnotationSet, row: int, split: str | None, source: str
) -> None:
    # only COCO's annotations have ids of their own; elsewhere the file of the picture says more
    own = truth.format == "coco"
    file = source if own else truth.image_path(_image(truth, row))
    found.add(kind, file, message, int(truth.ids[row]) if own else None, split=split)


def _image(truth: AnnotationSet, row: int) -> int:
    return int(np.searchsorted(truth.starts, row, side="right")) - 1


def _picture(truth: AnnotationSet, row: int) -> str:
    return truth.image_files[_image(truth, row)]


def _of(truth: AnnotationSet, row: int) -> str:
    name = truth.categories.names[truth.labels[row]]
    return f"{name!r} at ({_words(truth.boxes[row])}) in {_picture(truth, row)}"


def _named(truth: AnnotationSet, row: int) -> str:
    return f"annotation {truth.ids[row]}" if truth.format == "coco" else f"at ({_words(truth.boxes[row])})"


def _words(box: NDArray[np.float64]) -> str:
    return ", ".join(f"{v:.6g}" for v in box.tolist())
