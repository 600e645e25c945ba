"""`Cutouts`: the masks of a training picture's objects, each kept only where it is.

Masks of whole pictures would take n times the picture's memory, and be moved with all their empty pixels. They move
as the pixels do: sampled between the middles of pixels, and cut at one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    """n masks: corners (n, 2) int64, x and y of the first pixel of each part, in pixels of the picture.

    `outlined` (n,): whether a mask is the object's, and not its box for want of an outline.
    """

    corners: NDArray[np.int64]
    parts: tuple[Part, ...]
    outlined: NDArray[np.bool_]

    @classmethod
    def of_outlines(cls, outlines: Outlines, boxes: NDArray[Any], image_hw: tuple[int, int]) -> Cutouts:
        """From the outlines (n) of a picture's objects; an object without one has its box (4,) xyxy for a mask.

        Raises ValueError for run lengths of another size.
        """
        drawn = [
            _of_run_lengths(outlines.rle(row, image_hw)) if has else _of_box(box, image_hw)
            for row, (has, box) in enumerate(zip(outlines.has.tolist(), boxes.tolist(), strict=True))
        ]
        return cls._of(drawn, outlines.has)

    @classmethod
    def concatenate(cls, several: Sequence[Cutouts]) -> Cutouts:
        """The masks of several pictures that share one frame."""
        corners = np.concatenate([np.zeros((0, 2), np.int64), *(one.corners for one in several)])
        outlined = np.concatenate([np.zeros(0, np.bool_), *(one.outlined for one in several)])
        return cls(corners, tuple(part for one in several for part in one.parts), outlined)

    @classmethod
    def _of(cls, drawn: Sequence[tuple[int, int, Part]], outlined: NDArray[np.bool_]) -> Cutouts:
        corners = np.array([(x, y) for x, y, _ in drawn], np.int64).reshape(-1, 2)
        return cls(corners, tuple(part for _, _, part in drawn), np.asarray(outlined, np.bool_))

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, rows: NDArray[Any]) -> Cutouts:
        """The masks at `rows` (indices or a mask)."""
        kept = np.arange(len(self.parts))[rows]
        return Cutouts(self.corners[kept], tuple(self.parts[row] for row in kept.tolist()), self.outlined[kept])

    def moved(
        self, scale_xy: tuple[float, float], offset_xy: tuple[float, float], window: tuple[int, int, int, int]
    ) -> Cutouts:
        """By frame = image * scale + offset; of each what lies in the `window` (x0, y0, x1, y1) of the frame."""
        drawn = [
            _moved(part, corner, scale_xy, offset_xy, window)
            for part, corner in zip(self.parts, self.corners.tolist(), strict=True)
        ]
        return Cutouts._of(drawn, self.outlined)

    def warped(self, matrix: NDArray[np.float64]) -> Cutouts:
        """By a (2, 3) affine map of continuous pixels, each with all that it covers then, in the picture or beyond."""
        drawn = [_warped(part, corner, matrix) for part, corner in zip(self.parts, self.corners.tolist(), strict=True)]
        return Cutouts._of(drawn, self.outlined)

    def without(self, covered: NDArray[np.bool_]) -> Cutouts:
        """The masks less the pixels that something (h, w) covers."""
        left = []
        for part, (x, y) in zip(self.parts, self.corners.tolist(), strict=True):
            left.append(part & ~covered[y : y + part.shape[0], x : x + part.shape[1]])
        return replace(self, parts=tuple(left))

    def boxes(self) -> NDArray[np.float32]:
        """(n, 4) xyxy the least boxes that hold the masks; 0, 0, 0, 0 around nothing."""
        return np.array(
            [_bounds(part, corner) for part, corner in zip(self.parts, self.corners.tolist(), strict=True)], np.float32
        ).reshape(-1, 4)

    def areas(self) -> NDArray[np.int64]:
        """(n,) pixels of each."""
        return np.array([int(part.sum()) for part in self.parts], np.int64)

    def mirrored(self, image_hw: tuple[int, int], *, x: bool, y: bool) -> Cutouts:
        """Left to right, top to bottom, or both, with their picture."""
        h, w = image_hw
        corners = self.corners.copy()
        ends = corners + [part.shape[::-1] for part in self.parts] if self.parts else corners
        if x:
            corners[:, 0] = w - ends[:, 0]
        if y:
            corners[:, 1] = h - ends[:, 1]
        parts = tuple(part[:: -1 if y else 1, :: -1 if x else 1] for part in self.parts)
        return replace(self, corners=corners, parts=parts)

    def turned(self, image_w: int) -> Cutouts:
        """A quarter counter-clockwise, with their picture, which was `image_w` pixels wide."""
        rights = self.corners[:, 0] + np.array([part.shape[1] for part in self.parts], np.int64)
        corners = np.stack([self.corners[:, 1], image_w - rights], axis=1)
        return replace(self, corners=corners, parts=tuple(np.rot90(part) for part in self.parts))

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


def _warped(part: Part, corner: Sequence[int], matrix: NDArray[np.float64]) -> tuple[int, int, Part]:
    if not part.any():
        return 0, 0, _NOTHING
    (h, w), (x, y) = part.shape, corner
    ends = np.array([[x, y, 1], [x + w, y, 1], [x, y + h, 1], [x + w, y + h, 1]]) @ matrix.T
    (left, top), (right, bottom) = np.floor(ends.min(axis=0)).astype(int), np.ceil(ends.max(axis=0)).astype(int)
    # from the middles of the part's pixels to those of the window's
    shift = matrix @ [x + 0.5, y + 0.5, 1] - [left + 0.5, top + 0.5]
    own = np.concatenate([matrix[:, :2], shift[:, None]], axis=1)
    soft = cv2.warpAffine(part * 255, own, (int(right - left), int(bottom - top)), flags=cv2.INTER_LINEAR)
    return int(left), int(top), (np.asarray(soft) > 127).astype(np.uint8)


def _bounds(part: Part, corner: Sequence[int]) -> tuple[int, int, int, int]:
    ys, xs = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if not len(xs):
        return 0, 0, 0, 0
    x, y = corner
    return x + int(xs[0]), y + int(ys[0]), x + int(xs[-1]) + 1, y + int(ys[-1]) + 1
