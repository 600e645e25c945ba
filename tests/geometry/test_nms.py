"""Oracle: torchvision.ops, box for box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import example, given, settings
from hypothesis import strategies as st

from detseg.geometry.nms import class_aware_nms, nms

Made = tuple[np.ndarray, np.ndarray]


def theirs(boxes: np.ndarray, scores: np.ndarray, iou: float) -> list[int]:
    return torchvision.ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou).tolist()


def made(seed: int, n: int, picture: float, sides: tuple[float, float], clusters: int = 0) -> Made:
    """Boxes anywhere, or about `clusters` objects; scores with many ties; some boxes repeated exactly."""
    rng = np.random.default_rng(seed)
    centres, wh = rng.uniform(0, picture, (n, 2)), np.exp(rng.uniform(*np.log(sides), (n, 2)))
    if clusters:
        which = rng.integers(0, clusters, n)
        centres = centres[which] + rng.normal(0, 8, (n, 2))
        wh = wh[which] * np.exp(rng.normal(0, 0.15, (n, 2)))
    boxes = np.concatenate([centres - wh / 2, centres + wh / 2], axis=1).astype(np.float32)
    twins = rng.integers(0, n, (2, n // 20))
    boxes[twins[0]] = boxes[twins[1]]
    return boxes, rng.integers(0, n, n).astype(np.float32) / n


CROWDS = {
    "hardly any overlap": {"n": 5000, "picture": 8000, "sides": (10, 80)},
    "all sizes": {"n": 5000, "picture": 8000, "sides": (1, 1000)},
    "everywhere": {"n": 4000, "picture": 640, "sides": (10, 300)},
    "about few objects": {"n": 4000, "picture": 640, "sides": (30, 200), "clusters": 12},
    "far from the origin": {"n": 4000, "picture": 1e6, "sides": (1e3, 3e4)},
    "all the same size": {"n": 5000, "picture": 4000, "sides": (50, 50)},
    "few": {"n": 70, "picture": 100, "sides": (10, 50)},
}


@pytest.mark.parametrize("iou", [0.0, 0.1, 0.45, 0.7, 0.95, 1.0])
@pytest.mark.parametrize("crowd", CROWDS)
def test_keeps_what_torchvision_keeps(crowd: str, iou: float) -> None:
    boxes, scores = made(3, **CROWDS[crowd])
    assert nms(boxes, scores, iou).tolist() == theirs(boxes, scores, iou)


def test_a_long_chain_is_settled_link_by_link() -> None:
    left = np.arange(3000, dtype=np.float32) * 4  # each box overlaps only its neighbours more than 0.4
    boxes = np.stack([left, np.zeros_like(left), left + 10, np.full_like(left, 10)], axis=1)
    scores = np.linspace(1, 0.1, len(left), dtype=np.float32)
    kept = nms(boxes, scores, 0.4)
    assert kept.tolist() == list(range(0, 3000, 2)) == theirs(boxes, scores, 0.4)


whole = st.integers(-20, 20)
# whole numbers make ties, duplicates, zero areas, boxes turned inside out and overlaps equal to the threshold
some_boxes = st.lists(st.tuples(whole, whole, whole, whole, st.integers(0, 5), st.integers(0, 2)), max_size=40)


@settings(deadline=None, max_examples=300)
@given(some_boxes, st.sampled_from([0.0, 0.2, 0.25, 1 / 3, 0.5, 0.6, 1.0]))
@example([(0, 0, 3, 1, 1, 0), (1, 0, 4, 1, 0, 0)], 0.5)  # overlap exactly at the threshold: both stay
@example([(0, 0, 4, 1, 1, 0), (1, 0, 5, 1, 0, 0)], 0.6)  # 3 / 5 in single precision is more than 0.6
@example([], 0.5)
def test_equal_to_torchvision_on_awkward_boxes(rows: list[tuple[int, ...]], iou: float) -> None:
    table = np.array(rows, np.float32).reshape(-1, 6)
    boxes, scores, labels = table[:, :4], table[:, 4] / 5, table[:, 5].astype(np.int64)
    before = table.copy()
    assert nms(boxes, scores, iou).tolist() == theirs(boxes, scores, iou)
    kept = class_aware_nms(boxes, scores, labels, iou)
    expected = [np.flatnonzero(labels == c)[theirs(boxes[labels == c], scores[labels == c], iou)] for c in range(3)]
    assert sorted(kept.tolist()) == sorted(np.concatenate(expected).tolist())
    assert (np.diff(scores[kept]) <= 0).all()
    assert np.array_equal(table, before)


@pytest.mark.parametrize("classes", [3, 80, 1000])
def test_classes_do_not_compete(classes: int) -> None:
    boxes, scores = made(4, 3000, 640, (20, 300), clusters=20)
    labels = np.random.default_rng(0).integers(0, classes, len(boxes))
    kept = set(class_aware_nms(boxes, scores, labels, 0.5).tolist())
    for label in range(classes):
        mine = np.flatnonzero(labels == label)
        assert set(mine[theirs(boxes[mine], scores[mine], 0.5)].tolist()) == kept & set(mine.tolist())


def test_double_precision_is_kept() -> None:
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.5 + 1e-12]])  # overlap 0.5 in single precision, more in double
    assert nms(boxes, np.array([1.0, 0.5]), 0.5).tolist() == [0]
    assert nms(boxes.astype(np.float32), np.array([1.0, 0.5]), 0.5).tolist() == [0, 1]


@pytest.mark.parametrize("iou", [-0.1, 1.1, float("nan")])
def test_a_threshold_outside_0_to_1_is_refused(iou: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        nms(np.zeros((1, 4), np.float32), np.zeros(1, np.float32), iou)
