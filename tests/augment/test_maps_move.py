"""Label maps move with the pixels. Oracle: pictures whose colour is their class, so that either tells of the other."""

from __future__ import annotations

import numpy as np
import pytest

from detseg.annotations.semantic import IGNORE
from detseg.augment.layouts import cropped, jittered, mixed, mosaic, turned
from detseg.augment.patches import patched
from detseg.augment.recipes import Recipe
from detseg.augment.sample import Sample

STEP = 60  # of brightness between classes


def sample(hw: tuple[int, int] = (90, 120)) -> Sample:
    """Rectangles of classes 0 to 3, brightness 0, 60, 120, 180."""
    h, w = hw
    labels = np.zeros(hw, np.uint8)
    labels[h // 3 :, : w // 2] = 1
    labels[: h // 2, w // 2 :] = 2
    labels[h // 2 :, 2 * w // 3 :] = 3
    return Sample.of_map(np.repeat((labels * STEP)[..., None], 3, axis=2), labels)


def agree(out: Sample) -> float:
    """The share of known pixels whose brightness is that of their class, but for those between two classes."""
    known = out.label_map != IGNORE
    told = out.label_map[known].astype(int) * STEP
    assert known.any()
    return float((np.abs(out.image[..., 0][known].astype(int) - told) < STEP / 2).mean())


def crop(s, hw, rng):
    return cropped(s, hw, rng)


@pytest.mark.parametrize("lay", [jittered, crop, patched])
@pytest.mark.parametrize("seed", range(8))
def test_maps_are_where_their_pixels_are(lay, seed):
    out = lay(sample(), (128, 160), np.random.default_rng(seed))
    assert out.label_map.shape == (128, 160)
    assert out.label_map.dtype == np.uint8
    assert agree(out) > 0.97


@pytest.mark.parametrize("seed", range(8))
def test_what_no_picture_covers_does_not_count(seed):
    rng = np.random.default_rng(seed)
    out = mosaic([sample()] * 4, (128, 160), rng)
    assert agree(out) > 0.95
    unseen = (out.image == 114).all(axis=2)  # the colour of an empty frame, which no class has
    assert (out.label_map[unseen] == IGNORE).all()
    assert (out.label_map[~unseen] == IGNORE).mean() < 0.05


@pytest.mark.parametrize("seed", range(12))
def test_crops_have_no_border_unless_zoomed_out(seed):
    out = cropped(sample(), (64, 64), np.random.default_rng(seed), zoom=(1.0, 2.0), squeeze=0.0)
    assert (out.label_map != IGNORE).mean() > 0.96  # but for the outermost pixels


def test_a_crop_at_scale_one_shows_one_side_whole():
    out = cropped(sample((90, 180)), (45, 45), np.random.default_rng(0), zoom=(1.0, 1.0), squeeze=0.0)
    counts = np.bincount(out.label_map.ravel(), minlength=256)
    assert counts[IGNORE] < 0.05 * 45 * 45


@pytest.mark.parametrize("quarters", range(4))
def test_turning(quarters):
    out = turned(sample(), quarters)
    np.testing.assert_array_equal(out.label_map, np.rot90(sample().label_map, quarters))
    np.testing.assert_array_equal(out.image[..., 0], out.label_map * STEP)


@pytest.mark.parametrize("seed", range(6))
def test_flips_take_the_map_along(seed):
    recipe = Recipe("light", flip_horizontal=True, flip_vertical=True, hsv=0.0)
    out = recipe(sample(), np.random.default_rng(seed))
    means = [out.image[out.label_map == label].mean() for label in range(4)]
    assert means == sorted(means)  # contrast changes brightness, not its order
    spread = [out.image[out.label_map == label].std() for label in range(4)]
    assert max(spread) < 1


def test_maps_cannot_be_blended():
    with pytest.raises(ValueError, match="label maps cannot be blended"):
        mixed(sample(), sample(), np.random.default_rng(0))
