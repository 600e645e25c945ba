"""Oracle: the way there, `Placement.to_frame`, and cases worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detseg.postprocess import restore
from detseg.preprocess import Placement


@pytest.mark.parametrize("lay", [Placement.letterbox, Placement.stretch])
@pytest.mark.parametrize("image_hw", [(480, 640), (1, 1), (20, 20000), (333, 1)])
def test_boxes_of_the_picture_come_back(lay, image_hw: tuple[int, int]) -> None:  # type: ignore[no-untyped-def]
    h, w = image_hw
    placement = lay(image_hw, (320, 416))
    boxes = np.random.default_rng(0).uniform(0, 0.4, (50, 4)) * [w, h, w, h]
    boxes[:, 2:] += boxes[:, :2] + [w / 5, h / 5]
    found = restore(placement.to_frame(boxes), np.full(50, 0.5), np.arange(50), placement, Path("a.jpg"))
    np.testing.assert_allclose(found.boxes, boxes, atol=1e-6 * max(h, w), rtol=1e-6)
    assert found.labels.tolist() == list(range(50))
    assert (found.image_hw, found.path) == (image_hw, Path("a.jpg"))


def test_boxes_are_cut_to_the_picture_and_those_beside_it_dropped() -> None:
    placement = Placement.letterbox((100, 200), (200, 200))  # 50 px of border above and below
    frame = np.array([[-20, 40, 60, 90], [10, 0, 90, 50], [150, 100, 260, 180], [0, 151, 9, 190]], np.float32)
    found = restore(frame, np.array([0.9, 0.8, 0.7, 0.6], np.float32), np.array([4, 3, 2, 1]), placement)
    assert found.boxes.tolist() == [[0, 0, 60, 40], [150, 50, 200, 100]]
    assert found.labels.tolist() == [4, 2]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])


def test_nothing_stays_nothing() -> None:
    empty = restore(np.zeros((0, 4)), np.zeros(0), np.zeros(0), Placement.stretch((5, 5), (9, 9)))
    assert len(empty) == 0
    assert empty.boxes.shape == (0, 4)
