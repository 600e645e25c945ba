"""Greedy non-maximum suppression: of boxes that overlap more than `iou`, only the best stays.

The keep set is that of `torchvision.ops.nms`, to the last bit of the overlap: single precision, suppressed
when the overlap is greater than the threshold, equal scores in the order given. Three ways lead to it, chosen
by the crowd:

- pairs: few boxes of many classes, every pair of a class at once;
- blocks: the best boxes settle among themselves, then what they keep clears the rest, which shrinks fast
  where boxes lie on top of each other;
- grid: where hardly any box is suppressed, only boxes of like size and place are compared.

That a box of another place or size need not be looked at follows from the threshold t. With m the longer
side, IoU > t needs `min(m) > t max(m)` and centres closer than `(1 - t) max(m)` along each axis: the boxes
share more than the t-th part of each side of either.

n: boxes, p: pairs. Inside this file boxes are sorted best first: in a pair the smaller index is the better.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.geometry.boxes import Boxes

Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]
Reals = NDArray[np.float64]

_BLOCK = 256  # best boxes settled at once
_TILE = 512  # others that they clear at once: wide enough for numpy, small enough for the cache
_SMALL_GROUP = 64  # classes up to this many boxes are settled together, pair by pair
_GRID_FROM = 2048  # fewer boxes are cleared faster block by block
_PAIR_COST = 64  # a pair looked up in the grid costs as much as this many in a block, most of which are skipped
_PAIRS_AT_ONCE = 1 << 15


def nms(boxes: Boxes, scores: NDArray[np.floating[Any]], iou: float) -> Rows:
    """(n, 4) xyxy, (n,) -> indices of the boxes that stay, best first. Classes play no part (agnostic).

    Boxes and scores must be finite. Raises ValueError when `iou` lies outside [0, 1].
    """
    return class_aware_nms(boxes, scores, np.zeros(len(boxes), np.int64), iou)


def class_aware_nms(
    boxes: Boxes, scores: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], iou: float
) -> Rows:
    """(n, 4) xyxy, (n,), (n,) -> indices of the boxes that stay, best first; boxes compete within a class.

    Boxes and scores must be finite. Raises ValueError when `iou` lies outside [0, 1].
    """
    if not 0 <= iou <= 1:
        raise ValueError(f"the overlap threshold must lie in [0, 1], got {iou}")
    order = np.argsort(-np.asarray(scores), kind="stable")
    ranked = _Ranked.of(np.asarray(boxes)[order])
    keep = np.ones(len(order), np.bool_)
    solid = np.flatnonzero(ranked.solid())  # a box without inside overlaps nothing
    keep[solid] = _settle_classes(ranked[solid], np.asarray(labels)[order][solid], iou)
    return order[keep]


class _Ranked:
    """Boxes best first, as columns: what every comparison needs, computed once."""

    __slots__ = ("area", "x1", "x2", "y1", "y2")

    def __init__(self, x1: Any, y1: Any, x2: Any, y2: Any, area: Any) -> None:
        self.x1, self.y1, self.x2, self.y2, self.area = x1, y1, x2, y2, area

    @classmethod
    def of(cls, boxes: Boxes) -> _Ranked:
        precision = np.float64 if boxes.dtype == np.float64 else np.float32
        x1, y1, x2, y2 = np.ascontiguousarray(boxes.T, precision)
        return cls(x1, y1, x2, y2, (x2 - x1) * (y2 - y1))

    def __len__(self) -> int:
        return len(self.area)

    def __getitem__(self, rows: Any) -> _Ranked:
        return _Ranked(self.x1[rows], self.y1[rows], self.x2[rows], self.y2[rows], self.area[rows])

    def solid(self) -> Mask:
        """(n,) True where a box has an inside."""
        return (self.x2 > self.x1) & (self.y2 > self.y1) & (self.area > 0)


class _Spread:
    """Where boxes lie and how large they are, in double precision."""

    def __init__(self, ranked: _Ranked) -> None:
        x1, y1, x2, y2 = (v.astype(np.float64) for v in (ranked.x1, ranked.y1, ranked.x2, ranked.y2))
        self.x, self.y, self.longer = (x1 + x2) / 2, (y1 + y2) / 2, np.maximum(x2 - x1, y2 - y1)

    def levels(self, growth: float) -> Rows:
        """(n,) how often the shortest longer side must grow by the factor to pass a box's."""
        if not np.isfinite(growth):
            return np.zeros(len(self.x), np.intp)
        return np.floor(np.log(self.longer / self.longer.min()) / np.log(growth)).astype(np.intp)


def _loosened(iou: float) -> float:
    """A threshold that rules out less: safe from the rounding of overlaps."""
    return iou * (1 - 1e-4)


