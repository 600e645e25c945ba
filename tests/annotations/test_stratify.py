"""Iterative stratification: every picture in one part, every class in its share, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detseg.annotations.stratify import joined, stratify


def test_a_case_by_hand() -> None:
    # the rare class is in 2 of 8 pictures: one for each half; the common one in 4: two and two
    has = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1], [0, 1], [0, 0], [0, 0]])
    for seed in range(5):
        part = stratify(has, np.ones(8, np.int64), (0.5, 0.5), seed)
        counts = [[int(has[part == p, k].sum()) for k in (0, 1)] + [int((part == p).sum())] for p in (0, 1)]
        assert counts == [[1, 2, 4], [1, 2, 4]]


def test_rare_classes_are_better_shared_than_by_chance() -> None:
    rng = np.random.default_rng(0)
    has = (rng.random((1000, 12)) < np.geomspace(0.02, 0.6, 12)).astype(np.int64)
    fractions = np.array([0.8, 0.1, 0.1])

    def unevenness(part: np.ndarray) -> float:
        counts = np.stack([has[part == p].sum(axis=0) for p in range(3)])
        return float(np.abs(counts / has.sum(axis=0) - fractions[:, None]).max())

    ours = unevenness(stratify(has, np.ones(1000, np.int64), fractions.tolist()))
    chance = [unevenness(np.random.default_rng(s).choice(3, 1000, p=fractions)) for s in range(20)]
    assert ours < 0.04 < min(chance)


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 7)), min_size=1, max_size=40),
    st.lists(st.floats(0.05, 1.0), min_size=2, max_size=4),
    st.integers(0, 3),
)
def test_every_group_gets_one_part_and_the_seed_decides(
    groups: list[tuple[int, int]], fractions: list[float], seed: int
) -> None:
    sizes = np.array([size for size, _ in groups])
    has = np.array([[min(size, bits >> k & 1) for k in range(3)] for size, bits in groups])
    before = has.copy(), sizes.copy()
    part = stratify(has, sizes, fractions, seed)
    assert part.shape == sizes.shape
    assert ((part >= 0) & (part < len(fractions))).all()
    assert (part == stratify(has, sizes, fractions, seed)).all()
    assert (has == before[0]).all()
    assert (sizes == before[1]).all()
    # no part is further from what it wants than the largest group
    if not has.any():
        wanted = np.array(fractions) / sum(fractions) * sizes.sum()
        got = np.bincount(part, sizes, len(fractions))
        assert (got - wanted).max() <= sizes.max() + 1e-9


def test_fractions_that_are_none() -> None:
    with pytest.raises(ValueError, match="positive"):
        stratify(np.zeros((2, 1), np.int64), np.ones(2, np.int64), (1.0, 0.0))


def test_chains_are_one_group() -> None:
    assert joined(6, [(4, 2), (2, 0), (5, 3)]).tolist() == [0, 1, 0, 2, 0, 2]
    assert joined(0, []).tolist() == []
