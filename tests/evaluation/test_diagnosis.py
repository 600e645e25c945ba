"""Oracles: hotcoco's confusion matrix, calibration and recall, and worlds small enough to count by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import hotcoco
import numpy as np
import pytest

from detseg.annotations import AnnotationSet, Categories
from detseg.annotations.outlines import Outlines
from detseg.annotations.semantic import IGNORE, SemanticSet
from detseg.evaluation import results_json, truth_json
from detseg.evaluation.bootstrap import Interval, in_words, verdict
from detseg.evaluation.coco import evaluate_rows
from detseg.evaluation.diagnosis import confusion, diagnose
from detseg.evaluation.diagnosis_maps import MapEvidence, compare_maps, diagnose_maps
from detseg.evaluation.label_maps import evaluate_label_maps


def world(seed: int, pictures: int = 20, objects: int = 80, crowds: float = 0.0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 250, (objects, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(15, 90, (objects, 2))], axis=1)
    truth = AnnotationSet.from_columns(
        root=Path(),
        format="made",
        categories=Categories((1, 5, 9), ("ant", "bee", "cat")),
        image_files=[f"{i}.jpg" for i in range(pictures)],
        image_hw=np.tile([400, 400], (pictures, 1)),
        image_index=rng.integers(0, pictures, objects),
        boxes=boxes,
        labels=rng.integers(0, 3, objects),
        crowd=rng.random(objects) < crowds,
    )
    like = np.repeat(np.arange(objects), 3)
    rows = np.zeros((len(like), 7))
    rows[:, 0], rows[:, 6] = truth.image_index[like], truth.labels[like]
    rows[:, 1:3] = truth.boxes[like, :2] + rng.normal(0, 9, (len(like), 2))
    rows[:, 3:5] = truth.boxes[like, 2:] - truth.boxes[like, :2]
    rows[:, 5] = (rng.permutation(len(like)) + 0.5) / len(like)
    rows[:, 6] = np.where(rng.random(len(like)) < 0.2, rng.integers(0, 3, len(like)), rows[:, 6])
    return truth, rows


def hotcoco_on(truth: AnnotationSet, rows: np.ndarray):
    known = hotcoco.COCO(truth_json(truth))
    comparison = hotcoco.COCOeval(known, known.load_res(results_json(truth, rows)), "bbox")
    comparison.evaluate()
    comparison.accumulate()
    return comparison


@pytest.mark.parametrize("seed", range(4))
def test_confusion_and_calibration_are_hotcocos(seed):
    truth, rows = world(seed)
    told, oracle = diagnose(truth, rows, resamples=2), hotcoco_on(truth, rows)
    matrix = oracle.confusion_matrix(0.5, 10_000, told.threshold)["matrix"]
    assert told.confusion.matrix.tolist() == matrix.tolist()
    assert matrix[:3, :3].sum() > np.trace(matrix[:3, :3])  # some classes were taken for another
    bins = oracle.calibration(10, 0.5)
    assert told.calibration is not None
    assert told.calibration.ece == pytest.approx(bins["ece"])
    assert told.calibration.mce == pytest.approx(bins["mce"])
    assert [b.count for b in told.calibration.bins] == [b["count"] for b in bins["bins"]]


@pytest.mark.parametrize("seed", range(3))
def test_curves_hold_the_recall_and_precision_of_the_evaluation(seed):
    """At a threshold, keeping only what reaches it and evaluating again gives the curve's point."""
    truth, rows = world(seed, crowds=0.1)
    told = diagnose(truth, rows, resamples=2)
    for k, curve in enumerate(told.classes):
        total = np.maximum(curve.precision + curve.recall, 1e-300)
        assert curve.f1 == pytest.approx(2 * curve.precision * curve.recall / total)
        for point in (0, len(curve.scores) // 2, curve.best):
            kept = rows[(rows[:, 5] >= curve.scores[point]) & (rows[:, 6] == k)]
            oracle = hotcoco_on(truth, kept).eval
            assert curve.recall[point] == pytest.approx(oracle["recall"][0, k, 0, -1])
        assert curve.f1[curve.best] == curve.f1.max()
    assert told.threshold == told.overall.best_score
    assert told.overall.objects == np.count_nonzero(~truth.ignored)


def test_tide_agrees_with_what_is_counted():
    truth, rows = world(1)
    told = diagnose(truth, rows, resamples=2)
    assert told.errors.ap50 == pytest.approx(evaluate_rows(truth, rows).ap50, abs=1e-9)
    false = np.count_nonzero(told.matches.false)
    assert sum(count for kind, count in told.errors.counts.items() if kind != "Miss") == false


def by_hand():
    """Picture 0: an ant found, a bee found as a cat, an ant that was found too far off, one nothing came near, a stray.
    Picture 1: a crowd with a detection inside, and nothing else. Picture 2: an ant found, and a crowd that
    nothing came near."""
    truth = AnnotationSet.from_columns(
        root=Path(),
        format="made",
        categories=Categories((1, 5, 9), ("ant", "bee", "cat")),
        image_files=["a.jpg", "b.jpg", "c.jpg"],
        image_hw=np.tile([400, 400], (3, 1)),
        image_index=[0, 0, 0, 0, 1, 2, 2],
        boxes=[
            [0, 0, 50, 50],
            [100, 0, 150, 50],
            [200, 0, 250, 50],
            [300, 300, 390, 390],
            [0, 0, 200, 200],
            [0, 0, 9, 9],
            [350, 350, 380, 380],
        ],
        labels=[0, 1, 0, 2, 0, 0, 1],
        ids=[11, 12, 13, 14, 15, 16, 17],
        crowd=[False, False, False, False, True, False, True],
    )
    rows = np.array(
        [
            [0, 0, 0, 50, 50, 0.90, 0],  # right
            [0, 104, 0, 50, 50, 0.95, 2],  # a bee taken for a cat, overlap 46 / 54
            [0, 230, 0, 50, 50, 0.96, 0],  # an ant, overlap 0.25
            [0, 0, 300, 40, 40, 0.97, 0],  # nothing there
            [1, 20, 20, 30, 30, 0.99, 0],  # in the crowd
            [2, 0, 0, 9, 9, 0.92, 0],  # right
            [2, 300, 300, 30, 30, 0.93, 2],  # nothing there, but cats were never right
        ]
    )
    return truth, rows


def test_suspicious_labels_and_worst_pictures_by_hand():
    truth, rows = by_hand()
    told = diagnose(truth, rows, resamples=2)
    assert told.threshold == 0.9
    listed = {kind: [(s.file, s.detection, s.annotation) for s in found] for kind, found in told.suspects.items()}
    assert listed == {
        "missing": [("a.jpg", 3, None)],
        "class": [],  # cats were never right, so that none is confident
        "place": [("a.jpg", 2, 13)],
        "unseen": [("a.jpg", None, 14)],
    }
    assert told.suspects["place"][0].iou == pytest.approx(0.25)
    assert [(w.file, w.objects, w.right, w.missed, w.false) for w in told.worst] == [
        ("a.jpg", 4, 1, 3, 3),
        ("c.jpg", 1, 1, 0, 1),
    ]
    assert told.confusion.matrix.tolist() == [[2, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1], [2, 0, 1, 0]]
    sure_cat = np.vstack([rows, [2, 0, 0, 9, 9, 0.91, 2]])
    with_cat = replace(truth, labels=np.array([0, 1, 0, 2, 0, 2, 1]))
    doubts = diagnose(with_cat, sure_cat, resamples=2).suspects["class"]
    assert [(s.found, s.annotated, s.annotation) for s in doubts] == [("cat", "bee", 12)]


def test_nothing_found_nothing_to_find_and_everything_right():
    truth, rows = by_hand()
    for part, found in (
        (truth, rows[:0]),
        (truth.subset([1]), rows[4:5] * [0, 1, 1, 1, 1, 1, 1]),
        (truth.subset([]), rows[:0]),
    ):
        told = diagnose(part, found, resamples=3)
        assert told.overall.best_score is None
        assert told.calibration is None or told.calibration.bins
        json.dumps(told.to_json(), allow_nan=False)
        assert not any(told.suspects.values())
    scores = np.array([[0, 0, 0, 50, 50, 250.0, 0]])
    assert diagnose(truth, scores, resamples=2).calibration is None  # scores that are no probabilities


def test_masks_are_compared_where_they_are_given():
    """Two triangles that fill one box between them: as boxes the same place, as masks not."""
    truth, _ = by_hand()
    truth = replace(truth.subset([2]), outlines=Outlines.of([[[0, 0, 9, 0, 0, 9]], None]))
    row = np.array([[0, 0, 0, 9, 9, 0.9, 0.0]])
    other = Outlines.of([[[9, 9, 9, 0, 0, 9]]])
    assert diagnose(truth, row, resamples=2).matches.right.tolist() == [True]
    assert diagnose(truth, row, outlines=other, resamples=2).matches.right.tolist() == [False]
    assert diagnose(truth, row, outlines=truth.outlines[:1], resamples=2).matches.right.tolist() == [True]
    assert diagnose(truth, row, outlines=Outlines.none(1), resamples=2).matches.right.tolist() == [
        False
    ]  # a whole box: 0.44


def test_the_same_data_give_the_same_confusion_whatever_the_order():
    truth, rows = world(6, crowds=0.2)
    shuffled = np.random.default_rng(0).permutation(len(rows))
    assert (confusion(truth, rows, 0.3).matrix == confusion(truth, rows[shuffled], 0.3).matrix).all()


def test_differences_in_words():
    assert verdict(Interval(0.1, 0.02, 0.2)) == "better"
    assert verdict(Interval(-0.1, -0.2, -0.02)) == "worse"
    assert verdict(Interval(0.1, -0.02, 0.2)) == verdict(Interval(0.0, 0.0, 0.0)) == "cannot be told apart"
    assert in_words("AP", Interval(-0.1, -0.2, -0.02)) == (
        "These results are worse than the others in AP, by 0.100 (0.020 to 0.200)."
    )
    assert "cannot be told apart" in in_words("AP", Interval(0.1, -0.02, 0.2))


class Maps:
    def __init__(self, maps: list[np.ndarray]) -> None:
        self.maps = maps

    def read(self, image: int) -> np.ndarray:
        return self.maps[image]

    def subset(self, images: np.ndarray) -> Maps:
        return Maps([self.maps[i] for i in images])


def label_maps(seed: int, pictures: int = 8, wrong: float = 0.3) -> tuple[SemanticSet, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    there = [rng.integers(0, 3, (20, 30)).astype(np.uint8) for _ in range(pictures)]
    found = [
        np.where(rng.random(m.shape) < wrong * i / pictures, rng.integers(0, 3, m.shape), m)
        for i, m in enumerate(there)
    ]
    for each in there:
        each[:2] = IGNORE
    return (
        SemanticSet(
            root=Path(),
            format="made",
            categories=Categories.from_names(("sky", "road", "tree", "never seen")),
            image_files=tuple(f"{i}.png" for i in range(pictures)),
            image_ids=np.arange(pictures),
            image_hw=np.tile([20, 30], (pictures, 1)).astype(np.int32),
            source=Maps(there),
        ),
        [m.astype(np.uint8) for m in found],
    )


def test_label_maps_values_and_resamples_are_those_of_the_evaluation():
    truth, found = label_maps(2)
    evidence = MapEvidence.of(truth, found.__getitem__)
    told, metrics = diagnose_maps(truth, evidence, 200), evaluate_label_maps(truth, found)
    assert told.miou.value == pytest.approx(metrics.miou)
    assert told.pixel_accuracy.value == pytest.approx(metrics.pixel_accuracy)
    assert [i.value for i in told.class_iou[:3]] == pytest.approx([c.iou for c in metrics.per_class[:3]])
    assert told.class_iou[3].value is None
    assert told.miou.low < told.miou.value < told.miou.high
    worst = np.argsort(metrics.per_picture)
    assert [w.picture for w in told.worst] == worst.tolist()
    assert [w.miou for w in told.worst] == pytest.approx([metrics.per_picture[i] for i in worst])
    weights = np.array([[2, 0, 1, 3, 0, 0, 1, 1]], np.int32)
    chosen = np.repeat(np.arange(8), weights[0])
    again = evaluate_label_maps(truth.subset(chosen), [found[i] for i in chosen])
    assert evidence.summaries(weights)["miou"][0] == pytest.approx(again.miou)


def test_label_maps_are_compared_in_pairs():
    truth, good = label_maps(2, pictures=30)
    _, bad = label_maps(2, pictures=30, wrong=0.9)
    told = compare_maps(*(MapEvidence.of(truth, maps.__getitem__) for maps in (bad, good)), resamples=200)
    assert told.difference.miou.low > 0
    assert told.difference.miou.value == pytest.approx(told.second.miou.value - told.first.miou.value)
