"""Oracle: torchvision's `paste_masks_in_image`, cut at one half; and masks that can be told without computing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torchvision.models.detection.roi_heads import paste_masks_in_image

from detseg.postprocess import restore
from detseg.postprocess.paste import paste
from detseg.preprocess import Placement


def blobs(rng: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Masks as networks give them: sure in places, vague between."""
    noise = rng.random((count, side, side)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(one, (0, 0), max(1, side / 10)) for one in noise])
    return np.clip((smooth - smooth.mean()) * 5 + 0.5, 0, 1).astype(np.float32)


@pytest.mark.parametrize(
    ("hw", "side", "sizes"),
    [
        ((120, 160), 28, (1, 80)),
        ((60, 50), 14, (0.1, 4)),  # less than a pixel
        ((50, 60), 28, (60, 400)),  # larger than the picture
        ((40, 40), 7, (1, 40)),
        ((1, 90), 28, (5, 60)),
        ((30, 30), 1, (5, 20)),
    ],
)
def test_equals_torchvision(hw, side, sizes):
    rng = np.random.default_rng(side + hw[0])
    centres = rng.uniform(0, hw[::-1], (60, 2))
    half = rng.uniform(*sizes, (60, 2)) / 2
    boxes = np.concatenate([centres - half, centres + half], axis=1).astype(np.float32)
    masks = blobs(rng, len(boxes), side)
    expected = paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), hw)[:, 0].numpy()
    found = paste(masks, boxes, hw)
    for row, sure in enumerate(expected):
        differ = found.mask(row) != (sure > 0.5)
        assert not (differ & (np.abs(sure - 0.5) > 1e-5)).any()
    assert (expected > 0.5).any()


def test_what_touches_every_edge_of_the_picture_is_one_run():
    found = paste(np.ones((1, 28, 28)), np.float32([[-50, -50, 90, 90]]), (30, 40))
    assert found.mask(0).all()
    assert found.counts[0] == paste(np.ones((1, 5, 5)), np.float32([[-9, -9, 60, 60]]), (30, 40)).counts[0]
    assert len(found.counts[0]) < 6


def test_beside_the_picture_and_absurdly_large():
    boxes = np.float32([[50, 5, 60, 10], [-30, -30, -20, -10], [-3e38, -3e38, 3e38, 3e38], [-1e9, -1e9, 1e9, 1e9]])
    found = paste(np.ones((4, 28, 28), np.float32), boxes, (30, 40))
    assert found.areas().tolist()[:2] == [0, 0]
    assert found.mask(3).all()
    assert len(paste(np.zeros((0, 28, 28)), np.zeros((0, 4)), (30, 40))) == 0


def test_a_mask_is_laid_into_its_box_before_that_is_cut_to_the_picture():
    """The box reaches 20 px beyond the picture's left; the mask's right half is sure."""
    mask = np.zeros((1, 20, 20), np.float32)
    mask[:, :, 10:] = 1
    placement = Placement.letterbox((100, 100), (50, 50))
    found = restore(np.float32([[-10, 10, 30, 30]]), [0.9], [0], placement, masks=mask)
    assert found.boxes.tolist() == [[0, 20, 60, 60]]
    columns = np.flatnonzero(found.masks.mask(0)[40])
    assert abs(columns[0] - 20) <= 1
    assert abs(columns[-1] - 59) <= 1


def test_boxes_that_are_dropped_take_their_masks_with_them():
    masks = np.stack([np.ones((8, 8)), np.zeros((8, 8)), np.ones((8, 8))]).astype(np.float32)
    placement = Placement.letterbox((40, 100), (100, 100))
    boxes = np.float32([[10, 0, 30, 20], [10, 40, 30, 60], [40, 40, 60, 60]])  # the first lies in the border
    found = restore(boxes, [0.9, 0.8, 0.7], [0, 1, 2], placement, masks=masks)
    assert found.labels.tolist() == [1, 2]
    assert [area > 0 for area in found.masks.areas().tolist()] == [False, True]
