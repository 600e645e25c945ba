"""Faster and Mask R-CNN learn four pictures by heart: boxes and masks come back."""

from __future__ import annotations

import pytest

from detseg.evaluation import evaluate, evaluate_rows, result_outlines, result_rows
from tests.by_heart import Learnt, learn

# few regions, so that this takes seconds
FEW = {
    "rpn.samples": 32,
    "rpn.train_candidates": 100,
    "rpn.train_kept": 60,
    "rpn.candidates": 60,
    "rpn.kept": 30,
    "box.samples": 32,
}
MASKS = {"mask.convs": (32, 32), "mask.width": 32}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("faster-rcnn", FEW), ("mask-rcnn", {**FEW, **MASKS})])
def test_four_pictures_are_learnt_by_heart(tmp_path, name, options):
    learn(
        tmp_path, name, until=expect_all_objects, steps=140, seed=1, imgsz=128, multi_scale=0, lr=2e-3, backbone_lr=1.0,
        options=options,
    )  # fmt: skip


def expect_all_objects(learnt: Learnt) -> None:
    truth, found = learnt.truth, learnt.found()
    assert evaluate(truth, found).ap > 0.95
    if learnt.prepared.masks:
        masks = evaluate_rows(truth, result_rows(truth, found), kind="segm", outlines=result_outlines(truth, found))
        assert masks.ap75 == pytest.approx(1.0)
        assert masks.ap > 0.75  # the smallest is 14 pixels wide: half a pixel all around is an IoU of 0.87
