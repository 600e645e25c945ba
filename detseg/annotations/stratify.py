"""Parts of a data set in which every class has its share: iterative stratification.

K. Sechidis, G. Tsoumakas, I. Vlahavas: On the Stratification of Multi-label Data (ECML PKDD 2011), algorithm 1. Here
groups of pictures are dealt out instead of single ones: what belongs together (copies, frames of one film) stays so.

G: groups, K: classes, P: parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def stratify(has: Counts, sizes: Counts, fractions: Sequence[float], seed: int = 0) -> Counts:
    """has (G, K): pictures of a group with a class in them; sizes (G,): pictures of it -> (G,) the part of each.

    The rarest class is dealt out first, each group to the part that still wants most of it; then the next rarest of
    what is left; groups without any class last, to the part that wants most pictures. The same seed gives the same
    parts. Raises ValueError for fractions that are not positive.
    """
    shares = np.asarray(fractions, np.float64)
    if not len(shares) or not (np.isfinite(shares) & (shares > 0)).all():
        raise ValueError(f"fractions must be positive numbers, got {list(fractions)}")
    shares = shares / shares.sum()
    rng = np.random.default_rng(seed)
    wanted_of_class = np.outer(shares, has.sum(axis=0))  # (P, K)
    wanted = shares * sizes.sum()  # (P,)
    part = np.full(len(sizes), -1, np.int64)
    shuffled = rng.permutation(len(sizes))
    # large groups first: small ones even out what those leave uneven
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    left = has.sum(axis=0)

    def deal(group: int, wants: NDArray[np.float64]) -> None:
        best = np.flatnonzero(wants == wants.max())
        best = best[wanted[best] == wanted[best].max()]
        chosen = int(best[0] if len(best) == 1 else rng.choice(best))
        part[group] = chosen
        wanted_of_class[chosen] -= has[group]
        wanted[chosen] -= sizes[group]

    while left.any():
        rarest = int(np.where(left > 0, left, np.iinfo(np.int64).max).argmin())
        for group in order[(part[order] < 0) & (has[order, rarest] > 0)].tolist():
            deal(group, wanted_of_class[:, rarest])
            left = left - has[group]
    for group in order[part[order] < 0].tolist():
        deal(group, wanted)
    return part


def joined(count: int, links: Iterable[tuple[int, int]]) -> Counts:
    """(count,) the group of each, from pairs that belong together; groups are numbered in the order of their first."""
    parent = list(range(count))

    def top(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in links:
        low, high = sorted((top(a), top(b)))
        parent[high] = low
    tops = np.array([top(i) for i in range(count)], np.int64)
    return np.unique(tops, return_inverse=True)[1].astype(np.int64)