def _overlap_more(a: _Ranked, b: _Ranked, iou: float) -> Mask:
    """Broadcast a, b -> True where their IoU is greater than `iou`, rounded as torchvision rounds it."""
    w = np.minimum(a.x2, b.x2)
    w -= np.maximum(a.x1, b.x1)
    np.maximum(w, 0, out=w)
    shared = np.minimum(a.y2, b.y2)
    shared -= np.maximum(a.y1, b.y1)
    shared *= w  # below 0 where the boxes lie one above the other: as good as 0
    union = a.area + b.area
    union -= shared
    np.divide(shared, union, out=shared)
    more: Mask = shared > _threshold(iou, shared.dtype)
    return more


def _threshold(iou: float, dtype: np.dtype[Any]) -> Any:
    """The largest number of `dtype` not above `iou`: as good to compare with as `iou` itself."""
    rounded = dtype.type(iou)
    return np.nextafter(rounded, dtype.type(-1)) if float(rounded) > iou else rounded


def _settle_classes(ranked: _Ranked, labels: NDArray[Any], iou: float) -> Mask:
    """(n,) True where a box stays."""
    keep = np.ones(len(ranked), np.bool_)
    by_class = np.argsort(labels, kind="stable")
    sizes = np.unique(labels, return_counts=True)[1]
    starts = np.cumsum(sizes) - sizes
    large = sizes > _SMALL_GROUP
    for start, size in zip(starts[large], sizes[large], strict=True):
        rows = by_class[start : start + size]
        keep[rows] = _settle(ranked[rows], iou)
    if not large.all():
        first, second = _pairs_within(starts[~large], sizes[~large])
        keep &= _settle_pairs(ranked, [(by_class[first], by_class[second])], iou)
    return keep


def _pairs_within(starts: Rows, sizes: Rows) -> tuple[Rows, Rows]:
    """Every pair (a, b), a < b, of positions in the same run; runs are given by start and length."""
    position = _ranges(starts, sizes)
    followers = np.repeat(starts + sizes, sizes) - position - 1
    return np.repeat(position, followers), _ranges(position + 1, followers)


def _ranges(starts: Rows, counts: Rows) -> Rows:
    """starts[0], starts[0] + 1, ... counts[0] of them, then the same for the next."""
    offsets = np.cumsum(counts) - counts
    return np.repeat(starts - offsets, counts) + np.arange(counts.sum())


def _settle_pairs(ranked: _Ranked, portions: Iterable[tuple[Rows, Rows]], iou: float) -> Mask:
    """(n,) True where a box stays, looking at pairs (p,), (p,) given in portions: all that could matter."""
    hits = [np.zeros((2, 0), np.intp)]
    for first, second in portions:
        hit = _overlap_more(ranked[first], ranked[second], iou)
        hits.append(np.sort([first[hit], second[hit]], axis=0))
    better, worse = np.concatenate(hits, axis=1)
    order = np.argsort(better, kind="stable")
    lost = bytearray(len(ranked))
    # in this order a box's fate is settled before it acts on others; a bytearray is the quickest here
    for winner, loser in zip(better[order].tolist(), worse[order].tolist(), strict=True):
        if not lost[winner]:
            lost[loser] = 1
    return np.frombuffer(lost, np.bool_) == 0


def _settle(ranked: _Ranked, iou: float) -> Mask:
    """(n,) True where a box of one class stays: block by block, then the grid where little is suppressed."""
    if len(ranked) <= _BLOCK:
        return _settle_block(ranked, iou)
    keep = np.ones(len(ranked), np.bool_)
    spread = _Spread(ranked)
    left = _by_place(spread, np.arange(len(ranked)))
    grid_below = len(ranked)
    while len(left):
        head = np.sort(np.partition(left, _BLOCK)[:_BLOCK]) if len(left) > _BLOCK else np.sort(left)
        keep[head] = _settle_block(ranked[head], iou)
        stays, left = head[keep[head]], left[left > head[-1]]
        keep[left] = _untouched(ranked, spread, stays, left, iou)
        left = left[keep[left]]
        if _GRID_FROM <= len(left) <= grid_below and 2 * len(stays) > len(head):
            rest = np.sort(left)
            cells = _Cells(_Spread(ranked[rest]), _loosened(iou))
            if cells.pair_count() < len(rest) ** 2 // _PAIR_COST:
                keep[rest] = _settle_pairs(ranked[rest], cells.pairs(), iou)
                break
            grid_below = len(left) // 2
    return keep


def _by_place(spread: _Spread, rows: Rows) -> Rows:
    """The rows in such an order that a run of `_TILE` boxes is of like size and place."""
    tiles = len(rows) / _TILE
    if tiles < 4:
        return rows
    level = spread.levels(2.0)
    strips = max(1, round((tiles / (level.max() + 1)) ** 0.5))
    strip = np.empty(len(rows), np.intp)
    strip[np.argsort(spread.y)] = np.arange(len(rows)) * strips // len(rows)
    return np.lexsort((spread.x, strip, level))


