"""`Placement`: there and back is where it was, whatever the shapes; and a case by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detseg.preprocess import Placement

ways = st.sampled_from([Placement.letterbox, Placement.stretch])
any_hw = st.tuples(st.integers(1, 20_000), st.integers(1, 20_000))
photo_hw = st.tuples(st.integers(16, 4096), st.integers(16, 4096))
frame_hw = st.tuples(st.integers(32, 1280), st.integers(32, 1280))
corners = st.lists(st.tuples(*[st.floats(0, 1)] * 4))


def boxes_in(hw: tuple[int, int], fractions: list[tuple[float, ...]], dtype: type) -> np.ndarray:
    points = np.array(fractions, np.float64).reshape(-1, 2, 2) * hw[::-1]
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1).astype(dtype)


@given(ways, any_hw, frame_hw, corners)
def test_there_and_back_is_where_it_was(way, image_hw, frame_hw, corners):
    placement, boxes = way(image_hw, frame_hw), boxes_in(image_hw, corners, np.float64)
    before = boxes.copy()
    back = placement.to_image(placement.to_frame(boxes))
    np.testing.assert_allclose(back, boxes, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(boxes, before)


@given(ways, photo_hw, st.integers(64, 1280), corners)
def test_single_precision_is_within_a_thousandth_of_a_pixel(way, image_hw, side, corners):
    placement, boxes = way(image_hw, (side, side)), boxes_in(image_hw, corners, np.float32)
    back = placement.to_image(placement.to_frame(boxes))
    assert (back.shape, back.dtype) == (boxes.shape, np.float32)
    np.testing.assert_allclose(back, boxes, rtol=0, atol=1e-3)


@given(any_hw, frame_hw)
def test_a_letterboxed_picture_lies_in_the_frame_centred_and_touches_two_edges(image_hw, frame_hw):
    placement = Placement.letterbox(image_hw, frame_hw)
    (h, w), (frame_h, frame_w) = placement.content_hw, frame_hw
    left, top = placement.offset_xy
    assert h >= 1
    assert w >= 1
    assert h == frame_h or w == frame_w
    assert (left, top) == ((frame_w - w) // 2, (frame_h - h) // 2)
    whole = placement.to_frame(np.array([[0.0, 0.0, image_hw[1], image_hw[0]]]))
    np.testing.assert_allclose(whole, [[left, top, left + w, top + h]], atol=1e-6)


@given(photo_hw)
def test_a_letterbox_keeps_the_shape_to_within_a_pixel(image_hw):
    placement = Placement.letterbox(image_hw, (640, 640))
    fit = 640 / max(image_hw)
    assert placement.content_hw == pytest.approx((image_hw[0] * fit, image_hw[1] * fit), abs=0.5 + 1e-6)


def test_by_hand():
    wide = Placement.letterbox((100, 200), (320, 320))  # 1.6 times as large, 80 rows of fill above and below
    assert wide == Placement((100, 200), (320, 320), (1.6, 1.6), (0.0, 80.0))
    np.testing.assert_allclose(wide.to_frame(np.array([[10.0, 20.0, 30.0, 50.0]])), [[16, 112, 48, 160]])
    pulled = Placement.stretch((100, 200), (320, 320))
    np.testing.assert_allclose(pulled.to_frame(np.array([[10.0, 20.0, 30.0, 50.0]])), [[16, 64, 48, 160]])
