"""Outlines turned, scaled and cut, as their pictures are. Points are x, y in pixels; sizes h, w."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg.annotations.outlines import Segmentation, rle_of
from detseg.geometry import rle as run_lengths
from detseg.images.decode import turn

Points = NDArray[np.float64]  # (p, 2)


def turned_points(points: Points, stored_hw: tuple[int, int], orientation: int) -> Points:
    """Points of a picture as it is stored -> of the upright one, by EXIF's orientation 5 to 8."""
    h, w = stored_hw
    x, y = points[..., 0], points[..., 1]
    columns = {5: (y, x), 6: (h - y, x), 7: (h - y, w - x), 8: (y, w - x)}[orientation]
    return np.stack(columns, axis=-1)


def turned_boxes(boxes: NDArray[np.float64], stored_hw: tuple[int, int], orientation: int) -> NDArray[np.float64]:
    """(n, 4) xyxy of the stored picture -> of the upright one."""
    corners = turned_points(boxes.reshape(-1, 2, 2), stored_hw, orientation)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def turned(outline: Segmentation, stored_hw: tuple[int, int], orientation: int) -> Segmentation:
    """The outline in the upright picture."""
    if isinstance(outline, list):
        return _each_ring(outline, lambda points: turned_points(points, stored_hw, orientation))
    return run_lengths.encode(turn(run_lengths.decode(rle_of(outline, stored_hw)), orientation))


def scaled(outline: Segmentation, old_hw: tuple[int, int], new_hw: tuple[int, int]) -> Segmentation:
    """The outline in a picture of another size."""
    factor = np.array([new_hw[1] / old_hw[1], new_hw[0] / old_hw[0]])
    if isinstance(outline, list):
        return _each_ring(outline, lambda points: points * factor)
    mask = run_lengths.decode(rle_of(outline, old_hw)).astype(np.uint8)
    return run_lengths.encode(cv2.resize(mask, new_hw[::-1], interpolation=cv2.INTER_NEAREST) > 0)


def cut(rings: Sequence[Sequence[float]], hw: tuple[int, int]) -> list[list[float]]:
    """Polygons cut to their picture, side by side (Sutherland and Hodgman 1974); those that are outside vanish."""
    kept = []
    for ring in rings:
        points = np.reshape(ring, (-1, 2)).astype(np.float64)
        for axis, limit, sign in ((0, 0.0, 1), (1, 0.0, 1), (0, float(hw[1]), -1), (1, float(hw[0]), -1)):
            points = _half(points, axis, limit, sign)
        if len(points) >= 3:
            kept.append(points.ravel().tolist())
    return kept


def _half(points: Points, axis: int, limit: float, sign: int) -> Points:
    """The part of a polygon on one side of a line."""
    kept: list[Any] = []
    for start, end in zip(np.roll(points, 1, axis=0), points, strict=True):
        a, b = sign * (start[axis] - limit), sign * (end[axis] - limit)
        if (a < 0) != (b < 0):
            crossing = start + (end - start) * (a / (a - b))
            crossing[axis] = limit  # exactly, whatever was rounded
            kept.append(crossing)
        if b >= 0:
            kept.append(end)
    return np.array(kept).reshape(-1, 2)


def _each_ring(rings: Sequence[Sequence[float]], move: Callable[[Points], Points]) -> list[list[float]]:
    return [move(np.reshape(ring, (-1, 2)).astype(np.float64)).ravel().tolist() for ring in rings]
