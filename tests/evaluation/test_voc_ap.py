"""Oracle: the development kit's rule, written down here plainly, loop by loop, with its pixels counted from 1."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet, Categories
from detseg.evaluation import evaluate_voc
from detseg.evaluation.voc import RECALLS, average_precisions

Pixels = tuple[float, float, float, float]


def kit_overlap(a: Pixels, b: Pixels) -> float:
    """Pixels counted from 1, the last one included: hence the + 1."""
    w = min(a[2], b[2]) - max(a[0], b[0]) + 1
    h = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if w <= 0 or h <= 0:
        return -math.inf
    area = (a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - w * h
    return w * h / area


def kit(
    truth: dict[str, list[tuple[Pixels, bool]]], found: list[tuple[str, float, Pixels]]
) -> tuple[list[float], list[float]]:
    """Recall and precision after each detection of one class, best first."""
    there = sum(not difficult for objects in truth.values() for _, difficult in objects)
    taken = {name: [False] * len(objects) for name, objects in truth.items()}
    right = wrong = 0
    recall, precision = [], []
    for name, _, box in sorted(found, key=lambda f: -f[1]):
        best, at = -math.inf, -1
        for j, (other, _) in enumerate(truth[name]):
            if kit_overlap(box, other) > best:
                best, at = kit_overlap(box, other), j
        if best >= 0.5:
            if not truth[name][at][1]:
                if taken[name][at]:
                    wrong += 1
                else:
                    right, taken[name][at] = right + 1, True
        else:
            wrong += 1
        recall.append(right / there)
        precision.append(right / (right + wrong) if right + wrong else 0.0)
    return recall, precision


def kit_ap07(recall: list[float], precision: list[float]) -> float:
    points = [k * 0.1 for k in range(5)] + [0.5] + [1 - k * 0.1 for k in range(4, -1, -1)]
    return sum(max([p for r, p in zip(recall, precision, strict=True) if r >= t], default=0.0) for t in points) / 11


def kit_ap10(recall: list[float], precision: list[float]) -> float:
    r, p = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in range(len(p) - 2, -1, -1):
        p[i] = max(p[i], p[i + 1])
    return sum((r[i + 1] - r[i]) * p[i + 1] for i in range(len(r) - 1))


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32), pictures=st.integers(1, 6), classes=st.integers(1, 3),
    objects=st.integers(0, 15), found=st.integers(0, 60), ties=st.booleans(),
)  # fmt: skip
def test_random_worlds(seed: int, pictures: int, classes: int, objects: int, found: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)

    def whole_pixels(count: int) -> NDArray[np.float64]:
        first = rng.integers(1, 12, (count, 2))
        return np.concatenate([first, first + rng.integers(0, 8, (count, 2))], axis=1).astype(float)

    theirs, ours = whole_pixels(objects), whole_pixels(found)
    where, label = rng.integers(0, pictures, objects), rng.integers(0, classes, objects)
    difficult, crowd = rng.random(objects) < 0.2, rng.random(objects) < 0.1
    picture, guess = rng.integers(0, pictures, found), rng.integers(0, classes, found)
    if objects and found:
        near = rng.integers(0, objects, found)
        close = rng.random(found) < 0.6
        ours[close], picture[close], guess[close] = theirs[near[close]], where[near[close]], label[near[close]]
        ours[close, 2] += rng.integers(0, 4, close.sum())
    scores = rng.choice([0.2, 0.5, 0.9], found) if ties else rng.random(found)
    truth = AnnotationSet.from_columns(
        root=Path(),
        format="voc",
        categories=Categories(tuple(range(1, classes + 1)), tuple("abc"[:classes])),
        image_files=[f"{i}.jpg" for i in range(pictures)],
        image_hw=np.tile([40, 40], (pictures, 1)),
        image_index=where,
        boxes=theirs - [1, 1, 0, 0],
        labels=label,
        crowd=crowd,
        difficult=difficult,
    )
    corners = ours - [1, 1, 0, 0]
    rows = np.column_stack([picture, corners[:, :2], corners[:, 2:] - corners[:, :2], scores, guess])
    metrics = evaluate_voc(truth, rows)
    aps = []
    for k, entry in enumerate(metrics.per_class):
        known = {
            str(i): [
                (tuple(theirs[j]), bool(difficult[j] | crowd[j])) for j in np.flatnonzero((where == i) & (label == k))
            ]
            for i in range(pictures)
        }
        mine = [(str(picture[j]), scores[j], tuple(ours[j])) for j in np.flatnonzero(guess == k)]
        if not entry.objects:
            assert (entry.ap07, entry.ap10) == (-1, -1)
            continue
        curve = kit(known, mine)
        aps.append((kit_ap07(*curve), kit_ap10(*curve)))
        assert (entry.ap07, entry.ap10) == pytest.approx(aps[-1], abs=1e-12)
    expected = np.mean(aps, axis=0) if aps else (-1, -1)
    assert (metrics.map07, metrics.map10) == pytest.approx(expected, abs=1e-12)


def test_by_hand() -> None:
    """Right, wrong, right of four objects: precision 1, 1/2, 2/3 at recall 1/4, 1/4, 1/2."""
    eleven, area = average_precisions(np.array([True, False, True]), np.array([False, True, False]), 4)
    assert eleven == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)  # at 0, .1, .2, then at .3, .4, .5
    assert area == pytest.approx(1 / 4 * 1 + 1 / 4 * 2 / 3)
    assert average_precisions(np.zeros(0, bool), np.zeros(0, bool), 4) == (0, 0)


def test_the_points_of_recall_are_those_of_matlab() -> None:
    assert pytest.approx(np.arange(11) / 10) == RECALLS
    # three of ten objects found is a recall below the fourth point, seven of ten is not below the eighth
    assert RECALLS[3] > 3 / 10
    assert RECALLS[7] <= 7 / 10
