"""Oracle: the pixels themselves. A white shape on black goes through every kind of augmentation; its mask must be where
the frame is white."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.annotations.outlines import Outlines
from detseg.augment.cutouts import Cutouts
from detseg.augment.layouts import jittered, mixed, mosaic, turned
from detseg.augment.patches import patched
from detseg.augment.recipes import Recipe
from detseg.augment.sample import Sample
from detseg.geometry import rle as run_lengths

FRAME = (96, 128)


def shape(rng: np.random.Generator) -> Sample:
    """One white shape with a corner, an arc and a hole, anywhere on black, perhaps over the picture's edge."""
    h, w = (int(side) for side in rng.integers(60, 200, 2))
    canvas = np.zeros((h, w), np.uint8)
    cx, cy, r = int(rng.integers(0, w)), int(rng.integers(0, h)), int(rng.integers(15, 70))
    cv2.ellipse(canvas, (cx, cy), (r, max(3, r // 2)), float(rng.uniform(0, 180)), 0, 270, 255, -1)
    cv2.circle(canvas, (cx + r // 3, cy), r // 5, 0, -1)
    white = canvas > 0
    if not white.any():
        white[cy, cx] = True
    ys, xs = np.nonzero(white)
    boxes = np.float32([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]])
    masks = Cutouts.of_outlines(Outlines.of([written(white)]), boxes, (h, w))
    image = np.repeat(np.where(white, np.uint8(255), np.uint8(0))[..., None], 3, axis=2)
    return Sample(image, boxes, np.int64([0]), np.bool_([False]), masks)


def written(mask: np.ndarray) -> dict[str, object]:
    coded = run_lengths.encode(mask)
    return {"size": [int(side) for side in mask.shape], "counts": coded["counts"].decode()}


def assert_masks_are_where_it_is_white(out: Sample) -> None:
    """Pixels between black and white, on edges, may go either way by the rounding of a sample's place.

    So may a frame's pixel that the picture's edge goes through: what is drawn there goes on beyond the edge.
    """
    assert len(out.masks) == len(out.boxes)
    hw = (out.image.shape[0], out.image.shape[1])
    seen = out.masks.whole(hw).any(axis=0)
    value = out.image[..., 0].astype(int)
    ys, xs = np.mgrid[: hw[0], : hw[1]] + 0.5
    covered = np.zeros(hw, bool)
    for x1, y1, x2, y2 in out.boxes:
        covered |= (xs > x1 + 1) & (xs < x2 - 1) & (ys > y1 + 1) & (ys < y2 - 1)
    assert not ((value > 145) & ~seen & covered).any()
    assert not ((value < 105) & seen).any()  # the empty frame is 114


@pytest.mark.parametrize("how", ["jitter", "patches", "mosaic"])
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31), quarters=st.integers(0, 3))
def test_masks_follow_the_pixels(how, seed, quarters):
    rng = np.random.default_rng(seed)
    sample = turned(shape(rng), quarters)
    assert_masks_are_where_it_is_white(sample)
    if how == "jitter":
        out = jittered(sample, FRAME, rng)
    elif how == "patches":
        out = patched(sample, FRAME, rng)
    else:
        out = mosaic([sample, *(shape(rng) for _ in range(3))], FRAME, rng)
        # of a shape whose box lost a side under a pixel nothing is known, as of the boxes
        assert len(out.masks) <= 4
        if len(out.masks) < 4:
            return
    if len(out.boxes):
        assert_masks_are_where_it_is_white(out)
    assert out.masks.whole(FRAME).shape == (len(out.boxes), *FRAME)


@pytest.mark.parametrize("name", ["none", "light", "standard", "strong"])
@pytest.mark.parametrize("flips", [(True, False), (False, True), (True, True), (False, False)])
def test_masks_are_mirrored_as_the_recipe_mirrors(name, flips):
    recipe = Recipe(name, flip_horizontal=flips[0], flip_vertical=flips[1])
    moved = 0
    for seed in range(8):
        sample = shape(np.random.default_rng(seed))
        out = recipe(sample, np.random.default_rng(seed))
        whole = out.masks.whole(out.image.shape[:2])[0]
        x1, y1, x2, y2 = np.rint(out.boxes[0]).astype(int)
        assert whole.sum() == whole[y1:y2, x1:x2].sum() == sample.masks.parts[0].sum()
        bright = out.image.astype(int).min(axis=2)
        assert bright[whole].mean() > bright[~whole].mean() + 60
        moved += not np.array_equal(whole, sample.masks.whole(sample.image.shape[:2])[0])
    assert bool(moved) == (any(flips) and name != "none")


def test_masks_change_no_random_number_and_nothing_else():
    recipe = Recipe("strong", flip_vertical=True)
    for seed in range(6):
        sample = shape(np.random.default_rng(seed))
        plain = replace(sample, masks=None)
        ours, theirs = (recipe(one, np.random.default_rng(seed)) for one in (sample, plain))
        assert theirs.masks is None
        assert np.array_equal(ours.image, theirs.image)
        assert np.array_equal(ours.boxes, theirs.boxes)
        ours, theirs = (jittered(one, FRAME, np.random.default_rng(seed)) for one in (sample, plain))
        assert np.array_equal(ours.image, theirs.image)
        assert np.array_equal(ours.boxes, theirs.boxes)


def test_two_frames_blended_have_the_masks_of_both():
    rng = np.random.default_rng(1)
    one, other = (jittered(shape(rng), FRAME, rng) for _ in range(2))
    both = mixed(one, other, rng)
    expected = np.concatenate([one.masks.whole(FRAME), other.masks.whole(FRAME)])
    assert np.array_equal(both.masks.whole(FRAME), expected)
    assert len(both.boxes) == len(expected)


def test_outlines_of_every_kind_by_hand():
    square = [[2.0, 3.0, 6.0, 3.0, 6.0, 8.0, 2.0, 8.0]]
    mask = np.zeros((10, 12), bool)
    mask[1:4, 5:9] = True
    mask[2, 6] = False
    outlines = Outlines.of([square, written(mask), None, written(np.zeros((10, 12), bool))])
    boxes = np.array([[2, 3, 6, 8], [5, 1, 9, 4], [0.4, 0.6, 20, 3.4], [0, 0, 1, 1]])
    drawn = Cutouts.of_outlines(outlines, boxes, (10, 12)).whole((10, 12))
    expected = np.zeros((4, 10, 12), bool)
    expected[0, 3:8, 2:6] = True
    expected[1] = mask
    expected[2, 1:3, :] = True  # its box, to whole pixels
    assert np.array_equal(drawn, expected)
    with pytest.raises(ValueError, match="12x10, the picture is 10x12"):
        Cutouts.of_outlines(outlines[1:2], boxes[1:2], (12, 10))


def test_nothing_is_no_mask_at_all():
    none = Cutouts.of_outlines(Outlines.none(0), np.zeros((0, 4)), (5, 5))
    for moved in (none.mirrored((5, 5), x=True, y=True), none.turned(5), none.moved((2, 2), (0, 0), (0, 0, 9, 9))):
        assert moved.whole((9, 9)).shape == (0, 9, 9)
    assert Cutouts.concatenate([none, none]).corners.shape == (0, 2)
