"""A contact sheet: many pictures with their truth on one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from detseg.annotations import Categories
from detseg.writers.contract import Picture
from detseg.writers.overlay import label_tile
from detseg.writers.text import readable
from detseg.writers.truth_scene import Scene, draw_scene

CELL = 320  # pixels: the longest side of a picture on the sheet
_GAP, _CAPTION, _FONT = 12, 22, 12
_GROUND = (24, 27, 32)
_LONGEST = 46  # letters of a caption


def contact_sheet(scenes: Sequence[Scene], categories: Categories, columns: int | None = None) -> Picture:
    """(H, W, 3) the scenes in rows, each under its name; columns are chosen so that the sheet is wider than high."""
    count = max(1, len(scenes))
    columns = columns or max(1, min(count, math.ceil(math.sqrt(count * 1.5))))
    rows = [scenes[i : i + columns] for i in range(0, len(scenes), columns)]
    strips = [_strip([_cell(scene, categories) for scene in row], columns) for row in rows]
    width = columns * (CELL + _GAP) + _GAP
    gap = np.full((_GAP, width, 3), _GROUND, np.uint8)
    return np.concatenate([gap, *[part for strip in strips for part in (strip, gap)]])


def _cell(scene: Scene, categories: Categories) -> Picture:
    """The drawn picture in the middle, its caption below."""
    drawn = draw_scene(scene, categories)
    h, w = drawn.shape[:2]
    scale = CELL / max(h, w)
    size = max(1, round(w * scale)), max(1, round(h * scale))
    small = np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))
    cell = np.full((size[1] + _CAPTION, CELL, 3), _GROUND, np.uint8)
    left = (CELL - size[0]) // 2
    cell[: size[1], left : left + size[0]] = small
    name = readable(scene.name)
    words = name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"
    tile = label_tile(words, _FONT, _GROUND)[:_CAPTION, :CELL]
    left = min(left, CELL - tile.shape[1])
    cell[size[1] : size[1] + tile.shape[0], left : left + tile.shape[1]] = tile
    return cell


def _strip(cells: Sequence[Picture], columns: int) -> Picture:
    """Cells side by side, as high as the highest."""
    height = max(cell.shape[0] for cell in cells)
    strip = np.full((height, columns * (CELL + _GAP) + _GAP, 3), _GROUND, np.uint8)
    for i, cell in enumerate(cells):
        left = _GAP + i * (CELL + _GAP)
        top = (height - cell.shape[0]) // 2
        strip[top : top + cell.shape[0], left : left + CELL] = cell
    return strip
