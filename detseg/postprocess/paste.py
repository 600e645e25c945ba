"""Masks of boxes become masks of the picture.

K. He et al.: Mask R-CNN, 2017, arXiv 1703.06870, section 3.1, inference: the mask that a network gives for a box is
resized to the box and cut at 0.5. Which pixels a box means, and that the mask gets a border of zeros before it is
resized, is as in torchvision's `paste_masks_in_image`, whose masks these are.

Only the part of the picture that the box covers is ever made, column by column as run lengths go: a picture's size
costs nothing. n: objects, M: side of a mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from detseg.results import Masks

THRESHOLD = 0.5  # Mask R-CNN, section 3.1
_BORDER = 1  # of zeros around a mask, so that what touches its edge fades out instead of being cut
_FARTHEST = 2.0**30  # pixels: a box that reaches beyond is cut there, so that whole numbers hold it

Reals = NDArray[np.float32]


def paste(masks: NDArray[Any], boxes: NDArray[Any], image_hw: tuple[int, int]) -> Masks:
    """(n, M, M) how sure a network is of each part of a box, (n, 4) xyxy of the picture -> masks of the picture.

    Boxes may reach beyond the picture; of one that lies beside it no pixel is left.
    """
    pixels = _whole_pixels(np.asarray(boxes, np.float32).reshape(-1, 4), masks.shape[-1])
    columns = np.asarray(masks, np.float32).swapaxes(1, 2)
    counts = [_pasted(one, box, image_hw) for one, box in zip(columns, pixels.tolist(), strict=True)]
    return Masks(image_hw, tuple(counts))


def _whole_pixels(boxes: Reals, size: int) -> NDArray[np.int64]:
    """(n, 4) the first and last pixels of each box after it grew with the border of its mask."""
    near = np.clip(boxes, -_FARTHEST, _FARTHEST)
    centre, half = (near[:, 2:] + near[:, :2]) * np.float32(0.5), (near[:, 2:] - near[:, :2]) * np.float32(0.5)
    half *= np.float32((size + 2 * _BORDER) / size)
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.int64)  # towards zero, as torchvision


def _pasted(mask: Reals, box: list[int], image_hw: tuple[int, int]) -> bytes:
    """The compressed run lengths of a mask (M, M), x first, in a box of first and last pixels."""
    h, w = image_hw
    x1, y1, x2, y2 = box
    left, right = max(x1, 0), min(x2 + 1, w)
    top, bottom = max(y1, 0), min(y2 + 1, h)
    if right <= left or bottom <= top:
        return _text(np.zeros(0, np.int64), h, w)
    across = _shares(x2 - x1 + 1, left - x1, right - x1, len(mask))
    down = _shares(y2 - y1 + 1, top - y1, bottom - y1, len(mask))
    inside = np.zeros((right - left, bottom - top + 1), np.bool_)  # a pixel below each column: it ends there
    np.greater(across @ mask @ down.T, THRESHOLD, out=inside[:, :-1])
    return _text(_edges(inside, left, top, h), h, w)


def _shares(length: int, first: int, last: int, size: int) -> Reals:
    """(last - first, size) how much pixels first .. last of a side stand for each part of the mask.

    The side is `length` pixels, the mask's side `size` and a border of zeros, whose shares nobody needs. Linear
    between the middles of parts, as torch's interpolate does it.
    """
    length, parts = max(length, 1), size + 2 * _BORDER
    place = (np.arange(first, last, dtype=np.float32) + np.float32(0.5)) * np.float32(parts / length) - np.float32(0.5)
    place = np.maximum(place, 0)
    lower = np.minimum(place.astype(np.int64), parts - 1)
    upper = np.minimum(lower + 1, parts - 1)
    share = place - lower
    rows = np.arange(len(place))
    shares = np.zeros((len(place), parts), np.float32)
    shares[rows, lower] = 1 - share
    shares[rows, upper] += share
    return np.ascontiguousarray(shares[:, _BORDER:-_BORDER])


def _edges(inside: NDArray[np.bool_], left: int, top: int, h: int) -> NDArray[np.int64]:
    """(e,) where runs begin and end in a picture `h` high, counted column by column; (w, h + 1) the last row empty."""
    flat = np.concatenate([[False], inside.ravel()])
    found = np.flatnonzero(flat[1:] != flat[:-1])
    column, row = np.divmod(found, inside.shape[1])
    edges = (left + column) * h + top + row
    # a run that fills a column to the picture's bottom goes on at the top of the next
    joined = np.flatnonzero(edges[1:-1:2] == edges[2::2]) * 2 + 1
    return np.delete(edges, np.concatenate([joined, joined + 1]))


def _text(edges: NDArray[np.int64], h: int, w: int) -> bytes:
    runs = np.diff(np.concatenate([[0], edges, [h * w]]))
    if len(edges) and runs[-1] == 0:
        runs = runs[:-1]
    coded: dict[str, Any] = coco_mask.frPyObjects({"size": [h, w], "counts": runs.tolist()}, h, w)
    text: bytes = coded["counts"]
    return text
