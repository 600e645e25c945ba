"""Oracle: pycocotools' own matches, detection by detection."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detseg.annotations import AnnotationSet, Categories
from detseg.annotations.outlines import Outlines
from detseg.evaluation import results_json, truth_json
from detseg.evaluation.matching import match, overlaps


def world(seed: int, pictures: int = 6, objects: int = 25, found: int = 60, masks: bool = False):
    """Whole-number boxes and few scores, so that overlaps and scores tie often; some regions are ignored."""
    rng = np.random.default_rng(seed)
    corners, sides = rng.integers(0, 30, (objects, 2)), rng.integers(1, 20, (objects, 2))
    boxes = np.concatenate([corners, corners + sides], axis=1)
    truth = AnnotationSet.from_columns(
        root=Path(),
        format="made",
        categories=Categories((7, 2), ("ant", "bee")),
        image_files=[f"{i}.jpg" for i in range(pictures)],
        image_ids=rng.permutation(50)[:pictures],
        image_hw=np.tile([60, 60], (pictures, 1)),
        image_index=rng.integers(0, pictures - 1, objects),
        boxes=boxes,
        labels=rng.integers(0, 2, objects),
        crowd=rng.random(objects) < 0.15,
        difficult=rng.random(objects) < 0.15,
        outlines=Outlines.of([triangle(*box) for box in boxes.tolist()]) if masks else None,
    )
    rows = np.zeros((found, 7))
    like = rng.integers(0, objects, found)
    rows[:, 0] = np.where(rng.random(found) < 0.8, truth.image_index[like], rng.integers(0, pictures, found))
    rows[:, 1:3] = truth.boxes[like, :2] + rng.integers(-2, 3, (found, 2))
    rows[:, 3:5] = np.maximum(truth.boxes[like, 2:] - truth.boxes[like, :2] + rng.integers(-2, 3, (found, 2)), 1)
    rows[:, 5] = rng.integers(1, 6, found) / 10
    rows[:, 6] = np.where(rng.random(found) < 0.8, truth.labels[like], rng.integers(0, 2, found))
    return truth, rows


def triangle(x1: float, y1: float, x2: float, y2: float) -> list[list[float]]:
    return [[x1, y1, x2, y1, x1, y2]]


def pycocotools_matches(truth, rows, iou: float, max_dets: int, outlines: Outlines | None = None):
    """For each row: the annotation's row or -1, and whether it is ignored; rows beyond the cap are left out."""
    known_json, results = truth_json(truth), results_json(truth, rows)
    if outlines is not None:
        for row, entry in enumerate(known_json["annotations"]):
            entry["segmentation"] = truth.outlines.segmentation(row)
        for row, entry in enumerate(results):
            entry.pop("bbox")
            entry["segmentation"] = outlines.rle(row, (60, 60))
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = known_json
        known.createIndex()
        comparison = COCOeval(known, known.loadRes(results), "bbox" if outlines is None else "segm")
        comparison.params.iouThrs, comparison.params.maxDets = np.array([iou]), [max_dets]
        comparison.params.areaRng, comparison.params.areaRngLbl = [[0, 1e10]], ["all"]
        comparison.evaluate()
    told = {}
    for cell in filter(None, comparison.evalImgs):
        listed = zip(cell["dtIds"], cell["dtMatches"][0], cell["dtIgnore"][0], strict=True)
        told |= {int(id_) - 1: (int(found) - 1, bool(ignored)) for id_, found, ignored in listed}
    return told


def expect_the_same(truth, rows, iou, max_dets, outlines=None):
    told = pycocotools_matches(truth, rows, iou, max_dets, outlines)
    ours = match(truth, rows, iou, pairs=overlaps(truth, rows, outlines=outlines), max_dets=max_dets)
    assert set(np.flatnonzero(ours.counted)) == told.keys()
    assert {r: (int(ours.truth[r]), bool(ours.ignored[r])) for r in told} == told
    assert not ours.ignored[~ours.counted].any()
    assert (ours.truth[~ours.counted] == -1).all()
    back = {int(t): int(r) for r, t in enumerate(ours.truth) if ours.right[r]}
    assert {t: int(r) for t, r in enumerate(ours.found) if r >= 0} == back


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([0.1, 0.5, 0.75, 1.0]), st.sampled_from([1, 5, 100]))
def test_every_match_is_pycocotools(seed, iou, max_dets):
    expect_the_same(*world(seed), iou, max_dets)


@pytest.mark.parametrize("seed", range(5))
def test_every_match_of_masks_is_pycocotools(seed):
    truth, rows = world(seed, masks=True)
    corners = np.concatenate([rows[:, 1:3], rows[:, 1:3] + rows[:, 3:5]], axis=1)
    outlines = Outlines.of([triangle(*box) for box in np.maximum(corners, 0).tolist()])
    expect_the_same(truth, rows, 0.5, 100, outlines)


def test_nothing_found_and_nothing_to_find():
    truth, rows = world(1)
    none = match(truth, rows[:0])
    assert none.truth.shape == (0,)
    assert (none.found == -1).all()
    bare = truth.subset([5])
    rows = rows[rows[:, 0] == 0]
    assert match(bare, rows).false.all()


def test_pairs_in_small_portions_are_the_same(monkeypatch):
    truth, rows = world(3)
    whole = overlaps(truth, rows)
    monkeypatch.setattr("detseg.evaluation.matching._PAIRS_AT_ONCE", 7)
    portions = overlaps(truth, rows)
    for name in ("detection", "truth", "iou"):
        assert (getattr(whole, name) == getattr(portions, name)).all()


def test_across_classes_each_picture_is_one_group():
    truth, rows = world(4)
    anything = match(truth, rows, across_classes=True, max_dets=None)
    one_class = Categories((1,), ("thing",))
    alike = AnnotationSet.from_columns(
        root=Path(),
        format="made",
        categories=one_class,
        image_files=truth.image_files,
        image_hw=truth.image_hw,
        image_index=truth.image_index,
        boxes=truth.boxes,
        labels=truth.labels * 0,
        crowd=truth.ignored,
    )
    rows = rows.copy()
    rows[:, 6] = 0
    assert (anything.truth == match(alike, rows, max_dets=None).truth).all()
