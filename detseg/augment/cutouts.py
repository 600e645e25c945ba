"""`Cutouts`: the masks of a training picture's objects, each kept only where it is.

Masks of whole pictures would take n times the picture's memory, and be moved with all their empty pixels. They move
as the pixels do: sampled between the middles of pixels, and cut at one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg.annotations.outlines import Outlines
from detseg.geometry import rle as run_lengths

Part = NDArray[np.uint8]  # (h, w) 1 where the object is, else 0
_NOTHING = np.zeros((0, 0), np.uint8)


@dataclass(frozen=True, eq=False)
class Cutouts:
    """n masks: corners (n, 2) int64, x and y of the first pixel of each part, in pixels of the picture."""

    corners: NDArray[np.int64]
    parts: tuple[Part, ...]

    @classmethod
    def of_outlines(cls, outlines: Outlines, boxes: NDArray[Any], image_hw: tuple[int, int]) -> Cutouts:
        """From the outlines (n) of a picture's objects; an object without one has its box (4,) xyxy for a mask.

        Raises ValueError for run lengths of another size.
        """
        drawn = [
            _of_run_lengths(outlines.rle(row, image_hw)) if has else _of_box(box, image_hw)
            for row, (has, box) in enumerate(zip(outlines.has.tolist(), boxes.tolist(), strict=True))
        ]
        return cls._of(drawn)

    @classmethod
    def concatenate(cls, several: Sequence[Cutouts]) -> Cutouts:
        """The masks of several pictures that share one frame."""
        corners = np.concatenate([np.zeros((0, 2), np.int64), *(one.corners for one in several)])
        return cls(corners, tuple(part for one in several for part in one.parts))

    @classmethod
    def _of(cls, drawn: Sequence[tuple[int, int, Part]]) -> Cutouts:
        corners = np.array([(x, y) for x, y, _ in drawn], np.int64).reshape(-1, 2)
        return cls(corners, tuple(part for _, _, part in drawn))

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, rows: NDArray[Any]) -> Cutouts:
        """The masks at `rows` (indices or a mask)."""
        kept = np.arange(len(self.parts))[rows]
        return Cutouts(self.corners[kept], tuple(self.parts[row] for row in kept.tolist()))

    def moved(
        self, scale_xy: tuple[float, float], offset_xy: tuple[float, float], window: tuple[int, int, int, int]
    ) -> Cutouts:
        """By frame = image * scale + offset; of each what lies in the `window` (x0, y0, x1, y1) of the frame."""
        return Cutouts._of(
            [
                _moved(part, corner, scale_xy, offset_xy, window)
                for part, corner in zip(self.parts, self.corners.tolist(), strict=True)
            ]
        )

    def mirrored(self, image_hw: tuple[int, int], *, x: bool, y: bool) -> Cutouts:
        """Left to right, top to bottom, or both, with their picture."""
        h, w = image_hw
        corners = self.corners.copy()
        ends = corners + [part.shape[::-1] for part in self.parts] if self.parts else corners
        if x:
            corners[:, 0] = w - ends[:, 0]
        if y:
            corners[:, 1] = h - ends[:, 1]
        return Cutouts(corners, tuple(part[:: -1 if y else 1, :: -1 if x else 1] for part in self.parts))

    def turned(self, image_w: int) -> Cutouts:
        """A quarter counter-clockwise, with their picture, which was `image_w` pixels wide."""
        rights = self.corners[:, 0] + np.array([part.shape[1] for part in self.parts], np.int64)
        corners = np.stack([self.corners[:, 1], image_w - rights], axis=1)
        return Cutouts(corners, tuple(np.rot90(part) for part in self.parts))

    def whole(self, hw: tuple[int, int]) -> NDArray[np.bool_]:
        """(n, h, w) the masks in all of their picture."""
        masks = np.zeros((len(self), *hw), np.bool_)
        for mask, part, (x, y) in zip(masks, self.parts, self.corners.tolist(), strict=True):
            mask[y : y + part.shape[0], x : x + part.shape[1]] = part
        return masks


def _of_run_lengths(rle: dict[str, Any]) -> tuple[int, int, Part]:
    xs, ys = np.divmod(run_lengths.places(rle), rle["size"][0])
    if not len(xs):
        return 0, 0, _NOTHING
    x, y = int(xs[0]), int(ys.min())
    part = np.zeros((int(ys.max()) - y + 1, int(xs[-1]) - x + 1), np.uint8)
    part[ys - y, xs - x] = 1
    return x, y, part


def _of_box(box: Sequence[float], image_hw: tuple[int, int]) -> tuple[int, int, Part]:
    (x1, x2), (y1, y2) = (np.clip(np.rint(box[i::2]), 0, image_hw[1 - i]).astype(int).tolist() for i in (0, 1))
    return x1, y1, np.ones((max(y2 - y1, 0), max(x2 - x1, 0)), np.uint8)


def _moved(
    part: Part,
    corner: Sequence[int],
    scale_xy: tuple[float, float],
    offset_xy: tuple[float, float],
    window: tuple[int, int, int, int],
) -> tuple[int, int, Part]:
    (sx, sy), (h, w) = scale_xy, part.shape
    x, y = offset_xy[0] + corner[0] * sx, offset_xy[1] + corner[1] * sy
    left, top = max(window[0], int(np.floor(x))), max(window[1], int(np.floor(y)))
    right, bottom = min(window[2], int(np.ceil(x + w * sx))), min(window[3], int(np.ceil(y + h * sy)))
    if right <= left or bottom <= top:
        return 0, 0, _NOTHING
    # pixel i covers i .. i + 1, as in `lay`; beyond the part there is nothing of the object
    matrix = np.array([[sx, 0, x - left + 0.5 * sx - 0.5], [0, sy, y - top + 0.5 * sy - 0.5]])
    soft = cv2.warpAffine(part * 255, matrix, (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    return left, top, (np.asarray(soft) > 127).astype(np.uint8)
