"""Label maps check themselves, and count their pixels."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from detseg.results import LabelMap

LABELS = np.array([[0, 0, 2], [2, 2, 5]], np.uint8)


def test_areas_are_the_pixels_of_each_class():
    assert LabelMap(LABELS).areas(6).tolist() == [2, 0, 3, 0, 0, 1]
    assert LabelMap(LABELS).image_hw == (2, 3)
    with pytest.raises(ValueError, match="a label is 5, and there are 3 classes"):
        LabelMap(LABELS).areas(3)


def test_the_mask_of_a_class_is_pycocotools():
    wanted = coco_mask.encode(np.asfortranarray(LABELS == 2).astype(np.uint8))
    assert LabelMap(LABELS).mask(2)["counts"] == wanted["counts"]


@pytest.mark.parametrize("labels", [LABELS.astype(np.int64), LABELS[0], LABELS[None]])
def test_other_shapes_and_kinds_are_refused(labels):
    with pytest.raises(ValueError, match="labels must be uint8"):
        LabelMap(labels)
