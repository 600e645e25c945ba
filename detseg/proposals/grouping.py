"""Hierarchical grouping (Uijlings et al. 2013, section 3.1): the two most similar neighbours become one, until one is
left. Every region on the way is a place where an object may be.

Similarities wait in a priority queue; those of a region that is gone are dropped when they come up. Only neighbours are
compared: at first all pairs at once, then a new region with its neighbours at once.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detseg.proposals.regions import Regions


@dataclass(frozen=True)
class Strategy:
    """Which similarities count; they are added (section 3.2, equation 6)."""

    colour: bool = False
    texture: bool = False
    size: bool = False
    fill: bool = False

    def __post_init__(self) -> None:
        if not (self.colour or self.texture or self.size or self.fill):
            raise ValueError("a strategy needs at least one similarity")


def similarities(regions: Regions, pairs: NDArray[np.int64], strategy: Strategy) -> NDArray[np.float64]:
    """(m, 2) pairs -> (m,) similarities, each of the four between 0 and 1 (equations 2, 3, 4 and 5)."""
    a, b = pairs[:, 0], pairs[:, 1]
    total = np.zeros(len(pairs))
    for wanted, histogram in ((strategy.colour, regions.colour), (strategy.texture, regions.texture)):
        if wanted:
            total += np.minimum(histogram[a], histogram[b]).sum(axis=1)
    top_left = np.minimum(regions.boxes[a, :2], regions.boxes[b, :2])
    sides = np.maximum(regions.boxes[a, 2:], regions.boxes[b, 2:]) - top_left
    base, per_size, per_box = _shape_weights(strategy)
    shape = per_size * (regions.sizes[a] + regions.sizes[b]) + per_box * sides.prod(axis=1)
    total += base + shape / regions.area
    return total


def group(regions: Regions, strategy: Strategy) -> NDArray[np.int64]:
    """The boxes of all regions, (2 R - 1, 4): the R given ones, then the merged in their order; the picture is last.

    Of equally similar pairs the one of the older regions is merged first.
    """
    count = len(regions.sizes)
    histograms = _histograms(regions, strategy)
    sizes: list[int] = regions.sizes.tolist()
    boxes: list[list[int]] = regions.boxes.tolist()
    around: list[set[int]] = _neighbours(regions)
    base, per_size, per_box = _shape_weights(strategy)
    area = regions.area
    first = similarities(regions, regions.pairs, strategy)
    queue = [(-s, i, j) for s, (i, j) in zip(first.tolist(), regions.pairs.tolist(), strict=True)]
    heapq.heapify(queue)
    gone = bytearray(2 * count)
    while queue:
        _, i, j = heapq.heappop(queue)
        if gone[i] or gone[j]:
            continue
        new = len(sizes)
        gone[i] = gone[j] = 1
        (left, top, right, bottom), (x1, y1, x2, y2) = boxes[i], boxes[j]
        box = [min(left, x1), min(top, y1), max(right, x2), max(bottom, y2)]
        size = sizes[i] + sizes[j]
        sizes.append(size)
        boxes.append(box)
        near = _join(around, i, j, new)
        alike = _compare(histograms, i, j, new, sizes, near)
        left, top, right, bottom = box
        for other, similar in zip(near, alike, strict=True):
            x1, y1, x2, y2 = boxes[other]
            hull = (max(right, x2) - min(left, x1)) * (max(bottom, y2) - min(top, y1))
            similar += base + (per_size * (size + sizes[other]) + per_box * hull) / area
            heapq.heappush(queue, (-similar, other, new))
    return np.array(boxes, np.int64).reshape(-1, 4)


def _histograms(regions: Regions, strategy: Strategy) -> NDArray[np.float32]:
    """(2 R - 1, width): those that count, side by side, and room for the regions to come."""
    used = [np.zeros((len(regions.sizes), 0), np.float32)]
    used += [regions.colour] * strategy.colour + [regions.texture] * strategy.texture
    given = np.concatenate(used, axis=1)
    return np.concatenate([given, np.empty((max(len(given) - 1, 0), given.shape[1]), np.float32)])


def _neighbours(regions: Regions) -> list[set[int]]:
    around: list[set[int]] = [set() for _ in range(len(regions.sizes))]
    for i, j in regions.pairs.tolist():
        around[i].add(j)
        around[j].add(i)
    return around


def _shape_weights(strategy: Strategy) -> tuple[int, int, int]:
    """Size and fill together are base + (per_size * pixels of both + per_box * pixels of the box around both) / area.

    Whole numbers up to the last step, so that what is equal stays equal.
    """
    size, fill = int(strategy.size), int(strategy.fill)
    return size + fill, fill - size, -fill


def _join(around: list[set[int]], i: int, j: int, new: int) -> list[int]:
    """Takes the neighbours of i and j over to the new region, and lists them."""
    near = around[i] | around[j]
    near.discard(i)
    near.discard(j)
    for other in near:
        theirs = around[other]
        theirs.discard(i)
        theirs.discard(j)
        theirs.add(new)
    around.append(near)
    around[i] = around[j] = set()
    return list(near)


def _compare(
    histograms: NDArray[np.float32], i: int, j: int, new: int, sizes: list[int], near: list[int]
) -> list[float]:
    """Fills the row of the new region (section 3.2: weighted by size) and compares it with its neighbours."""
    if not histograms.shape[1]:
        return [0.0] * len(near)
    share = sizes[i] / sizes[new]
    row = histograms[new]
    np.multiply(histograms[i], share, out=row)
    row += histograms[j] * (1 - share)
    smaller = np.minimum(histograms[near], row)
    alike: list[float] = smaller.sum(axis=1).tolist()
    return alike
