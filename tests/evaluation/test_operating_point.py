"""What is right, false and missed at a threshold. Oracle: pycocotools' matches, counted; every threshold in turn."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detseg.annotations import AnnotationSet
from detseg.evaluation import operating_point, results_json, truth_json
from detseg.evaluation.operating_point import OperatingPoint
from tests.evaluation.test_diagnosis import world


def counted_by_pycocotools(truth: AnnotationSet, rows: np.ndarray) -> tuple[int, int, int]:
    """(right, false, missed) of all detections."""
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = truth_json(truth)
        known.createIndex()
        comparison = COCOeval(known, known.loadRes(results_json(truth, rows)), "bbox")
        comparison.params.iouThrs = [0.5]
        comparison.params.areaRng, comparison.params.areaRngLbl = [[0, 1e10]], ["all"]
        comparison.evaluate()
    right = false = objects = 0
    for found in filter(None, comparison.evalImgs):
        matched, ignored = found["dtMatches"][0] > 0, found["dtIgnore"][0].astype(bool)
        right += int((matched & ~ignored).sum())
        false += int((~matched & ~ignored).sum())
        objects += int((np.asarray(found["gtIgnore"]) == 0).sum())
    return right, false, objects - right


@pytest.mark.parametrize("crowds", [0.0, 0.3])
@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.9])
def test_counts_are_those_of_pycocotools(crowds: float, threshold: float) -> None:
    truth, rows = world(3, crowds=crowds)
    point = operating_point(truth, rows, score=threshold)
    kept = rows[rows[:, 5] >= threshold]
    assert (point.right, point.false, point.missed) == counted_by_pycocotools(truth, kept)
    assert min(point.right, point.false, point.missed) > 0


@pytest.mark.parametrize("seed", range(3))
def test_the_usual_threshold_is_the_best(seed: int) -> None:
    truth, rows = world(seed)
    rows[:, 5] = np.round(rows[:, 5], 2)  # some alike
    best = operating_point(truth, rows)
    every = [operating_point(truth, rows, score=float(score)) for score in np.unique(rows[:, 5])]
    assert best.f1 == max(point.f1 for point in every)
    assert best.agreement == max(point.agreement for point in every)
    assert best == operating_point(truth, rows, score=best.score)


def test_shares_by_hand() -> None:
    point = OperatingPoint(0.5, 0.5, right=6, false=2, missed=4)
    assert (point.precision, point.recall) == (6 / 8, 6 / 10)
    assert point.f1 == pytest.approx(2 * 0.75 * 0.6 / 1.35)
    assert point.agreement == 6 / 12
    assert point.to_json() == {
        **{"score": 0.5, "iou": 0.5, "right": 6, "false": 2, "missed": 4},
        **{"precision": 0.75, "recall": 0.6, "f1": point.f1, "agreement": 0.5},
    }


def test_nothing_found_and_nothing_there() -> None:
    truth, rows = world(0)
    point = operating_point(truth, rows[:0])
    assert (point.right, point.false, point.missed) == (0, 0, len(truth.labels))
    assert (point.precision, point.recall, point.agreement) == (-1, 0, 0)
    nobody = AnnotationSet.from_columns(
        root=Path(),
        format="made",
        categories=truth.categories,
        image_files=list(truth.image_files),
        image_hw=truth.image_hw,
        image_index=np.zeros(0, np.int64),
        boxes=np.zeros((0, 4)),
        labels=np.zeros(0, np.int64),
    )
    point = operating_point(nobody, rows)
    assert (point.right, point.missed) == (0, 0)
    assert point.false >= 1
    assert (point.precision, point.recall) == (0, -1)
