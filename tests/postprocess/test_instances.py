"""Objects cut out of label maps. Oracle: drawn shapes, whose number, borders and areas are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from detseg.postprocess.instances import Watershed, cut, instances
from detseg.results import Detections, LabelMap


def discs(*circles: tuple[int, int, int], hw: tuple[int, int] = (80, 140)) -> NDArray[np.bool_]:
    """Discs (x, y, radius)."""
    yy, xx = np.mgrid[: hw[0], : hw[1]]
    return np.any([(xx - x) ** 2 + (yy - y) ** 2 <= r * r for x, y, r in circles], axis=0)


def found_in(region: NDArray[np.bool_], watershed: Watershed | None = None) -> Detections:
    return instances(LabelMap(region.astype(np.uint8)), [1], watershed)


def test_two_discs_that_overlap_are_cut_half_way_between():
    region = discs((45, 40, 25), (85, 40, 25))
    numbers = cut(region, Watershed())
    assert numbers.max() == 2
    assert not numbers[~region].any()
    assert (numbers[region] > 0).all()
    left = numbers == numbers[40, 45]
    np.testing.assert_array_equal(left[:, :64], region[:, :64])
    np.testing.assert_array_equal(left[:, 67:], np.zeros_like(left[:, 67:]))


def test_each_mask_and_box_is_its_objects_own():
    circles = [(20, 20, 12), (60, 50, 20), (110, 30, 8)]
    found = found_in(discs(*circles))
    assert len(found) == 3
    assert found.masks is not None
    for x, y, r in circles:
        box = np.array([x - r, y - r, x + r + 1, y + r + 1], np.float32)
        row = int(np.flatnonzero((found.boxes == box).all(axis=1))[0])
        np.testing.assert_array_equal(found.masks.mask(row), discs((x, y, r)))


@pytest.mark.parametrize("length", [10, 40, 90])
def test_a_long_object_stays_whole(length: int):
    canvas = np.zeros((80, 140), np.uint8)
    cv2.line(canvas, (20, 30), (20 + length, 45), 1, 15)
    assert cut(canvas > 0, Watershed()).max() == 1


def test_depth_is_how_far_a_neck_goes_in():
    region = discs((45, 40, 20), (70, 40, 20))  # 20.5 in the middles, 17 in the neck
    assert cut(region, Watershed(depth=3, smoothing=0)).max() == 2
    assert cut(region, Watershed(depth=4, smoothing=0)).max() == 1


def test_thin_and_tiny_parts_are_objects_of_their_own():
    region = discs((30, 40, 20))
    region[10, 100:120] = True  # nowhere as high as `depth`
    assert cut(region, Watershed(depth=2)).max() == 2
    assert len(found_in(region, Watershed(min_area=20))) == 2
    assert len(found_in(region, Watershed(min_area=21))) == 1


def test_classes_are_cut_by_themselves_and_others_are_left():
    labels = np.zeros((80, 140), np.uint8)
    labels[discs((45, 40, 25))] = 1
    labels[discs((85, 40, 25))] = 2
    labels[:5] = 3
    found = instances(LabelMap(labels), [1, 2])
    assert sorted(found.labels.tolist()) == [1, 2]
    assert found.masks is not None
    for label in (1, 2):
        row = found.labels.tolist().index(label)
        np.testing.assert_array_equal(found.masks.mask(row), labels == label)


def test_scores_are_the_mean_over_the_object_best_first():
    region = discs((30, 40, 15), (100, 40, 15))
    shares = np.where(np.arange(140) < 65, 0.6, 0.9).astype(np.float32) * np.ones((80, 1), np.float32)
    shares[:, :30] = 0.5  # the left half of the first: 15 columns and the middle one at 0.6
    found = instances(LabelMap(region.astype(np.uint8), shares=shares), [1])
    first = discs((30, 40, 15))
    np.testing.assert_allclose(found.scores, [0.9, shares[first].mean()], rtol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_masks_are_disjoint_and_fill_the_class(seed: int):
    rng = np.random.default_rng(seed)
    region = cv2.GaussianBlur(rng.random((90, 120)), (0, 0), 3) > 0.5
    found = found_in(region, Watershed(min_area=1))
    assert found.masks is not None
    covered = np.sum([found.masks.mask(row) for row in range(len(found))], axis=0)
    np.testing.assert_array_equal(covered, region.astype(int))
    assert len(found) >= cv2.connectedComponents(region.astype(np.uint8), connectivity=8)[0] - 1


def test_nothing_is_found_where_there_is_nothing():
    found = found_in(np.zeros((20, 30), np.bool_))
    assert len(found) == 0
    assert found.masks is not None
    assert found.image_hw == (20, 30)


@pytest.mark.parametrize("wrong", [{"depth": 0}, {"smoothing": -1}, {"min_area": 0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(ValueError, match="depth must be above 0"):
        Watershed(**wrong)  # type: ignore[arg-type]
