"""A detector learns four pictures by heart: its boxes come back."""

from __future__ import annotations

import pytest

from detseg.evaluation import evaluate
from tests.by_heart import Learnt, learn


def expect_every_box(learnt: Learnt) -> None:
    metrics = evaluate(learnt.truth, learnt.found())
    assert metrics.ap50 == pytest.approx(1.0)
    assert metrics.ap == pytest.approx(1.0)  # every box to within 95 % of its area


@pytest.mark.slow
@pytest.mark.parametrize(("name", "lr"), [("yolo", 3e-3), ("yolov3", 1e-3)])  # exponential sizes overshoot sooner
def test_four_pictures_are_learnt_by_heart(tmp_path, name, lr):
    learn(
        tmp_path, name, until=expect_every_box, steps=400, imgsz=96, mosaic=0, multi_scale=0, lr=lr, backbone_lr=1.0,
        freeze_stages=0, freeze_bn=True, options={"neck_channels": 32},
    )  # fmt: skip
