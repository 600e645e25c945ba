"""An SSD learns four pictures by heart: its boxes come back."""

from __future__ import annotations

import pytest

from detseg.evaluation import evaluate
from tests.by_heart import Learnt, learn


@pytest.mark.slow
def test_four_pictures_are_learnt_by_heart(tmp_path):
    learnt = learn(
        tmp_path, "ssd", until=expect_all_boxes, steps=160, imgsz=96, lr=1e-3, backbone_lr=1.0, freeze_stages=2,
        options={"clusters": 4},
    )  # fmt: skip
    assert learnt.prepared.card.preprocess.fit == "stretch"


def expect_all_boxes(learnt: Learnt) -> None:
    assert evaluate(learnt.truth, learnt.found()).ap == pytest.approx(1.0)
