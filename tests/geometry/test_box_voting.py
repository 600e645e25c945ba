"""Hand-computed votes, and what a vote can never do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detseg.geometry.box_voting import vote_boxes


def test_a_hand_computed_vote() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 4], [0, 0, 10, 10]], np.float32)
    scores = np.array([0.8, 0.4, 0.9, 0.7], np.float32)
    labels = np.array([1, 1, 1, 0])
    # IoU with the first: 1, 0.8, 0.4; the last is of another class
    voted = vote_boxes(np.array([0]), boxes, scores, labels, 0.5)
    assert voted == pytest.approx(np.array([[0, 0, 10, (0.8 * 10 + 0.4 * 8) / 1.2]]))
    everyone = vote_boxes(np.array([0]), boxes, scores, labels, 0.4)
    assert everyone[0, 3] == pytest.approx((0.8 * 10 + 0.4 * 8 + 0.9 * 4) / 2.1)


def test_none_and_an_overlap_out_of_range() -> None:
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    assert vote_boxes(np.zeros(0, np.intp), *none, 0.5).shape == (0, 4)
    with pytest.raises(ValueError, match="the overlap threshold"):
        vote_boxes(np.zeros(0, np.intp), *none, 1.5)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0, 1))
def test_a_vote_stays_among_its_voters_and_moves_with_the_plane(seed: int, n: int, overlap: float) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 40, (n, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (n, 2))], axis=1).round(1)
    scores, labels = rng.uniform(0, 1, n), rng.integers(0, 3, n)
    kept = rng.permutation(n)[: max(1, n // 3)]
    voted = vote_boxes(kept, boxes, scores, labels, overlap)
    for row, box in zip(kept, voted, strict=True):
        own = boxes[labels == labels[row]]
        assert (own.min(axis=0) - 1e-9 <= box).all()
        assert (box <= own.max(axis=0) + 1e-9).all()
    assert vote_boxes(kept, boxes * 4, scores, labels, overlap) == pytest.approx(voted * 4)
    alone = np.arange(n)
    assert vote_boxes(kept, boxes, scores, alone, overlap) == pytest.approx(boxes[kept])