def _settle_block(ranked: _Ranked, iou: float) -> Mask:
    """(n,) True where a box stays, every pair compared: for one block."""
    overlaps = _overlap_more(ranked[:, None], ranked, iou)
    np.fill_diagonal(overlaps, False)
    lost = np.zeros(len(ranked), np.bool_)
    for row in np.flatnonzero(overlaps.any(axis=1)).tolist():
        if not lost[row]:
            lost[row + 1 :] |= overlaps[row, row + 1 :]
    return ~lost


def _untouched(ranked: _Ranked, spread: _Spread, winners: Rows, rest: Rows, iou: float) -> Mask:
    """(n,) True where a box of `rest` (ordered by place) overlaps none of the winners too much."""
    free = np.ones(len(rest), np.bool_)
    if not len(rest):
        return free
    near = _near(spread, winners, rest, _loosened(iou))
    others = ranked[rest]
    for tile, mask in enumerate(near):
        rivals = winners[mask]
        if len(rivals):
            run = slice(tile * _TILE, (tile + 1) * _TILE)
            free[run] = ~_overlap_more(ranked[rivals[:, None]], others[run], iou).any(axis=0)
    return free


def _near(spread: _Spread, winners: Rows, rest: Rows, t: float) -> Mask:
    """(tiles, winners) False where no box of the tile can overlap the winner too much, by place and size."""
    starts = np.arange(0, len(rest), _TILE)
    longer, mine = spread.longer[rest], spread.longer[winners]
    smallest = np.minimum.reduceat(longer, starts)[:, None]
    largest = np.maximum.reduceat(longer, starts)[:, None]
    near = (mine >= t * smallest) & (largest >= t * mine)
    reach = (1 - t) * np.maximum(largest, mine) * (1 + 1e-9)
    for axis in (spread.x, spread.y):
        centres, own = axis[rest], axis[winners]
        near &= own >= np.minimum.reduceat(centres, starts)[:, None] - reach
        near &= own <= np.maximum.reduceat(centres, starts)[:, None] + reach
    return near


class _Cells:
    """Boxes sorted by (level, row, column): finds all pairs that could overlap more than t.

    Levels of the longer side grow by 1 / t, cells are (1 - t) times the longest side of their level: then the
    rivals of a box lie in the nine cells around it, in its own level and the next one up or down.
    """

    def __init__(self, spread: _Spread, t: float) -> None:
        t = min(t, 0.75)  # levels and cells must not become too thin
        self.level = spread.levels(1 / t if t > 0 else np.inf)
        longest = np.zeros(self.level.max() + 2)
        np.maximum.at(longest, self.level, spread.longer)
        self.cell = np.where(longest > 0, longest * (1 - t) * (1 + 1e-9), np.inf)
        self.x, self.y = spread.x - spread.x.min(), spread.y - spread.y.min()
        finest = self.cell.min()
        columns, rows = (np.floor(v.max() / finest) + 3 for v in (self.x, self.y))
        self.fits = len(self.cell) * rows * columns < 2**62
        if self.fits:
            self.columns, self.rows = int(columns), int(rows)
            self.runs = self._runs()

    def pair_count(self) -> float:
        """How many pairs `pairs` gives; infinite where the cells are too many to be numbered."""
        return float(sum(count.sum() for _, count in self.runs)) if self.fits else np.inf

    def pairs(self) -> Iterator[tuple[Rows, Rows]]:
        """Each pair once, in portions."""
        for starts, counts in self.runs:
            cuts = np.searchsorted(np.cumsum(counts), np.arange(0, counts.sum(), _PAIRS_AT_ONCE))
            for begin, end in pairwise([*cuts.tolist(), len(counts)]):
                part = counts[begin:end]
                yield np.repeat(self.order[begin:end], part), self.order[_ranges(starts[begin:end], part)]

    def _runs(self) -> list[tuple[Rows, Rows]]:
        """Start and length, in sorted order, of the rivals of each box, for five rows of cells.

        In its own level a box looks at those after it in its cell, the next cell and the row below; in the
        level above at three cells of three rows.
        """
        order = np.argsort(self._keys(np.arange(len(self.level)), self.level), kind="stable")
        self.order = order
        own, above = (self._keys(order, self.level[order] + step) for step in (0, 1))
        after = np.arange(1, len(order) + 1)
        runs = [(after, np.searchsorted(own, own + 1, "right") - after)]
        for keys in (own + self.columns, *(above + row * self.columns for row in (-1, 0, 1))):
            start = np.searchsorted(own, keys - 1, "left")
            runs.append((start, np.searchsorted(own, keys + 1, "right") - start))
        return runs

    def _keys(self, rows: Rows, level: Rows) -> Rows:
        """(n,) the number of the cell that each box's centre has in the given level."""
        size = self.cell[level]
        row = (self.y[rows] / size).astype(np.intp) + 1
        column = (self.x[rows] / size).astype(np.intp) + 1
        keys: Rows = (level * self.rows + row) * self.columns + column
        return keys
