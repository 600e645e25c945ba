"""Greedy non-maximum suppression: of boxes that overlap more than `iou`, only the best stays.

The keep set is that of `torchvision.ops.nms`, to the last bit of the overlap: single precision, suppressed when the
overlap is greater than the threshold, equal scores in the order given. Three ways lead to it, chosen by the crowd:

- pairs: few boxes of many classes, every pair of a class at once;
- blocks: the best boxes settle among themselves, then what they keep clears the rest, which shrinks fast where
  boxes lie on top of each other;
- grid: where hardly any box is suppressed, only boxes of like size and place are compared.

n: boxes, p: pairs. Inside this file boxes are sorted best first, so in a pair the smaller index is the better box.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.geometry.boxes import Boxes

Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]

_BLOCK = 256  # best boxes settled at once
_TILE = 1 << 16  # overlaps computed at once: 256 kB an array stays in the cache
_SMALL_GROUP = 64  # classes up to this many boxes are settled together, pair by pair
_GRID_FROM = 2048  # fewer boxes are cleared faster block by block
_PAIRS_PER_BOX = 48  # more candidates than this in the grid: blocks are faster


def nms(boxes: Boxes, scores: NDArray[np.floating[Any]], iou: float) -> Rows:
    """(n, 4) xyxy, (n,) -> indices of the boxes that stay, best first. Classes play no part (agnostic).

    Boxes and scores must be finite; `iou` lies in [0, 1].
    """
    return class_aware_nms(boxes, scores, np.zeros(len(boxes), np.int64), iou)


def class_aware_nms(
    boxes: Boxes, scores: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], iou: float
) -> Rows:
    """(n, 4) xyxy, (n,), (n,) -> indices of the boxes that stay, best first; only boxes of one class compete."""
    if not 0 <= iou <= 1:
        raise ValueError(f"the overlap threshold must lie in [0, 1], got {iou}")
    order = np.argsort(-np.asarray(scores), kind="stable")
    ranked = _Ranked(np.asarray(boxes)[order])
    return order[_settle_classes(ranked, np.asarray(labels)[order], iou)]


class _Ranked:
    """Boxes best first, as columns: what every comparison needs, computed once."""

    def __init__(self, boxes: Boxes) -> None:
        columns = boxes.astype(np.float64 if boxes.dtype == np.float64 else np.float32).T
        self.x1, self.y1, self.x2, self.y2 = np.ascontiguousarray(columns)
        self.area = (self.x2 - self.x1) * (self.y2 - self.y1)

    def __len__(self) -> int:
        return len(self.area)

    def __getitem__(self, rows: Any) -> _Ranked:
        part = object.__new__(_Ranked)
        for name in ("x1", "y1", "x2", "y2", "area"):
            setattr(part, name, getattr(self, name)[rows])
        return part

    def column(self) -> _Ranked:
        """The same boxes, to be compared with each of a row of others."""
        return self[:, None]


def _overlap_more(a: _Ranked, b: _Ranked, iou: float) -> Mask:
    """Broadcast a, b -> True where their IoU is greater than `iou`, rounded as torchvision rounds it."""
    w = np.minimum(a.x2, b.x2)
    w -= np.maximum(a.x1, b.x1)
    np.maximum(w, 0, out=w)
    shared = np.minimum(a.y2, b.y2)
    shared -= np.maximum(a.y1, b.y1)
    np.maximum(shared, 0, out=shared)
    shared *= w
    union = a.area + b.area
    union -= shared
    with np.errstate(divide="ignore", invalid="ignore"):  # two boxes without area: 0 / 0, never suppressed
        np.divide(shared, union, out=shared)
    return shared > _threshold(iou, shared.dtype)


def _threshold(iou: float, dtype: np.dtype[Any]) -> Any:
    """The largest number of `dtype` not above `iou`: comparing with it is comparing with `iou` in full precision."""
    rounded = dtype.type(iou)
    return np.nextafter(rounded, dtype.type(-1)) if float(rounded) > iou else rounded


def _settle_classes(ranked: _Ranked, labels: NDArray[Any], iou: float) -> Mask:
    """(n,) True where a box stays."""
    keep = np.ones(len(ranked), np.bool_)
    by_class = np.argsort(labels, kind="stable")
    sizes = np.unique(labels, return_counts=True)[1]
    ends = np.cumsum(sizes)
    for end, size in zip(ends[sizes > _SMALL_GROUP], sizes[sizes > _SMALL_GROUP], strict=True):
        rows = by_class[end - size : end]
        keep[rows] = _settle(ranked[rows], iou)
    small = sizes <= _SMALL_GROUP
    if small.any():
        first, second = _pairs_within(ends[small] - sizes[small], sizes[small])
        _settle_pairs(ranked, by_class[first], by_class[second], iou, keep)
    return keep


def _pairs_within(starts: Rows, sizes: Rows) -> tuple[Rows, Rows]:
    """Every pair (a, b), a < b, of positions in the same group; groups are runs given by start and length."""
    position = _ranges(starts, sizes)
    group_end = np.repeat(starts + sizes, sizes)
    followers = group_end - position - 1
    return np.repeat(position, followers), _ranges(position + 1, followers)


def _ranges(starts: Rows, counts: Rows) -> Rows:
    """starts[0], starts[0] + 1, ... counts[0] of them, then the same for the next."""
    offsets = np.cumsum(counts) - counts
    return np.repeat(starts - offsets, counts) + np.arange(counts.sum())


def _settle_pairs(ranked: _Ranked, first: Rows, second: Rows, iou: float, keep: Mask) -> None:
    """Clears `keep` of the boxes that lose, looking only at the pairs given (every one that could matter)."""
    hit = _overlap_more(ranked[first], ranked[second], iou)
    better, worse = np.minimum(first[hit], second[hit]), np.maximum(first[hit], second[hit])
    order = np.argsort(better, kind="stable")
    lost = bytearray(len(ranked))
    # in this order a box's own fate is settled before it acts on others; a bytearray is quicker than an array here
    for winner, loser in zip(better[order].tolist(), worse[order].tolist(), strict=True):
        if not lost[winner]:
            lost[loser] = 1
    keep &= np.frombuffer(lost, np.bool_) == 0


def _settle(ranked: _Ranked, iou: float) -> Mask:
    """(n,) True where a box of one class stays: block by block, over to the grid where little is suppressed."""
    keep = np.zeros(len(ranked), np.bool_)
    left = np.arange(len(ranked))
    grid_below = len(ranked)
    while len(left):
        head, left = left[:_BLOCK], left[_BLOCK:]
        stays = head[_settle_block(ranked[head], iou)]
        keep[stays] = True
        left = left[_untouched(ranked[stays], ranked[left], iou)]
        if _GRID_FROM <= len(left) <= grid_below and 2 * len(stays) > len(head):
            rest = ranked[left]
            pairs = _grid_pairs(rest, iou)
            if pairs is not None:
                survivors = np.ones(len(left), np.bool_)
                _settle_pairs(rest, *pairs, iou, survivors)
                keep[left[survivors]] = True
                break
            grid_below = len(left) // 2
    return keep


def _settle_block(ranked: _Ranked, iou: float) -> Mask:
    """(n,) True where a box stays, every pair compared: for one block."""
    overlaps = _overlap_more(ranked.column(), ranked, iou)
    lost = np.zeros(len(ranked), np.bool_)
    for row in np.flatnonzero(overlaps.any(axis=1)).tolist():
        if not lost[row]:
            lost[row + 1 :] |= overlaps[row, row + 1 :]
    return ~lost


def _untouched(winners: _Ranked, rest: _Ranked, iou: float) -> Mask:
    """(n,) True where a box of `rest` overlaps none of the winners too much."""
    free = np.ones(len(rest), np.bool_)
    width = max(_TILE // max(len(winners), 1), 256)
    column = winners.column()
    for start in range(0, len(rest), width):
        tile = slice(start, start + width)
        free[tile] = ~_overlap_more(column, rest[tile], iou).any(axis=0)
    return free


def _grid_pairs(ranked: _Ranked, iou: float) -> tuple[Rows, Rows] | None:
    """Every pair that could overlap more than `iou` (and some that do not); None where they are too many.

    With t the threshold, IoU > t needs the longer sides m of both to differ by less than the factor 1 / t, and the
    centres by less than (1 - t) * max(m) along each axis. So boxes are sorted into levels of m, growing by 1 / t,
    each with cells of (1 - t) times its largest m, and looked up in the nine cells around, in their own level and
    the next one up.
    """
    t = min(iou * (1 - 1e-4), 0.75)  # looser than the threshold: safe from rounding, and levels not too thin
    longer = np.maximum(ranked.x2 - ranked.x1, ranked.y2 - ranked.y1).astype(np.float64)
    proper = np.flatnonzero(ranked.area > 0)  # a box without area overlaps nothing
    longer = longer[proper]
    if not len(proper):
        return proper, proper
    level = _levels(longer, t)
    cell = np.zeros(level.max() + 2)
    np.maximum.at(cell, level, longer)
    cell = np.where(cell > 0, cell * (1 - t) * (1 + 1e-9), np.inf)
    centre_x = (ranked.x1[proper].astype(np.float64) + ranked.x2[proper]) / 2
    centre_y = (ranked.y1[proper].astype(np.float64) + ranked.y2[proper]) / 2
    lookup = _CellLookup(level, cell, centre_x - centre_x.min(), centre_y - centre_y.min())
    found = lookup.pairs(_PAIRS_PER_BOX * len(proper)) if lookup.fits else None
    return None if found is None else (proper[found[0]], proper[found[1]])


def _levels(longer: NDArray[np.float64], t: float) -> Rows:
    """(n,) side lengths -> (n,) level, 0 for the shortest; neighbours grow by 1 / t."""
    if t <= 0:
        return np.zeros(len(longer), np.intp)
    return np.floor(np.log(longer / longer.min()) / -np.log(t)).astype(np.intp)


class _CellLookup:
    """Boxes sorted by (level, row, column) of their cell, so that three neighbouring cells are one run."""

    def __init__(
        self, level: Rows, cell: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> None:
        self.level, self.cell, self.x, self.y = level, cell, x, y
        finest = cell[level].min()
        self.columns, self.rows = (float(v.max() / finest + 3) for v in (x, y))
        self.fits = len(cell) * self.rows * self.columns < 2**62
        if self.fits:
            self.columns, self.rows = int(self.columns), int(self.rows)
            keys = self._keys(level)
            self.order = np.argsort(keys, kind="stable")
            self.keys = keys[self.order]

    def _keys(self, level: Rows) -> NDArray[np.int64]:
        """(n,) the cell that each box's centre has in the given level."""
        size = self.cell[level]
        row, column = (self.y / size).astype(np.int64) + 1, (self.x / size).astype(np.int64) + 1
        return (level * self.rows + row) * self.columns + column

    def pairs(self, limit: int) -> tuple[Rows, Rows] | None:
        """Pairs of boxes in neighbouring cells, each once; None where more than `limit` would have to be looked at."""
        everyone = np.arange(len(self.level))
        position = np.empty_like(everyone)
        position[self.order] = everyone
        own, above = self._keys(self.level), self._keys(self.level + 1)
        runs = [
            (position + 1, np.searchsorted(self.keys, own + 1, "right")),  # own cell onwards, and the next
            self._run(own + self.columns),
            *(self._run(above + row * self.columns) for row in (-1, 0, 1)),
        ]
        counts = [stop - start for start, stop in runs]
        if sum(int(count.sum()) for count in counts) > limit:
            return None
        seconds = [self.order[_ranges(run[0], count)] for run, count in zip(runs, counts, strict=True)]
        firsts = [np.repeat(everyone, count) for count in counts]
        return np.concatenate(firsts), np.concatenate(seconds)

    def _run(self, keys: NDArray[np.int64]) -> tuple[Rows, Rows]:
        """Where the boxes of the cells key - 1 .. key + 1 start and stop in sorted order."""
        return np.searchsorted(self.keys, keys - 1, "left"), np.searchsorted(self.keys, keys + 1, "right")


