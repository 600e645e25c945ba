"""Oracle: the papers' pseudo-code as plain loops over lists, and cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detseg.geometry.nms import class_aware_nms
from detseg.geometry.soft_nms import diou_nms, soft_nms


def crowd(seed: int, n: int = 120, classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes about a dozen objects, distinct scores, a few classes."""
    rng = np.random.default_rng(seed)
    centres, sides = rng.uniform(30, 290, (12, 2))[rng.integers(0, 12, n)], rng.uniform(20, 90, (n, 2))
    centres = centres + rng.normal(0, 9, (n, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).astype(np.float32)
    return boxes, (rng.permutation(n) + 1).astype(np.float32) / n, rng.integers(0, classes, n)


def overlap_of(a, b) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def distance_of(a, b) -> float:
    """Squared distance of centres over the squared diagonal of the box around both."""
    dx, dy = (a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2
    w, h = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    return (dx * dx + dy * dy) / (w * w + h * h)


def naive_soft(boxes, scores, decay, overlap, sigma, floor):
    """Figure 2 of Soft-NMS, one class: B, S, D as there."""
    b, s = {i: [float(v) for v in box] for i, box in enumerate(boxes)}, dict(enumerate(map(float, scores)))
    d = []
    while b:
        m = max(s, key=lambda i: s[i])
        if s[m] <= floor:
            break
        d.append((m, s.pop(m)))
        best = b.pop(m)
        for i in b:
            o = overlap_of(best, b[i])
            if decay == "gaussian":
                s[i] *= math.exp(-o * o / sigma)
            elif o >= overlap:
                s[i] *= 1 - o
    return d


def naive_diou(boxes, scores, overlap):
    left = sorted(range(len(boxes)), key=lambda i: -scores[i])
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        a = [float(v) for v in boxes[best]]
        left = [i for i in left if overlap_of(a, as_list(boxes[i])) - distance_of(a, as_list(boxes[i])) <= overlap]
    return kept


def as_list(box) -> list[float]:
    return [float(v) for v in box]


@pytest.mark.parametrize("decay", ["linear", "gaussian"])
@pytest.mark.parametrize(("overlap", "sigma", "floor"), [(0.3, 0.5, 0.001), (0.5, 0.1, 0.2), (0.0, 2.0, 0.0)])
def test_scores_fade_as_in_the_papers_loop(decay, overlap, sigma, floor):
    boxes, scores, labels = crowd(5)
    rows, faded = soft_nms(boxes, scores, labels, overlap, decay=decay, sigma=sigma, floor=floor)
    expected = {}
    for label in range(3):
        mine = np.flatnonzero(labels == label)
        expected |= {int(mine[i]): s for i, s in naive_soft(boxes[mine], scores[mine], decay, overlap, sigma, floor)}
    assert set(rows.tolist()) == set(expected)
    assert faded == pytest.approx([expected[i] for i in rows.tolist()], rel=1e-9)
    assert (np.diff(faded) <= 0).all()
    assert floor < 0.1 or len(rows) < len(boxes)


def test_two_boxes_by_hand():
    boxes, scores = np.float32([[0, 0, 10, 10], [0, 5, 10, 15]]), np.float32([0.5, 0.75])  # IoU 50 / 150
    for decay, factor in (("linear", 2 / 3), ("gaussian", math.exp(-2 / 9))):  # sigma 0.5: (1/3)^2 / 0.5
        rows, faded = soft_nms(boxes, scores, np.zeros(2, int), 0.3, decay=decay)
        assert rows.tolist() == [1, 0]
        assert faded == pytest.approx([0.75, 0.5 * factor])
    assert soft_nms(boxes, scores, np.zeros(2, int), 0.4, decay="linear")[1].tolist() == [0.75, 0.5]
    assert soft_nms(boxes, scores, np.array([0, 1]), 0.3)[1].tolist() == [0.75, 0.5]  # other classes do not count


def test_only_the_first_of_each_class_where_there_is_a_limit():
    boxes, scores, labels = crowd(6)
    rows, faded = soft_nms(boxes, scores, labels, 0.5, limit=4)
    everything, all_faded = soft_nms(boxes, scores, labels, 0.5)
    for label in range(3):
        assert faded[labels[rows] == label].tolist() == all_faded[labels[everything] == label][:4].tolist()


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.9])
def test_centres_apart_count_as_in_the_paper(overlap):
    boxes, scores, labels = crowd(7)
    expected = []
    for label in range(3):
        mine = np.flatnonzero(labels == label)
        expected += mine[naive_diou(boxes[mine], scores[mine], overlap)].tolist()
    rows = diou_nms(boxes, scores, labels, overlap)
    assert rows.tolist() == sorted(expected, key=lambda i: -scores[i])


def test_neighbours_that_plain_suppression_would_lose_stay():
    # IoU 6 / 14 = 0.4286; centres 4 apart, the box around both 14 x 10: less 16 / 296 = 0.0541
    boxes, scores, labels = np.float32([[0, 0, 10, 10], [4, 0, 14, 10]]), np.float32([0.9, 0.8]), np.zeros(2, int)
    assert class_aware_nms(boxes, scores, labels, 0.4).tolist() == [0]
    assert diou_nms(boxes, scores, labels, 0.4).tolist() == [0, 1]
    assert diou_nms(boxes, scores, labels, 0.37).tolist() == [0]


@pytest.mark.parametrize("kind", [soft_nms, diou_nms])
def test_nothing_gives_nothing_and_inputs_stay(kind):
    boxes, scores, labels = crowd(8)
    before = boxes.copy(), scores.copy(), labels.copy()
    kind(boxes, scores, labels, 0.5)
    assert all(np.array_equal(a, b) for a, b in zip(before, (boxes, scores, labels), strict=True))
    empty = kind(boxes[:0], scores[:0], labels[:0], 0.5)
    assert len(empty[0] if isinstance(empty, tuple) else empty) == 0
    with pytest.raises(ValueError, match="threshold"):
        kind(boxes, scores, labels, 1.5)
