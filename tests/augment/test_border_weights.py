"""The U-Net's weight map: the formula with every distance measured, and by hand; what is no object is none."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from detseg.augment.border_weights import border_weights
from detseg.parts.label_maps import IGNORE


def cells(count: int, hw: tuple[int, int], seed: int, radius: tuple[int, int] = (4, 11)) -> NDArray[np.uint8]:
    """Filled ellipses of classes 1 and 2 that may touch and overlap."""
    random = np.random.default_rng(seed)
    labels = np.zeros(hw, np.uint8)
    for _ in range(count):
        centre = (int(random.integers(0, hw[1])), int(random.integers(0, hw[0])))
        axes = (int(random.integers(*radius)), int(random.integers(*radius)))
        cv2.ellipse(labels, centre, axes, float(random.integers(0, 180)), 0, 360, int(random.integers(1, 3)), -1)
    return labels


def by_formula(labels: NDArray[np.uint8], w0: float = 10.0, sigma: float = 5.0) -> NDArray[np.float64]:
    """Every distance from every pixel to every pixel of every object."""
    numbers, count = ndimage.label((labels != 0) & (labels != IGNORE))  # its neighbours are the four with an edge
    y, x = np.indices(labels.shape)
    distances = []
    for number in range(1, count + 1):
        at_y, at_x = np.nonzero(numbers == number)
        squared = (y[..., None] - at_y) ** 2 + (x[..., None] - at_x) ** 2
        distances.append(np.sqrt(squared.min(axis=-1)))
    d1, d2 = np.sort(distances, axis=0)[:2]
    return np.where(labels == 0, 1 + w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2)), 1.0)


@pytest.mark.parametrize(("w0", "sigma"), [(10.0, 5.0), (4.0, 2.0)])
def test_weights_are_those_of_the_formula(w0, sigma):
    labels = cells(9, (70, 90), seed=1, radius=(2, 9))
    labels[30:40, 5:12] = IGNORE
    found = border_weights(labels, w0=w0, sigma=sigma)
    assert found.dtype == np.float32
    assert found.max() > 1 + w0 / 4
    np.testing.assert_allclose(found, by_formula(labels, w0, sigma), atol=2e-5, rtol=0)


def test_a_gap_of_three_pixels_by_hand():
    """Two walls at columns 0 and 4: in the middle d1 = d2 = 2, beside the walls 1 and 3: the sum is 4 everywhere."""
    labels = np.zeros((5, 9), np.uint8)
    labels[:, 0] = labels[:, 4] = 1
    row = border_weights(labels)[2]
    between = 1 + 10 * math.exp(-(4**2) / 50)
    beyond = [1 + 10 * math.exp(-((d + d + 4) ** 2) / 50) for d in (1, 2, 3, 4)]
    np.testing.assert_allclose(row, [1, between, between, between, 1, *beyond], rtol=1e-6)


def test_a_slanted_line_of_background_keeps_two_cells_apart():
    labels = np.ones((12, 12), np.uint8)
    labels[np.arange(12), np.arange(12)] = 0
    assert border_weights(labels)[6, 6] == pytest.approx(1 + 10 * math.exp(-(2**2) / 50))


def test_one_object_has_no_second_nearest_and_what_is_ignored_is_none():
    labels = cells(1, (40, 40), seed=3)
    assert (border_weights(labels) == 1).all()
    labels[0:5, 0:5] = IGNORE
    assert (border_weights(labels) == 1).all()
    assert (border_weights(np.zeros((7, 5), np.uint8)) == 1).all()


def test_class_weights_are_added_below():
    labels = cells(6, (60, 60), seed=4)
    found = border_weights(labels, class_weights=(0.5, 2.0, 3.0))
    plain = border_weights(labels)
    np.testing.assert_allclose(found - plain, np.array([-0.5, 1.0, 2.0])[labels], atol=1e-6)


def test_another_class_may_be_the_background_and_the_map_stays_as_it_was():
    labels = cells(6, (60, 60), seed=5).clip(max=1)
    before = labels.copy()
    np.testing.assert_array_equal(border_weights(1 - labels, background=1), border_weights(labels))
    np.testing.assert_array_equal(labels, before)


def test_turning_the_map_turns_the_weights():
    labels = cells(8, (50, 70), seed=6)
    turned = border_weights(np.ascontiguousarray(np.rot90(labels)))
    np.testing.assert_allclose(np.rot90(turned, -1), border_weights(labels), atol=1e-5)
