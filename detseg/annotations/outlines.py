"""`Outlines`: the masks of annotations as a column: polygons or run lengths, as the data set wrote them.

Each is kept as the JSON text of COCO's `segmentation`, all texts in one array of bytes: hundreds of thousands of
outlines are one object, which worker processes share, and what was read is written again to the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from detseg.geometry import rle as run_lengths

Segmentation = list[list[float]] | dict[str, Any]

FARTHEST = 999_999  # pixels; six digits
_POLYGONS = msgspec.json.Decoder(list[list[float]])
_NOTHING = (b"", b"[]", b"null")


@dataclass(frozen=True, eq=False)
class Outlines:
    """M outlines. pool: the bytes of all texts; spans (M, 2): where each begins and ends, equal where there is none."""

    pool: NDArray[np.uint8]
    spans: NDArray[np.int64]

    @classmethod
    def none(cls, count: int) -> Outlines:
        """`count` annotations without outline."""
        return cls(np.zeros(0, np.uint8), np.zeros((count, 2), np.int64))

    @classmethod
    def of_texts(cls, texts: Sequence[bytes | bytearray | memoryview]) -> Outlines:
        """From the JSON texts of segmentations; `[]`, `null` and the empty text mean none."""
        kept = [b"" if bytes(text) in _NOTHING else text for text in texts]
        ends = np.cumsum([len(text) for text in kept], dtype=np.int64)
        spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1) if kept else np.zeros((0, 2), np.int64)
        return cls(np.frombuffer(b"".join(kept), np.uint8), spans)

    @classmethod
    def of(cls, segmentations: Iterable[Segmentation | None]) -> Outlines:
        """From COCO's values: lists of rings [x1, y1, x2, y2, ...], {"size", "counts"}, or None."""
        return cls.of_texts([text_of(value) for value in segmentations])

    @classmethod
    def concatenate(cls, parts: Sequence[Outlines]) -> Outlines:
        """One column after another."""
        parts = [part for part in parts if len(part)]
        if len(parts) == 1:
            return parts[0]
        offsets = np.cumsum([0, *(len(part.pool) for part in parts)])
        spans = [part.spans + offset for part, offset in zip(parts, offsets, strict=False)]
        pools = [part.pool for part in parts]
        return cls(np.concatenate(pools), np.concatenate(spans)) if parts else cls.none(0)

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, rows: Any) -> Outlines:
        """The outlines of `rows` (indices, a mask or a slice); the texts are shared, not copied."""
        return Outlines(self.pool, self.spans[rows])

    @property
    def has(self) -> NDArray[np.bool_]:
        """(M,) True where there is an outline."""
        return self.spans[:, 1] > self.spans[:, 0]

    @property
    def any(self) -> bool:
        """Is there any outline at all?"""
        return bool(self.has.any())

    def text(self, row: int) -> bytes:
        """The JSON text of one; empty where there is none."""
        start, end = self.spans[row].tolist()
        return self.pool[start:end].tobytes()

    def segmentation(self, row: int) -> Segmentation | None:
        """Polygons [[x1, y1, x2, y2, ...], ...] in pixels of the picture, {"size": [h, w], "counts": ...}, or None."""
        text = self.text(row)
        if not text:
            return None
        value: Segmentation = _POLYGONS.decode(text) if text.startswith(b"[") else msgspec.json.decode(text)
        return value

    def rle(self, row: int, hw: tuple[int, int]) -> dict[str, Any]:
        """{"size": [h, w], "counts": bytes}: the outline's mask in a picture of this size; empty where there is none.

        Rasterised as pycocotools does it. Raises ValueError for run lengths of another size.
        """
        value = self.segmentation(row)
        return run_lengths.encode(np.zeros(hw, np.bool_)) if value is None else rle_of(value, hw)

    def mask(self, row: int, hw: tuple[int, int]) -> NDArray[np.bool_]:
        """(h, w) the outline's mask in a picture of this size."""
        return run_lengths.decode(self.rle(row, hw))

    def compact(self) -> Outlines:
        """The same with the texts in row order and nothing else in the pool."""
        return Outlines.of_texts(list(self.texts()))

    def texts(self) -> Iterator[bytes]:
        """The JSON text of each, in row order."""
        for start, end in self.spans.tolist():
            yield self.pool[start:end].tobytes()


def text_of(value: Segmentation | None) -> bytes:
    """The JSON text of a segmentation."""
    if value is None:
        return b""
    if isinstance(value, dict) and isinstance(value["counts"], bytes):
        value = {**value, "counts": value["counts"].decode("ascii")}
    return msgspec.json.encode(value)


def rle_of(value: Segmentation, hw: tuple[int, int]) -> dict[str, Any]:
    """{"size", "counts": bytes} of a segmentation, in a picture of this size. Raises ValueError where it has none."""
    check(value, hw)
    if isinstance(value, list):
        merged: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects(value, *hw))
        return merged
    counts = value["counts"]
    if isinstance(counts, list):
        coded: dict[str, Any] = coco_mask.frPyObjects({"size": list(hw), "counts": counts}, *hw)
        return coded
    return {"size": list(hw), "counts": counts.encode("ascii") if isinstance(counts, str) else counts}


def check(value: Any, hw: tuple[int, int] | None = None) -> None:
    """Raises ValueError, saying why, unless this is an outline that can be drawn (in a picture of this size)."""
    if isinstance(value, list):
        _check_polygons(value)
    elif isinstance(value, dict):
        _check_run_lengths(value, hw)
    else:
        raise ValueError(f"segmentation is a {type(value).__name__}, neither polygons nor run lengths")


def check_text(text: bytes, hw: tuple[int, int] | None = None) -> None:
    """`check` of a JSON text."""
    try:
        value = _POLYGONS.decode(text) if text.startswith(b"[") else msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise ValueError("segmentation is neither a list of polygons nor run lengths") from None
    check(value, hw)


def _check_polygons(rings: list[Any]) -> None:
    if not rings:
        raise ValueError("segmentation is an empty list")
    for ring in rings:
        if not isinstance(ring, list) or len(ring) < 6 or len(ring) % 2:
            raise ValueError("a polygon of it has less than three points, or an odd count of numbers")
        if not math.isfinite(sum(ring)):  # one that is not makes the sum so
            raise ValueError("a polygon of it holds something that is no usable number")
        if is_far(ring):
            raise ValueError(f"a point of it lies more than {FARTHEST:,} pixels away")


def is_far(ring: Sequence[float]) -> bool:
    """Does a polygon reach where no picture does? What draws it takes memory for all the way."""
    return max(ring) > FARTHEST or min(ring) < -FARTHEST


def _check_run_lengths(value: dict[str, Any], hw: tuple[int, int] | None) -> None:
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and 0 < side < 2**31 for side in size):
        raise ValueError("its run lengths have no size [height, width]")
    if hw is not None and tuple(size) != tuple(hw):
        raise ValueError(f"its run lengths are of a mask of {size[1]}x{size[0]}, the picture is {hw[1]}x{hw[0]}")
    if isinstance(counts, list):
        if not all(type(run) is int and 0 <= run < 2**32 for run in counts):
            raise ValueError("a run length is no whole number from 0 on")
        runs = np.asarray(counts, np.int64)
    elif isinstance(counts, str | bytes):
        text = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
        runs = run_lengths.runs_of_text(text)
    else:
        raise ValueError("its run lengths have no counts")
    run_lengths.check_runs(runs, (size[0], size[1]))
