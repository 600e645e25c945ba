"""Oracle: the evaluation itself, on the pictures that a resample drew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detseg.annotations import AnnotationSet, Categories
from detseg.evaluation.bootstrap import Evidence, _points_reached, compare, draw, interval, intervals
from detseg.evaluation.coco import evaluate_rows


def world(seed: int, pictures: int = 30, objects: int = 90, noise: float = 4.0, sure: float = 0.3003):
    """Boxes moved about, strays, ignored regions; no two scores are equal, so that repeating pictures is no tie."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 400, (objects, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(15, 90, (objects, 2))], axis=1)
    truth = AnnotationSet.from_columns(
        root=Path(),
        format="made",
        categories=Categories((5, 1, 9), ("ant", "bee", "never seen")),
        image_files=[f"{i}.jpg" for i in range(pictures)],
        image_hw=np.tile([500, 500], (pictures, 1)),
        image_index=rng.integers(0, pictures - 3, objects),
        boxes=boxes,
        labels=rng.integers(0, 2, objects),
        crowd=rng.random(objects) < 0.1,
    )
    like = np.repeat(np.arange(objects), 3)
    rows = np.zeros((len(like), 7))
    rows[:, 0], rows[:, 6] = truth.image_index[like], truth.labels[like]
    rows[:, 1:3] = truth.boxes[like, :2] + rng.normal(0, noise, (len(like), 2))
    rows[:, 3:5] = truth.boxes[like, 2:] - truth.boxes[like, :2]
    rows[:, 5] = rng.permutation(len(like)) / len(like)
    rows[::3, 5] += sure  # the first of each object is surer
    return truth, rows


def repeated(truth: AnnotationSet, rows: np.ndarray, weights: np.ndarray):
    """The resample written out: pictures as often as they were drawn, each under an id of its own."""
    chosen = np.repeat(np.arange(len(truth)), weights)
    resampled = replace(truth.subset(chosen), image_ids=np.arange(len(chosen)))
    parts = []
    for position, picture in enumerate(chosen):
        mine = rows[rows[:, 0] == picture].copy()
        mine[:, 0] = position
        parts.append(mine)
    return resampled, np.concatenate(parts)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_dets", [100, 4])
def test_weights_give_what_evaluating_the_resample_gives(seed, max_dets):
    truth, rows = world(seed)
    weights = draw(len(truth), 4, seed)
    table = Evidence.of(truth, rows, max_dets).average_precision(weights)
    for row, drawn in zip(table, weights, strict=True):
        metrics = evaluate_rows(*repeated(truth, rows, drawn), max_dets)
        for ap, told in zip(row, metrics.per_class, strict=True):
            expected = np.array([told.ap, told.ap50])
            assert np.allclose([np.nan_to_num(ap.mean(), nan=-1), np.nan_to_num(ap[0], nan=-1)], expected, atol=1e-12)


def test_the_values_are_those_of_the_evaluation():
    truth, rows = world(7)
    told, metrics = intervals(Evidence.of(truth, rows), 50), evaluate_rows(truth, rows)
    assert told.ap.value == pytest.approx(metrics.ap, abs=1e-12)
    assert told.ap50.value == pytest.approx(metrics.ap50, abs=1e-12)
    assert [i.value for i in told.class_ap50[:2]] == pytest.approx([c.ap50 for c in metrics.per_class[:2]], abs=1e-12)
    assert told.class_ap50[2].value is None
    for each in (told.ap, told.ap50, *told.class_ap[:2]):
        assert each.low < each.value < each.high


def test_recall_points_that_rounding_lifts():
    """29 of 50 is 0.58 and the recall point 58 a hair more: pycocotools, which compares the two, does not count it."""
    for objects in range(1, 160):
        hits = np.arange(objects + 1, dtype=np.int32)[None]
        told = _points_reached(hits, np.array([objects], np.int32))[0]
        oracle = np.searchsorted(np.linspace(0, 1, 101), hits[0] / objects, side="right")
        assert told[1:].tolist() == oracle[1:].tolist()


def test_the_same_seed_gives_the_same_intervals_and_more_pictures_narrower_ones():
    truth, rows = world(3)
    evidence = Evidence.of(truth, rows)
    assert intervals(evidence, 100, seed=5) == intervals(evidence, 100, seed=5)
    assert intervals(evidence, 100, seed=5) != intervals(evidence, 100, seed=6)
    many = Evidence.of(*world(3, pictures=600, objects=1800))
    wide, narrow = (i.ap.high - i.ap.low for i in (intervals(evidence, 200), intervals(many, 200)))
    assert narrow < wide / 3  # 20 times the pictures: about 4.5 times narrower


def test_draws_are_multinomial():
    weights = draw(50, 4000, 1)
    assert (weights.sum(axis=1) == 50).all()
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(1 - 1 / 50, rel=0.03)


def test_the_interval_by_hand():
    """Drawn around the value it is the plain percentiles; drawn too high it moves down."""
    drawn = np.linspace(0, 1, 10001)
    assert (plain := interval(0.5, drawn, 0.9)).low == pytest.approx(0.05, abs=1e-3)
    assert plain.high == pytest.approx(0.95, abs=1e-3)
    # the value is at the 30th percentile: z0 = -0.5244, ends at the normal's -2 * 0.5244 -+ 1.6449
    moved = interval(0.3, drawn, 0.9)
    assert (moved.low, moved.high) == (pytest.approx(0.00354, abs=1e-3), pytest.approx(0.7246, abs=1e-3))
    assert interval(float("nan"), drawn, 0.9).value is None
    same = interval(1.0, np.ones(20), 0.9)
    assert (same.low, same.high) == (1, 1)


def test_a_comparison_is_paired():
    truth, rows = world(11, pictures=60, objects=200)
    worse = rows.copy()
    worse[::6, 1] += 25  # every other sure detection is put beside its object
    first, second = Evidence.of(truth, rows), Evidence.of(truth, worse)
    told = compare(first, second, 300)
    assert told.difference.ap.value == pytest.approx(told.second.ap.value - told.first.ap.value)
    assert told.difference.ap.high < 0
    assert told.difference.ap.excludes_zero
    width = told.difference.ap.high - told.difference.ap.low
    assert width < told.first.ap.high - told.first.ap.low  # what makes a picture hard cancels
    nothing = compare(first, first, 100).difference
    assert (nothing.ap.low, nothing.ap.value, nothing.ap.high) == (0, 0, 0)
    assert not nothing.ap.excludes_zero
    with pytest.raises(ValueError, match="same pictures"):
        compare(first, Evidence.of(*world(11, pictures=9)))
