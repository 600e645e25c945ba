"""`Scene`: a picture with its truth, small enough to be looked at beside others; and how it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet, Categories
from detseg.annotations.semantic import IGNORE, SemanticSet
from detseg.errors import DataError
from detseg.images import read_image
from detseg.writers.contract import Picture
from detseg.writers.overlay import Placed, Style, class_colour, label_tile, paste, shaded
from detseg.writers.text import readable

Ring = NDArray[np.float64]  # (p, 2) points x, y

_SHADE = 0.28  # of a class's colour inside an outline
_DASH = 5  # times the width of the line


@dataclass(frozen=True, eq=False)
class Thing:
    """An object: class index, xyxy box and rings of its outline (none: the box alone), in pixels of the scene."""

    label: int
    box: NDArray[np.float64]
    rings: tuple[Ring, ...]
    ignored: bool


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture (h, w, 3) RGB that was shrunk from `full_hw`, its objects, its label map (h, w), or None.

    name: the picture's path in the data set; labels: the class indices that are in it.
    """

    name: str
    image: Picture
    full_hw: tuple[int, int]
    things: tuple[Thing, ...]
    label_map: NDArray[np.uint8] | None
    labels: tuple[int, ...]


def scene_of_objects(truth: AnnotationSet, index: int, side: int) -> Scene:
    """Picture `index` with its objects, the longer side at most `side`. Raises ImageError."""
    image, scale_xy, full_hw = _small(truth.image_path(index), side)
    rows = range(int(truth.starts[index]), int(truth.starts[index + 1]))
    things = tuple(_thing(truth, row, (*full_hw,), scale_xy) for row in rows)
    labels = tuple(sorted({thing.label for thing in things}))
    return Scene(truth.image_files[index], image, full_hw, things, None, labels)


def scene_of_map(maps: SemanticSet, index: int, side: int) -> Scene:
    """Picture `index` with its label map. Raises ImageError, and DataError for a map that cannot be read."""
    image, _, full_hw = _small(maps.image_path(index), side)
    drawn = maps.label_map(index)
    if drawn.shape != full_hw:
        raise DataError(f"{maps.image_path(index)}: {full_hw[1]}x{full_hw[0]}, its label map is of another size")
    labels = tuple(value for value in np.unique(drawn).tolist() if value != IGNORE)
    small = cv2.resize(drawn, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return Scene(maps.image_files[index], image, full_hw, (), np.asarray(small, np.uint8), labels)


def draw_scene(scene: Scene, categories: Categories) -> Picture:
    """The picture with its truth: outlines filled, boxes framed, dashed where ignored, each class in its colour."""
    canvas = scene.image.copy()
    if scene.label_map is not None:
        return shaded(canvas, scene.label_map, categories)
    style = Style.for_picture((canvas.shape[0], canvas.shape[1]))
    ordered = sorted(scene.things, key=lambda t: -float((t.box[2:] - t.box[:2]).prod()))
    for thing in ordered:
        _draw_thing(canvas, thing, style.line)
    _draw_names(canvas, ordered, categories, style.font)
    return canvas


def _small(path: Path, side: int) -> tuple[Picture, tuple[float, float], tuple[int, int]]:
    """The picture with its longer side at most `side`, its scale (x, y), and its own size."""
    image = read_image(path)
    h, w = image.shape[:2]
    factor = min(1.0, side / max(h, w))
    size = max(1, round(w * factor)), max(1, round(h * factor))
    small = image if factor == 1 else np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return small, (size[0] / w, size[1] / h), (h, w)


def _thing(truth: AnnotationSet, row: int, hw: tuple[int, int], scale_xy: tuple[float, float]) -> Thing:
    rings = () if not truth.outlines.has[row] else tuple(ring * scale_xy for ring in _rings(truth, row, hw))
    box = truth.boxes[row] * (*scale_xy, *scale_xy)
    return Thing(int(truth.labels[row]), box, rings, bool(truth.ignored[row]))


def _rings(truth: AnnotationSet, row: int, hw: tuple[int, int]) -> Sequence[Ring]:
    value = truth.outlines.segmentation(row)
    if isinstance(value, list):
        return [np.reshape(ring, (-1, 2)).astype(np.float64) for ring in value]
    try:
        mask = truth.outlines.mask(row, hw).astype(np.uint8)
    except ValueError:  # of another size than the picture is; the check tells
        return []
    found, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    # contours run through the middle of the outermost pixels
    return [ring[:, 0].astype(np.float64) + 0.5 for ring in found if len(ring) > 2]


def _draw_thing(canvas: Picture, thing: Thing, line: int) -> None:
    colour = class_colour(thing.label)
    if thing.rings:
        points = [np.rint(ring * 16).astype(np.int32) for ring in thing.rings]
        filled = canvas.copy()
        cv2.fillPoly(filled, points, colour, cv2.LINE_AA, shift=4)
        shade = _SHADE / 2 if thing.ignored else _SHADE
        cv2.addWeighted(filled, shade, canvas, 1 - shade, 0, dst=canvas)
        if not thing.ignored:
            cv2.polylines(canvas, points, True, colour, line, cv2.LINE_AA, shift=4)
            return
    x1, y1, x2, y2 = thing.box.tolist()
    h, w = canvas.shape[:2]
    left, top = max(0, round(x1)), max(0, round(y1))
    right, bottom = min(w, max(round(x2), left + 1)) - 1, min(h, max(round(y2), top + 1)) - 1
    if thing.ignored:
        _draw_dashes(canvas, (left, top, right, bottom), colour, line)
    else:
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, line)


def _draw_dashes(canvas: Picture, box: tuple[int, int, int, int], colour: tuple[int, int, int], line: int) -> None:
    left, top, right, bottom = box
    step = _DASH * max(line, 1)
    for x in range(left, right + 1, 2 * step):
        for y in (top, bottom):
            cv2.line(canvas, (x, y), (min(x + step, right), y), colour, line)
    for y in range(top, bottom + 1, 2 * step):
        for x in (left, right):
            cv2.line(canvas, (x, y), (x, min(y + step, bottom)), colour, line)


_CROWDED = 14  # more names than that would hide the picture; colours tell


def _draw_names(canvas: Picture, things: Sequence[Thing], categories: Categories, font: int) -> None:
    if len(things) > _CROWDED:
        return
    placed = Placed(canvas.shape[0], canvas.shape[1])
    for thing in reversed(things):
        name = " ".join(readable(categories.names[thing.label]).split())
        tile = label_tile(name[:20], font, class_colour(thing.label))
        x1, y1, x2, y2 = np.rint(thing.box).astype(int).tolist()
        if tile.shape[1] <= canvas.shape[1] and tile.shape[0] <= canvas.shape[0]:
            paste(canvas, tile, placed.find((x1, y1, x2 - 1, y2 - 1), tile.shape))
