"""Run lengths of masks, COCO's way: column by column, the first run counts zeros.

COCO writes the runs as a list, or as a short text of 6 bits a character. The text of a file is checked here before
any library reads it: compiled readers trust it, and write beyond their memory when runs are longer than the picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

_FIRST, _LAST = 48, 111  # characters of the text: 48 + 6 bits
_MORE, _SIGN = 0x20, 0x10  # of the 6 bits: another character follows; the number is negative
_LONGEST = 12  # characters of one number: 60 bits


def runs_of_text(text: bytes) -> NDArray[np.int64]:
    """(R,) the runs that COCO's compressed text stands for. Raises ValueError where it stands for none."""
    characters = np.frombuffer(text, np.uint8).astype(np.int64)
    if not len(characters):
        return np.zeros(0, np.int64)
    if characters.min() < _FIRST or characters.max() > _LAST:
        raise ValueError("the text of its run lengths holds a character that has no place there")
    bits = characters - _FIRST
    last = bits & _MORE == 0
    if not last[-1]:
        raise ValueError("the text of its run lengths breaks off")
    ends = np.flatnonzero(last) + 1
    starts = np.concatenate([[0], ends[:-1]])
    lengths = ends - starts
    if lengths.max() > _LONGEST:
        raise ValueError("the text of its run lengths holds a number that is too long")
    place = 5 * (np.arange(len(bits)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((bits & 0x1F) << place, starts)
    negative = bits[ends - 1] & _SIGN != 0
    runs[negative] -= 1 << (5 * lengths[negative])
    # from the fourth run on, the difference to the run two before is written
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def check_runs(runs: NDArray[np.int64], hw: tuple[int, int]) -> None:
    """Raises ValueError unless the runs are those of a mask of this size."""
    pixels = hw[0] * hw[1]
    if len(runs) and (runs.min() < 0 or runs.max() > pixels):
        raise ValueError("a run length is negative or longer than the picture")
    if runs.sum() != pixels:
        raise ValueError(f"its run lengths cover {runs.sum()} pixels, a mask of {hw[1]}x{hw[0]} has {pixels}")


def encode(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """(h, w) bool -> {"size": [h, w], "counts": bytes}, the form that pycocotools takes."""
    coded: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return coded


def decode(rle: dict[str, Any]) -> NDArray[np.bool_]:
    """The (h, w) mask of a checked {"size", "counts"}."""
    h, w = rle["size"]
    runs = runs_of_text(rle["counts"])
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(w, h).T


def box(rle: dict[str, Any]) -> tuple[float, float, float, float]:
    """xyxy of the pixels of a checked {"size", "counts"}; zeros where there are none."""
    x, y, w, h = coco_mask.toBbox(rle).tolist()
    return x, y, x + w, y + h


def places(rle: dict[str, Any]) -> NDArray[np.int64]:
    """(P,) where the pixels of a checked {"size", "counts": bytes} are, counted column by column, sorted.

    Much less work than the whole mask where a small object lies in a large picture.
    """
    runs = runs_of_text(rle["counts"])
    ends = np.cumsum(runs)
    lengths = runs[1::2]
    first = ends[1::2] - lengths
    shift = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(first - shift, lengths)
