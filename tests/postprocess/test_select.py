"""Oracle: a plain loop over candidates with torchvision's suppression, and invariants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision

from detseg.postprocess import Selection, select
from detseg.postprocess.select import Selected

CANDIDATES, CLASSES = 600, 5


def network_output(seed: int, candidates: int = CANDIDATES, classes: int = CLASSES, sure: float = 0.02):
    """Boxes anywhere in a 320 px frame; distinct scores, most of them near 0."""
    rng = np.random.default_rng(seed)
    centres, sides = rng.uniform(0, 320, (candidates, 2)), rng.uniform(10, 150, (candidates, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).astype(np.float32)
    scores = rng.permutation(candidates * classes).reshape(candidates, classes) / (candidates * classes)
    return boxes, np.where(rng.random(scores.shape) < sure, scores, scores * 0.01).astype(np.float32)


def plainly(boxes: np.ndarray, scores: np.ndarray, rule: Selection) -> list[tuple[float, int, tuple[float, ...]]]:
    found = [
        (float(scores[a, k]), k, a)
        for a in range(len(boxes))
        for k in range(scores.shape[1])
        if scores[a, k] > np.float32(rule.conf) and (rule.classes is None or k in rule.classes)
    ]
    found = sorted(found, reverse=True)[: rule.top_k]
    groups = [found] if rule.agnostic else [[f for f in found if f[1] == k] for k in range(scores.shape[1])]
    stays = []
    for group in groups:
        where = torch.from_numpy(boxes[[f[2] for f in group]].reshape(-1, 4))
        kept = torchvision.ops.nms(where, torch.tensor([f[0] for f in group]), rule.iou)
        stays += [group[i] for i in kept.tolist()]
    best = sorted(stays, reverse=True)[: rule.max_det]
    return [(score, k, tuple(boxes[a].tolist())) for score, k, a in best]


def as_rows(found: Selected) -> list[tuple[float, int, tuple[float, ...]]]:
    boxes, scores, labels, candidates, _ = found
    assert candidates.shape == scores.shape
    assert (boxes.dtype, scores.dtype, labels.dtype) == (np.float32, np.float32, np.int64)
    assert boxes.shape == (len(scores), 4)
    return [(s, k, tuple(b)) for b, s, k in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)]


RULES = [
    Selection(),
    Selection(conf=0.001, iou=0.6, max_det=100, top_k=500),
    Selection(conf=0.0, top_k=30000, max_det=10000, iou=0.3),
    Selection(conf=0.3, agnostic=True),
    Selection(conf=0.1, classes=(3, 1)),
    Selection(conf=0.1, max_det=3),
    Selection(conf=0.0, top_k=40, iou=0.9, max_det=1000),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_equals_the_plain_loop(rule: Selection) -> None:
    boxes, scores = network_output(1, sure=0.1)
    expected = plainly(boxes, scores, rule)
    assert len(expected) >= min(3, rule.max_det)
    assert as_rows(select(boxes, scores, rule)) == expected


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_order_of_candidates_plays_no_part(rule: Selection) -> None:
    boxes, scores = network_output(2, sure=0.1)
    shuffled = np.random.default_rng(0).permutation(len(boxes))
    assert as_rows(select(boxes[shuffled], scores[shuffled], rule)) == as_rows(select(boxes, scores, rule))


def test_equal_scores_at_the_edge_of_top_k_come_in_their_order() -> None:
    boxes = np.arange(40, dtype=np.float32).reshape(10, 4) * 100 + np.array([0, 0, 50, 50], np.float32)
    scores = np.full((10, 1), 0.5, np.float32)
    scores[7] = 0.9
    chosen = select(boxes, scores, Selection(top_k=4))[0]
    assert np.array_equal(chosen, boxes[[7, 0, 1, 2]])


def test_only_scores_above_the_threshold_stay() -> None:
    boxes = np.array([[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]], np.float32)
    scores = np.array([[0.3], [0.1], [0.0]], np.float32)
    assert len(select(boxes, scores, Selection(conf=0.1))[0]) == 1
    assert len(select(boxes, scores, Selection(conf=0))[0]) == 2  # networks fill up with score 0


def test_one_box_may_be_several_things() -> None:
    boxes, scores = np.array([[0, 0, 9, 9]], np.float32), np.array([[0.9, 0.1, 0.8]], np.float32)
    assert select(boxes, scores, Selection())[2].tolist() == [0, 2]
    assert select(boxes, scores, Selection(agnostic=True))[2].tolist() == [0]


def test_what_is_no_number_never_stays() -> None:
    boxes = np.array([[0, 0, 9, 9], [0, 0, np.nan, 9], [0, 0, np.inf, 9], [20, 20, 30, 30]], np.float32)
    scores = np.array([[np.nan], [0.9], [0.9], [0.8]], np.float32)
    assert select(boxes, scores, Selection())[0].tolist() == [[20, 20, 30, 30]]


def test_nothing_gives_empty_arrays_and_inputs_stay_as_they_were() -> None:
    boxes, scores = network_output(3)
    before = boxes.copy(), scores.copy()
    for found in (
        select(boxes, scores, Selection(conf=1.0)),
        select(boxes, scores, Selection(classes=())),
        select(boxes[:0], scores[:0], Selection()),
        select(boxes, scores[:, :0], Selection()),
    ):
        assert as_rows(found) == []
    select(boxes, scores, Selection(conf=0))
    assert np.array_equal(boxes, before[0])
    assert np.array_equal(scores, before[1])


@pytest.mark.parametrize("wrong", [{"conf": 1.5}, {"iou": -1}, {"max_det": 0}, {"top_k": 0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(Selection(), **wrong)


def test_a_limit_for_each_class_leaves_the_weak_class_its_own():
    boxes = np.float32([[10 * i, 0, 10 * i + 8, 8] for i in range(4)])
    scores = np.float32([[0.9, 0.1], [0.8, 0.2], [0.7, 0.05], [0.6, 0.15]])
    kept = select(boxes, scores, Selection(conf=0.01, top_k_per_class=2))
    np.testing.assert_allclose(kept[1], [0.9, 0.8, 0.2, 0.15])
    assert kept[2].tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="top_k_per_class must be at least 1"):
        Selection(top_k_per_class=0)


def test_each_kind_of_suppression_by_hand():
    # IoU 6 / 14 = 0.43, less 16 / 296 for the distance of the centres; the third box is of another class
    boxes = np.float32([[0, 0, 10, 10], [4, 0, 14, 10], [0, 0, 10, 10]])
    scores = np.float32([[0.75, 0], [0.5, 0], [0, 0.6]])
    faded = 0.5 * np.exp(-((3 / 7) ** 2) / 0.5)
    mean = [(0.75 * 0 + 0.5 * 4) / 1.25, 0, (0.75 * 10 + 0.5 * 14) / 1.25, 10]
    expected = {
        "hard": ([0.75, 0.6], [0, 0, 10, 10]),
        "vote": ([0.75, 0.6], [0, 0, 10, 10]),  # an overlap of 0.43 has no vote
        "soft": ([0.75, 0.6, faded], [0, 0, 10, 10]),
        "soft-linear": ([0.75, 0.6, 0.5 * 4 / 7], [0, 0, 10, 10]),
        "diou": ([0.75, 0.6, 0.5], [0, 0, 10, 10]),
        "wbf": ([0.75, 0.6], mean),
    }
    for kind, (left, first) in expected.items():
        kept = select(boxes, scores, Selection(conf=0.2, iou=0.4, nms=kind))
        np.testing.assert_allclose(kept[1], left, rtol=1e-6)
        np.testing.assert_allclose(kept[0][0], first, rtol=1e-6)
        assert kept[2][:2].tolist() == [0, 1]
        together = select(boxes, scores, Selection(conf=0.2, iou=0.3, nms=kind, agnostic=True, max_det=1))
        assert together[2].tolist() == [0]
    assert len(select(boxes, scores, Selection(conf=0.4, iou=0.4, nms="soft"))[1]) == 2  # faded below the threshold
    with pytest.raises(ValueError, match="nms must be one of hard, vote, soft"):
        Selection(nms="softer")


def test_boxes_that_agree_vote_with_those_of_their_class():
    # IoU 9 / 11 with the first, which suppresses it; the third is of another class, unless classes play no part
    boxes = np.float32([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 12]])
    scores = np.float32([[0.75, 0], [0.5, 0], [0, 0.6]])
    kept = select(boxes, scores, Selection(conf=0.2, nms="vote"))
    np.testing.assert_allclose(kept[0], [[0.4, 0, 10.4, 10], [0, 0, 10, 12]], rtol=1e-6)
    together = select(boxes, scores, Selection(conf=0.2, nms="vote", agnostic=True))
    np.testing.assert_allclose(together[0], [[0.5 / 1.85, 0, 10 + 0.5 / 1.85, 10 + 1.2 / 1.85]], rtol=1e-6)
    assert kept[1].tolist() == pytest.approx([0.75, 0.6])


@pytest.mark.parametrize("kind", ["vote", "soft", "soft-linear", "diou", "wbf"])
def test_the_other_kinds_keep_what_select_promises(kind):
    boxes, scores = network_output(5, sure=0.1)
    found = select(boxes, scores, Selection(conf=0.05, iou=0.4, max_det=40, nms=kind))
    as_rows(found)
    assert len(found[1]) == 40
    assert (np.diff(found[1]) <= 0).all()
    assert found[1].min() > 0.05
    assert as_rows(select(boxes[:0], scores[:0], Selection(nms=kind))) == []


@pytest.mark.parametrize("rule", RULES, ids=range(len(RULES)))
def test_a_box_of_its_own_for_each_class_is_as_good_as_a_candidate_for_each_class(rule: Selection) -> None:
    boxes, scores = network_output(9)
    own = boxes[:, None] + np.arange(CLASSES, dtype=np.float32)[None, :, None] * 7  # (A, K, 4)
    apart = scores[:, :, None] * np.eye(CLASSES, dtype=np.float32)[None]  # (A, K, K): each candidate of one class
    expected = select(own.reshape(-1, 4), apart.reshape(-1, CLASSES), rule)
    assert as_rows(select(own, scores, rule)) == as_rows(expected)
    assert len(expected[1])
