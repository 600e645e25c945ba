"""Frames of the picture's own shape. Oracle: torchvision's GeneralizedRCNNTransform, sizes and pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detseg.preprocess import Placement, Preprocess
from detseg.preprocess.recipe import stack

LIMITS = [(800, 1333), (320, 640)]  # of torchvision's R-CNNs
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def theirs(images: list[np.ndarray], limits: tuple[int, int], mean=MEAN, std=STD):
    transform = GeneralizedRCNNTransform(*limits, list(mean), list(std)).eval()
    return transform([torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in images])[0]


def photo(hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Coloured patches with noise."""
    random = np.random.default_rng(seed)
    patches = random.integers(0, 256, (-(-hw[0] // 16), -(-hw[1] // 16), 3)).repeat(16, axis=0).repeat(16, axis=1)
    noisy = patches[: hw[0], : hw[1]] + random.normal(0, 20, (*hw, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(LIMITS), st.tuples(st.integers(40, 1500), st.integers(40, 1500)))
def test_sizes_are_torchvisions(limits, hw):
    longest = max(hw) / min(hw)
    if longest > 20:  # torchvision itself gives nothing where a side would be cut to 0
        return
    wanted = theirs([np.zeros((*hw, 3), np.uint8)], limits)
    placement = Placement.shorter(hw, limits)
    assert placement.content_hw == placement.size_hw == wanted.image_sizes[0]
    assert placement.frame_hw == tuple(wanted.tensors.shape[2:])


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("hw", [(480, 640), (427, 640), (640, 425), (333, 500), (600, 601), (200, 900), (37, 51)])
def test_pixels_are_torchvisions_but_for_rounding(hw, limits):
    """They interpolate floating numbers, we whole ones: half a step of 255, and what OpenCV's own weights round."""
    image = photo(hw)
    frame, placement = Preprocess(limits, "shorter").place(image)
    wanted = theirs([image], limits, (0, 0, 0), (1 / 255,) * 3).tensors[0].permute(1, 2, 0).numpy()
    h, w = placement.content_hw
    assert frame.shape == wanted.shape
    difference = np.abs(frame[:h, :w].astype(np.float64) - wanted[:h, :w])
    assert difference.max() <= 1.0
    assert difference.mean() <= 0.3  # of rounding alone 0.25


def test_a_batch_is_as_large_as_its_largest_picture_with_each_at_the_top_left():
    images = [photo((48, 64), 1), photo((64, 40), 2)]
    recipe = Preprocess((32, 64), "shorter")
    placed = [recipe.place(image) for image in images]
    frames = stack([frame for frame, _ in placed])
    wanted = theirs(images, (32, 64))
    assert frames.shape[:3] == (2, *wanted.tensors.shape[2:])
    assert [placement.size_hw for _, placement in placed] == wanted.image_sizes


@given(
    st.sampled_from(LIMITS),
    st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)),
    st.lists(st.tuples(*[st.floats(0, 1)] * 4)),
)
def test_there_and_back_is_where_it_was(limits, hw, fractions):
    points = np.array(fractions, np.float64).reshape(-1, 2, 2) * hw[::-1]
    boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    placement = Placement.shorter(hw, limits)
    np.testing.assert_allclose(placement.to_image(placement.to_frame(boxes)), boxes, rtol=0, atol=1e-6)
    h, w = placement.content_hw
    assert min(h, w) >= 1
    assert max(h, w) <= limits[1]
    assert all(side % 32 == 0 and 0 <= side - own < 32 for side, own in zip(placement.frame_hw, (h, w), strict=True))
    whole = placement.to_frame(np.array([[0.0, 0.0, hw[1], hw[0]]]))
    np.testing.assert_allclose(whole, [[0, 0, w, h]], atol=1e-6)


def test_by_hand():
    # 800 / 480 = 1.667: 640 becomes 1066.67, cut to 1066; 1088 is the next multiple of 32
    placement = Placement.shorter((480, 640), (800, 1333))
    assert (placement.content_hw, placement.frame_hw) == ((800, 1066), (800, 1088))
    # 1333 / 2000 comes first
    assert Placement.shorter((2000, 500), (800, 1333)).content_hw == (1333, 333)


def test_one_side_is_the_shorter_one_and_the_limit_of_the_other_follows():
    usual = Preprocess((800, 1333), "shorter")
    assert usual.sized((400, 400)).frame_hw == (400, 666)  # 666.5
    assert usual.sized((400, 400)).placement((480, 640)).content_hw == (400, 533)
    assert usual.sized((400, 500)).frame_hw == (400, 500)
    assert Preprocess((320, 320)).sized((400, 400)).frame_hw == (400, 400)
