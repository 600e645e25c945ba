"""Boxes as arrays: formats, areas, the IoU family. Pure functions of numpy arrays; nothing is changed in place.

Shapes: n, m boxes; a box is xyxy in pixels of one frame, continuous edges, w = x2 - x1 (never + 1).
The torch versions that losses differentiate through live in `parts/box_losses.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.floating[Any]]  # (n, 4) xyxy


def empty(dtype: type[np.floating[Any]] = np.float32) -> Boxes:
    """No boxes: an array of shape (0, 4)."""
    return np.zeros((0, 4), dtype)


def xywh_to_xyxy(boxes: Boxes) -> Boxes:
    """(n, 4) top-left corner and size, COCO's way -> (n, 4) xyxy."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def xyxy_to_xywh(boxes: Boxes) -> Boxes:
    """(n, 4) xyxy -> (n, 4) top-left corner and size, COCO's way."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def cxcywh_to_xyxy(boxes: Boxes) -> Boxes:
    """(n, 4) centre and size, YOLO's way (in whatever unit) -> (n, 4) xyxy."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def xyxy_to_cxcywh(boxes: Boxes) -> Boxes:
    """(n, 4) xyxy -> (n, 4) centre and size, YOLO's way."""
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def area(boxes: Boxes) -> NDArray[np.floating[Any]]:
    """(n, 4) -> (n,) areas in square pixels; a box turned inside out has area 0."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return sides[:, 0] * sides[:, 1]


def clip(boxes: Boxes, hw: tuple[int, int]) -> Boxes:
    """Boxes cut to a picture of `hw` pixels."""
    h, w = hw
    return np.clip(boxes, 0, np.array([w, h, w, h], boxes.dtype))


def is_degenerate(boxes: Boxes, min_side: float = 1.0) -> NDArray[np.bool_]:
    """(n, 4) -> (n,) True where a side is shorter than `min_side` pixels (or not a number)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.asarray(~(sides >= min_side).all(axis=1))


def intersection(a: Boxes, b: Boxes) -> NDArray[np.floating[Any]]:
    """(n, 4), (m, 4) -> (n, m) areas shared."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.maximum(bottom_right - top_left, 0)
    return sides[..., 0] * sides[..., 1]


def iou(a: Boxes, b: Boxes) -> NDArray[np.floating[Any]]:
    """(n, 4), (m, 4) -> (n, m) intersection over union; 0 where the union is empty."""
    shared = intersection(a, b)
    union = area(a)[:, None] + area(b)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def giou(a: Boxes, b: Boxes) -> NDArray[np.floating[Any]]:
    """(n, 4), (m, 4) -> (n, m) generalised IoU (Rezatofighi et al. 2019, eq. 1), in (-1, 1]."""
    shared = intersection(a, b)
    union = area(a)[:, None] + area(b)[None, :] - shared
    hull_sides = np.maximum(_hull_sides(a, b), 0)
    hull = hull_sides[..., 0] * hull_sides[..., 1]
    ratio = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio - np.divide(hull - union, hull, out=np.zeros_like(shared), where=hull > 0)


def diou(a: Boxes, b: Boxes) -> NDArray[np.floating[Any]]:
    """(n, 4), (m, 4) -> (n, m) distance IoU (Zheng et al. 2020, eq. 7)."""
    hull_sides = _hull_sides(a, b)
    diagonal = (hull_sides**2).sum(axis=-1)
    centres = ((a[:, None, :2] + a[:, None, 2:]) - (b[None, :, :2] + b[None, :, 2:])) / 2
    apart = (centres**2).sum(axis=-1)
    return iou(a, b) - np.divide(apart, diagonal, out=np.zeros_like(apart), where=diagonal > 0)


def ciou(a: Boxes, b: Boxes) -> NDArray[np.floating[Any]]:
    """(n, 4), (m, 4) -> (n, m) complete IoU: DIoU less a term for the aspect ratio (Zheng et al. 2020, eq. 10-11)."""
    angle_a = np.arctan2(a[:, 2] - a[:, 0], a[:, 3] - a[:, 1])
    angle_b = np.arctan2(b[:, 2] - b[:, 0], b[:, 3] - b[:, 1])
    v = 4 / np.pi**2 * (angle_a[:, None] - angle_b[None, :]) ** 2
    overlap = iou(a, b)
    weight = np.divide(v, 1 - overlap + v, out=np.zeros_like(v), where=v > 0)
    return diou(a, b) - weight * v


def _hull_sides(a: Boxes, b: Boxes) -> NDArray[np.floating[Any]]:
    """(n, 4), (m, 4) -> (n, m, 2) width and height of the smallest box around each pair."""
    top_left = np.minimum(a[:, None, :2], b[None, :, :2])
    return np.maximum(a[:, None, 2:], b[None, :, 2:]) - top_left
