"""`Preprocess`: boxes follow the pixels, shown with marker pictures, and the numbers the network sees."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detseg.preprocess import Preprocess

SHAPES = [(240, 320), (375, 500), (500, 333), (97, 1201), (1201, 97), (64, 48), (320, 320), (1500, 2000)]


def marked(hw: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    """Black, with the pixels of `box` white."""
    image = np.zeros((*hw, 3), np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 255
    return image


def extent(profile: np.ndarray) -> tuple[float, float]:
    """(centre, length) of what is white along one axis, sub-pixel, from the light it gives."""
    light = profile.astype(np.float64)
    total = light.sum()
    return float((light * (np.arange(len(light)) + 0.5)).sum() / total), float(total / light.max())


@pytest.mark.parametrize(
    ("hw", "fit"),
    [(hw, "letterbox") for hw in SHAPES] + [(hw, "stretch") for hw in SHAPES],
)
def test_boxes_follow_the_pixels(hw, fit):
    h, w = hw
    box = (w // 5, h // 3, w // 5 + w // 2, h // 3 + h // 2)
    frame, placement = Preprocess(frame_hw=(320, 320), fit=fit, fill=0).place(marked(hw, box))
    assert frame.shape == (320, 320, 3)
    ((x1, y1, x2, y2),) = placement.to_frame(np.array([box], np.float64))
    bright = frame[..., 0]
    centre_x, width = extent(bright.sum(axis=0, dtype=np.int64))
    centre_y, height = extent(bright.sum(axis=1, dtype=np.int64))
    assert (centre_x, centre_y) == pytest.approx(((x1 + x2) / 2, (y1 + y2) / 2), abs=0.2)
    assert (width, height) == pytest.approx((x2 - x1, y2 - y1), abs=0.4)


def test_what_the_picture_does_not_cover_is_filled():
    frame, placement = Preprocess(frame_hw=(320, 320)).place(np.full((100, 200, 3), 255, np.uint8))
    top, rows = int(placement.offset_xy[1]), placement.content_hw[0]
    assert (frame[:top] == 114).all()
    assert (frame[top : top + rows] == 255).all()
    assert (frame[top + rows :] == 114).all()


def test_a_picture_of_the_frames_size_passes_unchanged():
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    for fit in ("letterbox", "stretch"):
        frame, placement = Preprocess(frame_hw=(64, 96), fit=fit).place(image)
        np.testing.assert_array_equal(frame, image)
        assert (placement.scale_xy, placement.offset_xy) == ((1.0, 1.0), (0.0, 0.0))


@pytest.mark.parametrize("hw", [(1, 1), (20_000, 20), (20, 20_000)])
def test_extreme_shapes_still_make_a_frame(hw):
    frame, _ = Preprocess(frame_hw=(320, 320)).place(np.full((*hw, 3), 200, np.uint8))
    assert frame.shape == (320, 320, 3)
    assert (frame == 200).any()


def test_the_network_sees_imagenets_numbers_in_planes():
    frames = np.zeros((2, 4, 5, 3), np.uint8)
    frames[1, ..., 1:] = 255  # black red, white green and blue
    seen = Preprocess().normalise(frames)
    assert (seen.shape, seen.dtype) == ((2, 3, 4, 5), np.float32)
    # ImageNet's black and white, as out of every framework: -0.485 / 0.229, (1 - 0.456) / 0.224, ...
    np.testing.assert_allclose(seen[0, :, 0, 0], [-2.11790, -2.03571, -1.80444], atol=1e-5)
    np.testing.assert_allclose(seen[1, :, 3, 4], [-2.11790, 2.42857, 2.64000], atol=1e-5)


def test_the_picture_is_left_alone_and_the_recipe_is_frozen():
    image = marked((90, 120), (10, 10, 50, 60))
    before = image.copy()
    recipe = Preprocess()
    recipe.normalise(recipe.place(image)[0][None])
    np.testing.assert_array_equal(image, before)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.fill = 0  # type: ignore[misc]
