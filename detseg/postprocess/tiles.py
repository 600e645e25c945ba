"""Large pictures in tiles: where the tiles lie, and how what is said of each becomes one answer.

O. Ronneberger, P. Fischer, T. Brox: U-Net, 2015, arXiv 1505.04597, sec. 2 and fig. 2: the overlap-tile strategy. A tile
is larger than what it answers for, by a `context` on every side; at the picture's border the context is its mirror
image. Answers that overlap besides are blended. A network that pads says little of worth near the edge of a tile, where
it sees no neighbours (of a U-Net on EfficientNet-Lite0 a sixth of the pixels change within 32 to 64 of it, one in a
hundred at 128): an answer counts by the fourth power of its distance from the edge, so that the one that lies deeper in
its tile decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

STEP = 32  # tiles start at multiples of it, so that a network that halves its maps five times sees each the same way
Shares = NDArray[np.float32]
Ask = Callable[[NDArray[np.uint8]], Shares]  # frames (N, H, W, 3) -> probabilities (N, K, H, W)


@dataclass(frozen=True)
class Tiling:
    """Tiles of `size_hw`, of which `context` pixels on every side are only looked at; at least `overlap` pixels of what
    two neighbours answer for is blended, less where one answers for no more. Raises ValueError where nothing would be
    left, or not multiples of STEP.
    """

    size_hw: tuple[int, int]
    overlap: int = 64
    context: int = 0

    def __post_init__(self) -> None:
        wrong = [n for n in (*self.size_hw, self.overlap, self.context) if n % STEP]
        if wrong:
            raise ValueError(f"tiles, overlap and context must be multiples of {STEP}, got {wrong[0]}")
        self._expect_core(1)

    def _expect_core(self, least: int) -> None:
        if min(self.core_hw) < least:
            raise ValueError(
                f"tiles of {self.size_hw[0]}x{self.size_hw[1]} pixels leave nothing between a context of "
                f"{self.context} on either side and an overlap of {self.overlap}; take larger ones"
            )

    @classmethod
    def usual(cls, size_hw: tuple[int, int], overlap: int | None, context: int) -> Tiling:
        """For a network that must see `context` pixels around what it answers for, rounded up; 0: nobody knows.

        Without an `overlap` it is half a tile; none where tiles have their context, and answer alike wherever they are
        cut. Raises as the class itself.
        """
        rounded = -(-context // STEP) * STEP
        if overlap is None:
            overlap = 0 if rounded else min(size_hw) // 2 // STEP * STEP
        tiling = cls(size_hw, overlap, rounded)
        tiling._expect_core(overlap + 1)
        return tiling

    def within(self, image_hw: tuple[int, int]) -> Tiling:
        """The same, but no larger than a picture of this size needs them: what is beyond it would only be mirrored."""
        needed = [-(-side // STEP) * STEP + 2 * self.context for side in image_hw]
        return replace(self, size_hw=(min(self.size_hw[0], needed[0]), min(self.size_hw[1], needed[1])))

    @property
    def core_hw(self) -> tuple[int, int]:
        """What a tile answers for."""
        return self.size_hw[0] - 2 * self.context, self.size_hw[1] - 2 * self.context

    def starts(self, length: int, axis: int) -> list[int]:
        """Where cores begin along a side of the picture, evenly; the last ends with it, or less than STEP beyond."""
        core = self.core_hw[axis]
        last = max(0, -(-(length - core) // STEP) * STEP)
        gaps = -(-last // (core - min(self.overlap, core - STEP)))
        return [i * last // max(1, gaps) // STEP * STEP for i in range(gaps + 1)]

    def count(self, image_hw: tuple[int, int]) -> int:
        """How many tiles a picture needs."""
        return len(self.starts(image_hw[0], 0)) * len(self.starts(image_hw[1], 1))


def context_of(config: Mapping[str, Any]) -> int:
    """The pixels that a segmenter must see around a tile, as its card tells; 0 where nobody knows."""
    context: int = config.get("context", 0)
    return context


def side_by_side(
    image: NDArray[np.uint8], tiling: Tiling, batch: int = 1
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """As few tiles as show all of the picture, `batch` at once: (N, H, W, 3), and boxes (N, 4) in them, xyxy.

    The boxes share no pixel and are the picture together, though tiles may overlap: what two of them show belongs to
    that in which it lies deeper.
    """
    h, w = image.shape[:2]
    apart = replace(tiling, overlap=0)
    wide = _extended(image, apart)
    tops, lefts = apart.starts(h, 0), apart.starts(w, 1)
    columns = _own(lefts, apart.core_hw[1], w)
    for top, (y1, y2) in zip(tops, _own(tops, apart.core_hw[0], h), strict=True):
        boxes = np.array([(x1, y1, x2, y2) for x1, x2 in columns], np.float32) + apart.context
        for i, tiles in enumerate(_tiles(wide, top, lefts, apart, batch)):
            yield tiles, boxes[i * batch : (i + 1) * batch]


def _own(starts: Sequence[int], core: int, length: int) -> list[tuple[int, int]]:
    """What belongs to each core along a side of the picture, from its start: up to the middle of what it shares."""
    middles = [(first + core + second) // 2 // STEP * STEP for first, second in pairwise(starts)]
    spans = zip(starts, [0, *middles], [*middles, length], strict=True)
    return [(begin - start, end - start) for start, begin, end in spans]


def segment_tiled(
    image: NDArray[np.uint8], tiling: Tiling, ask: Ask, batch: int = 1
) -> tuple[NDArray[np.uint8], Shares]:
    """(h, w, 3) RGB -> (h, w) class of each pixel, and how probable it is, asked for tile by tile.

    Row by row of tiles: beside the picture there is only what is known of one row of them.
    """
    h, w = image.shape[:2]
    wide = _extended(image, tiling)
    tops, lefts = tiling.starts(h, 0), tiling.starts(w, 1)
    labels, sure = np.zeros((h, w), np.uint8), np.zeros((h, w), np.float32)
    band: Shares | None = None
    for top, following in zip(tops, [*tops[1:], None], strict=True):
        of_rows = _depth(tiling.core_hw[0], first=top == 0, last=following is None)
        row = _row(wide, top, lefts, of_rows[:, None], tiling, ask, batch)
        if band is not None:
            row[:, : band.shape[1]] += band
        done = row if following is None else row[:, : following - top]
        rows, done = slice(top, top + done.shape[1]), done[:, : h - top, :w]
        labels[rows], sure[rows] = done.argmax(axis=0), done.max(axis=0) / done.sum(axis=0)
        band = None if following is None else row[:, following - top :]
    return labels, sure


def _extended(image: NDArray[np.uint8], tiling: Tiling) -> NDArray[np.uint8]:
    """The picture with what tiles look at beyond it: its mirror image."""
    h, w = image.shape[:2]
    below = tiling.starts(h, 0)[-1] + tiling.core_hw[0] - h + tiling.context
    right = tiling.starts(w, 1)[-1] + tiling.core_hw[1] - w + tiling.context
    sides = (tiling.context, below, tiling.context, right)
    return np.asarray(cv2.copyMakeBorder(image, *sides, cv2.BORDER_REFLECT_101), np.uint8)


def _row(
    wide: NDArray[np.uint8],
    top: int,
    lefts: Sequence[int],
    of_rows: NDArray[np.float32],
    tiling: Tiling,
    ask: Ask,
    batch: int,
) -> Shares:
    """(K, core height, width of all) the weighted shares of one row of tiles, added where they overlap."""
    (core_h, core_w), context = tiling.core_hw, tiling.context
    total: Shares | None = None
    answers = (shares for frames in _tiles(wide, top, lefts, tiling, batch) for shares in ask(frames))
    for left, shares in zip(lefts, answers, strict=True):
        mine = shares[:, context : context + core_h, context : context + core_w]
        mine = mine * (of_rows * _depth(core_w, first=left == 0, last=left == lefts[-1]))
        if total is None:
            total = np.zeros((len(mine), core_h, lefts[-1] + core_w), np.float32)
        total[:, :, left : left + core_w] += mine
    assert total is not None
    return total


def _tiles(
    wide: NDArray[np.uint8], top: int, lefts: Sequence[int], tiling: Tiling, batch: int
) -> Iterator[NDArray[np.uint8]]:
    """(N, H, W, 3), `batch` at once, those of one row."""
    height, width = tiling.size_hw
    for first in range(0, len(lefts), batch):
        cut = [wide[top : top + height, left : left + width] for left in lefts[first : first + batch]]
        yield np.stack(cut)


def _depth(length: int, *, first: bool, last: bool) -> NDArray[np.float32]:
    """(length,) how much answers count along one side of a tile: 1 in its middle and up to the picture's border."""
    from_start = np.arange(length, dtype=np.float32) + 0.5
    middle = np.full(length, length / 2, np.float32)
    least = np.minimum(middle if first else from_start, middle if last else from_start[::-1])
    return np.asarray((np.minimum(least, middle) / middle) ** 4, np.float32)
