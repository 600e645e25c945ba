"""Oracle: torchvision.ops, and cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.ops as ops
from hypothesis import given
from hypothesis import strategies as st

from detseg.geometry import boxes as geometry

RNG = np.random.default_rng(0)


def random_boxes(n: int) -> np.ndarray:
    corners = RNG.uniform(-50, 100, (n, 2))
    return np.concatenate([corners, corners + RNG.uniform(1, 80, (n, 2))], axis=1)


A, B = random_boxes(40), random_boxes(30)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (geometry.iou, ops.box_iou),
        (geometry.giou, ops.generalized_box_iou),
        (geometry.diou, ops.distance_box_iou),
        (geometry.ciou, ops.complete_box_iou),
    ],
)
def test_overlaps_equal_torchvision(ours, theirs) -> None:  # type: ignore[no-untyped-def]
    before = A.copy(), B.copy()
    expected = theirs(torch.from_numpy(A), torch.from_numpy(B)).numpy()
    assert (expected > 0).any()
    np.testing.assert_allclose(ours(A, B), expected, rtol=1e-5, atol=1e-6)  # theirs adds an epsilon
    assert ours(A, geometry.empty(np.float64)).shape == (40, 0)
    assert np.array_equal(A, before[0])
    assert np.array_equal(B, before[1])


def test_iou_by_hand() -> None:
    square = np.array([[0.0, 0, 2, 2]])
    others = np.array([[0.0, 0, 2, 2], [1, 0, 3, 2], [1, 1, 3, 3], [2, 0, 4, 2], [5, 5, 6, 6], [1, 1, 1, 1]])
    assert geometry.iou(square, others).tolist() == [[1, 1 / 3, 1 / 7, 0, 0, 0]]
    # hull 6 x 6 with 4 + 1 covered: 0 - 31 / 36; centres (1, 1) and (5.5, 5.5), diagonal 72
    assert geometry.giou(square, others)[0, 4] == pytest.approx(-31 / 36)
    assert geometry.diou(square, others)[0, 4] == pytest.approx(-(2 * 4.5**2) / 72)


def test_two_points_overlap_by_nothing_rather_than_nan() -> None:
    point = np.zeros((1, 4))
    for measure in (geometry.iou, geometry.giou, geometry.diou, geometry.ciou):
        assert measure(point, point).tolist() == [[0]]


finite = st.floats(-1e4, 1e4, width=32)


@given(st.lists(st.tuples(finite, finite, finite, finite), max_size=8))
def test_formats_go_there_and_back(rows: list[tuple[float, ...]]) -> None:
    boxes = np.array(rows, np.float64).reshape(-1, 4)
    to_wh, to_centre = geometry.xyxy_to_xywh(boxes), geometry.xyxy_to_cxcywh(boxes)
    np.testing.assert_allclose(geometry.xywh_to_xyxy(to_wh), boxes, atol=1e-9)
    np.testing.assert_allclose(geometry.cxcywh_to_xyxy(to_centre), boxes, atol=1e-9)
    for ours, name in ((to_wh, "xywh"), (to_centre, "cxcywh")):
        theirs = ops.box_convert(torch.from_numpy(boxes), "xyxy", name).numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_area_clip_and_degenerate() -> None:
    boxes = np.array([[-5.0, 2, 5, 8], [1, 1, 1.5, 9], [6, 6, 2, 2], [0, 0, np.nan, 5]])
    assert geometry.area(boxes[:3]).tolist() == [60, 4, 0]
    assert geometry.clip(boxes[:1], (7, 4)).tolist() == [[0, 2, 4, 7]]
    assert geometry.is_degenerate(boxes).tolist() == [False, True, True, True]
