"""Oracle: the pixels themselves. Rectangles of known colours are where their boxes say, whatever part is in view."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.augment.patches import patched
from detseg.augment.sample import Sample

FRAME = (160, 200)


def picture(hw: tuple[int, int], box: tuple[int, int, int, int] | None) -> Sample:
    """A black picture with at most one white rectangle, and its box."""
    image = np.zeros((*hw, 3), np.uint8)
    boxes = np.zeros((0, 4), np.float32)
    if box is not None:
        x0, y0, x1, y1 = box
        image[y0:y1, x0:x1] = 255
        boxes = np.float32([box])
    return Sample(image, boxes, np.full(len(boxes), 5, np.int64), np.zeros(len(boxes), bool))


@st.composite
def pictures(draw) -> Sample:
    h, w = draw(st.integers(40, 300)), draw(st.integers(40, 300))
    x0, y0 = draw(st.integers(0, w - 24)), draw(st.integers(0, h - 24))
    box = (x0, y0, draw(st.integers(x0 + 20, w)), draw(st.integers(y0 + 20, h)))
    return picture((h, w), box)


@settings(max_examples=150)
@given(sample=pictures(), seed=st.integers(0, 10_000))
def test_a_box_is_where_its_pixels_are(sample, seed):
    out = patched(sample, FRAME, np.random.default_rng(seed))
    assert out.image.shape == (*FRAME, 3)
    rows, cols = np.nonzero(out.image.min(axis=2) > 180)  # the canvas is 114
    if not len(out.boxes):  # what is in view of it is nothing, or thinner than a pixel
        assert len(set(rows)) <= 1 or len(set(cols)) <= 1
        return
    assert out.labels.tolist() == [5]
    seen = [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1] if len(rows) else out.boxes[0]
    # a source pixel is blurred over as much of the frame as it is enlarged by
    zoom = max(2.0, *(FRAME[i] / (0.3 * sample.image.shape[i]) for i in (0, 1)))
    np.testing.assert_allclose(out.boxes[0], seen, atol=zoom)


def test_what_counts_has_its_centre_in_view_and_the_rest_is_ignored():
    """A small object that is not cut tells what part of the plane is in view; the large one is judged by that."""
    small, large = np.array([20.0, 20, 30, 28]), np.array([60.0, 40, 180, 100])
    sample = Sample(np.zeros((120, 200, 3), np.uint8), np.float32([small, large]), np.int64([0, 1]), np.zeros(2, bool))
    seen = {"counted": 0, "ignored": 0, "gone": 0}
    for seed in range(600):
        out = patched(sample, FRAME, np.random.default_rng(seed))
        tellers, others = out.boxes[out.labels == 0], np.flatnonzero(out.labels == 1)
        if not len(tellers) or tellers.min() <= 0 or (tellers[0, 2:] >= (FRAME[1], FRAME[0])).any():
            continue
        scale = (tellers[0, 2:] - tellers[0, :2]) / (small[2:] - small[:2])
        centre = tellers[0, :2] + ((large[:2] + large[2:]) / 2 - small[:2]) * scale
        in_view = bool((centre < (FRAME[1], FRAME[0])).all())
        state = "gone" if not len(others) else "ignored" if out.ignored[others[0]] else "counted"
        assert (state == "counted") == in_view, seed
        seen[state] += 1
    assert min(seen.values()) >= 3, seen


def test_it_zooms_out_in_and_leaves_alone():
    """Sizes in view, in parts of the object's share of the whole picture: from a fourth of each side to 1 / 0.3."""
    sample = picture((100, 100), (45, 45, 55, 55))
    found = [patched(sample, (100, 100), np.random.default_rng(seed)) for seed in range(400)]
    widths = np.array([(out.boxes[0, 2] - out.boxes[0, 0]) / 10 for out in found if len(out.boxes)])
    assert len(widths) == 400  # every patch shows an object's centre
    assert 0.25 <= widths.min() < 0.35
    assert 2 < widths.max() <= 100 / 30 / 0.5**0.5
    assert (np.isclose(widths, 1, atol=1e-3)).mean() > 0.05  # the whole picture, as it is


@pytest.mark.parametrize("hw", [(40, 400), (400, 40)])
def test_long_pictures_without_objects_are_fine_and_nothing_is_changed_in_place(hw):
    empty, full = picture(hw, None), picture(hw, (5, 5, 30, 30))
    before = full.image.copy(), full.boxes.copy()
    for seed in range(60):
        bare = patched(empty, FRAME, np.random.default_rng(seed))  # may show nothing but the canvas
        assert (bare.image.shape, bare.boxes.shape) == ((*FRAME, 3), (0, 4))
        once, again = (patched(full, FRAME, np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(once.image, again.image)
        np.testing.assert_array_equal(once.boxes, again.boxes)
    np.testing.assert_array_equal(full.image, before[0])
    np.testing.assert_array_equal(full.boxes, before[1])
    assert not full.ignored.any()
