"""`Detections` refuse nonsense and keep their rows together."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from detseg.results import Detections

BOXES = np.array([[0, 0, 10, 10], [5, 5, 20, 15], [1, 2, 3, 4]], np.float32)
SCORES = np.array([0.3, 0.9, 0.9], np.float32)
LABELS = np.array([2, 0, 1], np.int64)


def three() -> Detections:
    return Detections((30, 40), BOXES, SCORES, LABELS, Path("a.jpg"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": BOXES.astype(np.float64)}, "boxes must be float32"),
        ({"boxes": BOXES[:, :3]}, "of shape"),
        ({"boxes": BOXES[:2]}, "scores must be float32 of shape"),
        ({"boxes": np.where(BOXES == 20, np.nan, BOXES)}, "finite"),
        ({"boxes": np.where(BOXES == 20, np.inf, BOXES)}, "finite"),
        ({"scores": SCORES[:2]}, "scores must be"),
        ({"scores": SCORES.astype(np.float16)}, "scores must be float32"),
        ({"scores": SCORES[:, None]}, "scores must be"),
        ({"scores": SCORES * 2}, r"\[0, 1\]"),
        ({"scores": -SCORES}, r"\[0, 1\]"),
        ({"scores": np.where(SCORES > 0.5, np.nan, SCORES)}, r"\[0, 1\]"),
        ({"labels": LABELS.astype(np.int32)}, "labels must be int64"),
        ({"labels": LABELS - 1}, "class indices >= 0"),
    ],
)
def test_nonsense_is_refused_in_words(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(three(), **change)


def test_nothing_found_is_empty_arrays_of_the_right_kind():
    none = Detections((30, 40))
    assert len(none) == 0
    assert list(none) == []
    assert (none.boxes.shape, none.boxes.dtype) == ((0, 4), np.float32)
    assert (none.scores.shape, none.scores.dtype) == ((0,), np.float32)
    assert (none.labels.shape, none.labels.dtype) == ((0,), np.int64)
    assert len(none.by_score()) == len(none.of_classes([0])) == 0
    assert len(three()[np.zeros(3, bool)]) == 0


def test_rows_stay_together():
    found = three()
    for chosen in (found[np.array([2, 0])], found[np.array([True, False, True])][::-1]):
        assert [(box.tolist(), round(score, 5), label) for box, score, label in chosen] == [
            ([1, 2, 3, 4], 0.9, 1),
            ([0, 0, 10, 10], 0.3, 2),
        ]
        assert (chosen.image_hw, chosen.path) == ((30, 40), Path("a.jpg"))
    assert found.of_classes([1, 2]).labels.tolist() == [2, 1]


def test_best_first_and_equals_in_their_order():
    found = three()
    assert found.by_score().labels.tolist() == [0, 1, 2]
    assert found.labels.tolist() == [2, 0, 1]


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        three().scores = SCORES  # type: ignore[misc]
