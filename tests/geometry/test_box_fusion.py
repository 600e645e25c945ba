"""Oracle: the paper's six steps as plain loops over lists, and cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from detseg.geometry.box_fusion import fuse_boxes, fuse_members


def views_of_objects(seed: int, views: int, objects: int = 15) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each object seen by most views at nearly its place; some boxes that are nothing."""
    rng = np.random.default_rng(seed)
    centres, sides = rng.uniform(40, 280, (objects, 2)), rng.uniform(20, 80, (objects, 2))
    labels = rng.integers(0, 2, objects)
    seen = np.flatnonzero(rng.random((views, objects)).reshape(-1) < 0.8) % objects
    middle = centres[seen] + rng.normal(0, 4, (len(seen), 2))
    half = sides[seen] * np.exp(rng.normal(0, 0.1, (len(seen), 2))) / 2
    boxes = np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)
    return boxes, rng.permutation(len(seen)).astype(np.float32) / len(seen) * 0.9 + 0.05, labels[seen]


def overlap_of(a, b) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def naive(boxes, scores, labels, threshold, views):
    """Section 3 of the paper: lists B, L and F; returns (label, score, box) of every member of F."""
    b = sorted(zip(scores.tolist(), boxes.tolist(), labels.tolist(), strict=True), reverse=True)
    clusters, fused = [], []
    for score, box, label in b:
        best, position = threshold, None
        for i, (other_label, _, other) in enumerate(fused):
            if other_label == label and overlap_of(box, other) > best:
                best, position = overlap_of(box, other), i
        if position is None:
            clusters.append([])
            fused.append(None)
            position = len(fused) - 1
        cluster = clusters[position]
        cluster.append((score, box))
        total = sum(s for s, _ in cluster)
        mean = [sum(s * x[k] for s, x in cluster) / total for k in range(4)]
        fused[position] = (label, total / len(cluster), mean)
    return [
        (label, score * min(len(cluster), views) / views, box)
        for (label, score, box), cluster in zip(fused, clusters, strict=True)
    ]


@pytest.mark.parametrize("views", [1, 4, 30])
@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.55, 0.8])
def test_equals_the_papers_loop(views, threshold):
    boxes, scores, labels = views_of_objects(2, 4)
    found = fuse_boxes(boxes, scores, labels, threshold, views=views)
    expected = sorted(naive(boxes, scores, labels, threshold, views), key=lambda row: -row[1])
    assert 2 <= len(expected) < len(boxes)
    assert found.scores == pytest.approx([score for _, score, _ in expected], rel=1e-6)
    np.testing.assert_allclose(found.boxes, [box for _, _, box in expected], rtol=1e-6)
    assert labels[found.founders].tolist() == [label for label, _, _ in expected]


def test_two_boxes_by_hand():
    boxes, scores, labels = np.float32([[0, 0, 10, 10], [0, 0, 10, 8]]), np.float32([0.6, 0.2]), np.zeros(2, int)
    box = [0, 0, 10, (0.6 * 10 + 0.2 * 8) / 0.8]
    for views, score in ((1, 0.4), (2, 0.4), (4, 0.2)):
        found = fuse_boxes(boxes, scores, labels, 0.5, views=views)
        np.testing.assert_allclose(found.boxes, [box], rtol=1e-6)
        assert found.scores == pytest.approx([score])
    best = fuse_boxes(boxes, scores, labels, 0.5, score="best")
    assert best.scores == pytest.approx([0.6])
    assert best.founders.tolist() == [0]
    assert len(fuse_boxes(boxes, scores, labels, 0.8).boxes) == 2  # an overlap of 0.8 is not more than 0.8
    assert len(fuse_boxes(boxes, scores, np.array([0, 1]), 0.5).boxes) == 2


def test_scores_of_zero_still_have_a_mean_and_nothing_gives_nothing():
    found = fuse_boxes(np.float32([[0, 0, 4, 4], [0, 0, 4, 4]]), np.zeros(2, np.float32), np.zeros(2, int), 0.5)
    assert found.boxes.tolist() == [[0, 0, 4, 4]]
    empty = fuse_boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int), 0.5)
    assert (empty.boxes.shape, empty.scores.shape, empty.founders.shape) == ((0, 4), (0,), (0,))


