"""Oracle: the pixels themselves. A bright rectangle is laid into frames; its box must be where its pixels are."""

from __future__ import annotations

import numpy as np
import pytest

from detseg.augment.layouts import jittered, mixed, mosaic, turned
from detseg.augment.recipes import RECIPES, Recipe
from detseg.augment.sample import Sample


def picture(hw: tuple[int, int], box: tuple[int, int, int, int]) -> Sample:
    """A black picture with one white rectangle, and its box."""
    image = np.zeros((*hw, 3), np.uint8)
    x0, y0, x1, y1 = box
    image[y0:y1, x0:x1] = 255
    return Sample(image, np.float32([box]), np.int64([5]), np.bool_([False]))


def bright_box(frame: np.ndarray) -> list[float]:
    """The box of the pixels that are more than half white (the empty frame is 114)."""
    rows, cols = np.nonzero(frame.min(axis=2) > 160)
    return [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("seed", range(20))
def test_a_jittered_box_is_where_its_pixels_are(seed):
    out = jittered(picture((120, 200), (60, 30, 150, 90)), (160, 160), np.random.default_rng(seed))
    assert out.image.shape == (160, 160, 3)
    assert len(out.boxes) == 1
    np.testing.assert_allclose(out.boxes[0], bright_box(out.image), atol=1.5)


@pytest.mark.parametrize("seed", range(10))
def test_each_box_of_a_mosaic_is_where_its_pixels_are(seed):
    rng = np.random.default_rng(seed)
    blank = Sample(
        np.zeros((100, 80, 3), np.uint8),
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.int64),
        np.zeros(0, bool),
    )
    for place in range(4):
        parts = [blank] * 4
        parts[place] = picture((90, 130), (20, 15, 110, 80))
        out = mosaic(parts, (160, 192), rng)
        if len(out.boxes):
            np.testing.assert_allclose(out.boxes[0], bright_box(out.image), atol=1.5)
        else:
            assert (out.image.min(axis=2) > 160).sum() < 300


def test_what_is_hardly_visible_is_ignored_and_what_is_gone_is_dropped():
    out = [
        jittered(picture((100, 100), (0, 0, 40, 100)), (64, 64), np.random.default_rng(s), zoom=(2.5, 2.5))
        for s in range(60)
    ]
    assert any(len(o.boxes) == 0 for o in out)
    assert any(o.ignored.any() for o in out)
    assert any(len(o.boxes) and not o.ignored.any() for o in out)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_move_boxes_with_pixels_and_repeat_by_seed(name):
    recipe = Recipe(name, flip_vertical=True)
    sample = picture((96, 128), (10, 20, 70, 50))
    for seed in range(6):
        out = recipe(sample, np.random.default_rng(seed))
        again = recipe(sample, np.random.default_rng(seed))
        np.testing.assert_array_equal(out.image, again.image)
        np.testing.assert_array_equal(out.boxes, again.boxes)
        bright = out.image.mean(axis=2) > 110
        rows, cols = np.nonzero(bright)
        np.testing.assert_allclose(out.boxes[0], [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1], atol=3)
        assert out.labels.tolist() == [5]


def test_nothing_is_changed_in_place():
    sample = picture((60, 60), (10, 10, 30, 30))
    before = sample.image.copy(), sample.boxes.copy()
    for layout in (lambda r: jittered(sample, (64, 64), r), lambda r: mosaic([sample] * 4, (64, 64), r)):
        Recipe("standard")(layout(np.random.default_rng(0)), np.random.default_rng(1))
    np.testing.assert_array_equal(sample.image, before[0])
    np.testing.assert_array_equal(sample.boxes, before[1])


@pytest.mark.parametrize("quarters", range(-1, 6))
def test_a_turned_box_is_where_its_pixels_are(quarters):
    sample = picture((40, 60), (5, 10, 25, 16))
    out = turned(sample, quarters)
    assert out.image.shape == ((40, 60, 3) if quarters % 2 == 0 else (60, 40, 3))
    assert out.boxes.tolist() == [bright_box(out.image)]
    assert out.image.flags.c_contiguous
    assert np.array_equal(turned(out, -quarters).image, sample.image)
    assert turned(out, -quarters).boxes.tolist() == sample.boxes.tolist()


def test_a_quarter_turn_by_hand():
    # counter-clockwise: the right edge becomes the top; what was 60 - 25 from the right is so far from the top
    assert turned(picture((40, 60), (5, 10, 25, 16)), 1).boxes.tolist() == [[10, 35, 16, 55]]


def test_flips_and_turns_together_give_all_eight_symmetries():
    sample = picture((32, 32), (2, 5, 9, 12))
    recipe = Recipe("light", hsv=0)
    seen = {
        tuple(recipe(turned(sample, quarters), np.random.default_rng(seed)).boxes[0].tolist())
        for quarters in range(4)
        for seed in range(12)
    }
    assert len(seen) == 8


def test_two_frames_are_blended_with_the_objects_of_both():
    one, two = picture((64, 64), (0, 0, 20, 20)), picture((64, 64), (30, 30, 60, 60))
    shares = []
    for seed in range(200):
        out = mixed(one, two, np.random.default_rng(seed))
        assert out.boxes.tolist() == [[0, 0, 20, 20], [30, 30, 60, 60]]
        first, second = int(out.image[5, 5, 0]), int(out.image[40, 40, 0])
        assert abs(first + second - 255) <= 1  # where only one is white, its share is seen
        shares.append(first / 255)
    # Beta(8, 8): mean 1/2, variance 1/68
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.var(shares) == pytest.approx(1 / 68, rel=0.3)


def test_no_strength_leaves_only_the_place_to_chance():
    for seed in range(5):
        out = jittered(picture((100, 200), (0, 0, 200, 100)), (64, 64), np.random.default_rng(seed), strength=0)
        assert (out.boxes[0, 2:] - out.boxes[0, :2]).tolist() == pytest.approx([64, 32])
    sides = set()
    for seed in range(5):
        out = mosaic([picture((50, 50), (10, 10, 20, 20))] * 4, (200, 200), np.random.default_rng(seed), strength=0)
        sides |= {round(float(side), 2) for box in out.boxes for side in box[2:] - box[:2]}
    assert max(sides) == round(40 * 0.44**0.5, 2)  # 200 / 50 times 10, in the middle of 0.4 and 1.1; others are cut


def test_without_colour_shifts_grey_stays_as_it_is():
    grey = Sample(
        np.full((8, 8, 3), (90, 120, 30), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0, bool)
    )
    for seed in range(8):
        image = Recipe("standard", hsv=0)(grey, np.random.default_rng(seed)).image.astype(int)
        # brightness and hue stay; contrast stretches about the middle of the range: all pixels alike
        assert (image == image[0, 0]).all()
        assert image[0, 0, 1] >= image[0, 0, 0] >= image[0, 0, 2]
    assert Recipe("light", flip_horizontal=False, hsv=0)(
        picture((9, 9), (0, 0, 3, 3)), np.random.default_rng(1)
    ).boxes.tolist() == [[0, 0, 3, 3]]
