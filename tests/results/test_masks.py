"""`Masks` refuse nonsense, go with their rows, and are the pixels that were put in (oracle: pycocotools, numpy)."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from detseg.results import Detections, Masks

PIXELS = np.random.default_rng(0).random((3, 30, 40)) < 0.3
MASKS = Masks.of(PIXELS, (30, 40))


def three(masks: Masks | None = MASKS) -> Detections:
    boxes = np.float32([[0, 0, 10, 10], [5, 5, 20, 15], [1, 2, 3, 4]])
    return Detections((30, 40), boxes, np.float32([0.3, 0.9, 0.5]), np.int64([2, 0, 1]), None, masks)


def test_masks_are_the_pixels_that_were_put_in():
    for row, pixels in enumerate(PIXELS):
        assert np.array_equal(MASKS.mask(row), pixels)
        assert np.array_equal(coco_mask.decode(MASKS.rle(row)), pixels)
        assert MASKS.segmentation(row) == {"size": [30, 40], "counts": MASKS.counts[row].decode()}
    assert MASKS.areas().tolist() == PIXELS.sum(axis=(1, 2)).tolist()
    assert Masks((30, 40)).areas().shape == (0,)


def test_masks_go_with_their_rows():
    found = three()
    order = [1, 2, 0]
    assert found.by_score().masks.counts == tuple(MASKS.counts[i] for i in order)
    assert found[found.scores > 0.4].masks.counts == MASKS.counts[1:]
    assert found[:1].masks.counts == MASKS.counts[:1]
    assert found.of_classes([0]).masks.counts == MASKS.counts[1:2]
    assert len(found[np.zeros(0, np.intp)].masks) == 0
    assert three(None).by_score().masks is None
    assert pickle.loads(pickle.dumps(found)).masks.counts == MASKS.counts


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (lambda: MASKS[:2], "a mask for each of 3"),
        (lambda: Masks.of(np.zeros((3, 40, 30), bool), (40, 30)), r"size \(30, 40\), got \(40, 30\)"),
        (lambda: Masks((30, 40), ("text",) * 3), "must be bytes"),
        (lambda: Masks((30, 40), (b"\x01",) * 3), "mask 0 cannot be used: .*character"),
        (lambda: Masks((30, 41), MASKS.counts), "mask 0 cannot be used: its run lengths cover 1200 pixels"),
        (lambda: Masks((30, 40), (b"", b"", b"")), "mask 0 cannot be used"),
    ],
)
def test_nonsense_is_refused_in_words(masks, message):
    with pytest.raises(ValueError, match=message):
        replace(three(None), masks=masks())