@pytest.mark.parametrize("wrong", [{"overlap": 1.2}, {"overlap": 0.5, "views": 0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        fuse_boxes(np.zeros((1, 4)), np.zeros(1), np.zeros(1, int), **wrong)


# ---- members of an ensemble ----


def naive_members(boxes, scores, labels, members, trust, threshold):
    """The paper's loop with weighted scores, in which a cluster is closed to members that are in it."""
    b = sorted(range(len(boxes)), key=lambda i: (-scores[i] * trust[members[i]][labels[i]], *boxes[i].tolist()))
    clusters: list[tuple[int, list[int]]] = []

    def mean(rows):
        weights = [scores[i] * trust[members[i]][labels[i]] for i in rows]
        return [sum(w * boxes[i][k] for w, i in zip(weights, rows, strict=True)) / sum(weights) for k in range(4)]

    for i in b:
        open_to = [
            (overlap_of(boxes[i], mean(rows)), j)
            for j, (label, rows) in enumerate(clusters)
            if label == labels[i] and members[i] not in [members[r] for r in rows]
        ]
        best, j = max(open_to, default=(0, -1))
        if best > threshold:
            clusters[j][1].append(i)
        else:
            clusters.append((labels[i], [i]))
    told = []
    for label, rows in clusters:
        score = sum(scores[i] * trust[members[i]][label] for i in rows) / sum(row[label] for row in trust)
        told.append((score, label, mean(rows)))
    return sorted(told, key=lambda row: -row[0])


@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.7])
@pytest.mark.parametrize("trust", [np.ones((3, 2)), np.array([[2.0, 1], [1, 0], [0.5, 3]])])
def test_members_are_fused_as_by_the_loop(threshold, trust):
    boxes, scores, labels = views_of_objects(5, 3)
    members = np.random.default_rng(1).integers(0, 3, len(boxes))
    known = trust[members, labels] > 0
    boxes, scores, labels, members = boxes[known], scores[known], labels[known], members[known]
    found = fuse_members(boxes, scores, labels, members, trust, threshold)
    expected = naive_members(boxes, scores, labels, members, trust, threshold)
    assert 2 <= len(expected) < len(boxes)
    assert found.scores == pytest.approx([score for score, _, _ in expected], rel=1e-6)
    np.testing.assert_allclose(found.boxes, [box for _, _, box in expected], rtol=1e-6)
    assert labels[found.founders].tolist() == [label for _, label, _ in expected]


def test_two_members_by_hand():
    boxes, scores, labels = np.float32([[0, 0, 10, 10], [0, 0, 10, 8]]), np.array([0.6, 0.2]), np.zeros(2, int)
    both, first_only = np.array([0, 1]), np.array([0, 0])
    alike = fuse_members(boxes, scores, labels, both, np.ones((2, 1)), 0.5)
    np.testing.assert_allclose(alike.boxes, [[0, 0, 10, (0.6 * 10 + 0.2 * 8) / 0.8]])
    assert alike.scores == pytest.approx([0.4])
    uneven = fuse_members(boxes, scores, labels, both, np.array([[1.0], [3.0]]), 0.5)
    np.testing.assert_allclose(uneven.boxes, [[0, 0, 10, (0.6 * 10 + 3 * 0.2 * 8) / 1.2]])
    assert uneven.scores == pytest.approx([(0.6 + 3 * 0.2) / 4])
    # one member told two objects apart: they stay two, each seen by one of two
    apart = fuse_members(boxes, scores, labels, first_only, np.ones((2, 1)), 0.5)
    assert apart.scores == pytest.approx([0.3, 0.1])
    assert apart.boxes.tolist() == boxes.tolist()


def test_who_does_not_know_a_class_takes_nothing_from_its_score():
    boxes, scores = np.float32([[0, 0, 10, 10], [50, 50, 60, 60]]), np.array([0.8, 0.8])
    trust = np.array([[1.0, 1.0], [1.0, 0.0]])
    found = fuse_members(boxes, scores, np.array([0, 1]), np.array([0, 0]), trust, 0.5)
    assert found.scores == pytest.approx([0.8, 0.4])
    assert found.founders.tolist() == [1, 0]


def test_boxes_of_different_classes_meet_only_where_classes_play_no_part():
    boxes, scores, labels = np.float32([[0, 0, 10, 10], [0, 0, 10, 10]]), np.array([0.9, 0.5]), np.array([1, 0])
    members, trust = np.array([0, 1]), np.ones((2, 2))
    assert len(fuse_members(boxes, scores, labels, members, trust, 0.5).boxes) == 2
    met = fuse_members(boxes, scores, labels, members, trust, 0.5, agnostic=True)
    assert (met.scores.tolist(), labels[met.founders].tolist()) == (pytest.approx([0.7]), [1])


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_boxes_and_members_plays_no_part(seed):
    boxes, scores, labels = views_of_objects(seed, 3)
    scores = np.round(scores, 1)  # many are equal
    rng = np.random.default_rng(seed)
    members, order, renamed = rng.integers(0, 3, len(boxes)), rng.permutation(len(boxes)), rng.permutation(3)
    one = fuse_members(boxes, scores, labels, members, np.ones((3, 2)), 0.4)
    other = fuse_members(boxes[order], scores[order], labels[order], renamed[members[order]], np.ones((3, 2)), 0.4)
    np.testing.assert_allclose(one.boxes, other.boxes, rtol=1e-9)
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-9)
    np.testing.assert_array_equal(labels[one.founders], labels[order][other.founders])


def test_an_ensemble_of_nothing_finds_nothing():
    none = np.zeros(0, int)
    empty = fuse_members(np.zeros((0, 4), np.float32), np.zeros(0), none, none, np.ones((2, 3)), 0.5)
    assert (empty.boxes.shape, empty.scores.shape) == ((0, 4), (0,))
    with pytest.raises(ValueError, match="must"):
        fuse_members(np.zeros((0, 4)), np.zeros(0), none, none, np.ones((2, 3)), 1.5)
