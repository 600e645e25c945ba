"""How often pictures are shown. Oracle: LVIS's formula by hand, and counts over many epochs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet, Categories
from detseg.training.balance import ByClass, Draw, Once, Repeated, draw_of, effective_counts, repeat_factors
from detseg.training.config import TrainConfig
from detseg.training.data import EpochBatches

# eight pictures: all show class 0, two class 1, one class 2, none class 3; the last shows nothing
SHOWN = np.array(
    [[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]],
    np.bool_,
)


def seen(draw: Draw, epochs: int) -> NDArray[np.float64]:
    """How often each picture comes in an epoch, on average."""
    counts = np.zeros(len(draw.rates))
    for epoch in range(epochs):
        order = draw.order(np.random.default_rng(epoch))
        assert len(order) == draw.length
        counts += np.bincount(order, minlength=len(counts))
    return counts / epochs


def test_factors_by_hand():
    """Shares: 7/8, 2/8, 1/8. With 0.5 the second asks for sqrt(2), the third for 2."""
    expected = [1, 1, 1, 1, math.sqrt(2), math.sqrt(2), 2, 1]
    np.testing.assert_allclose(repeat_factors(SHOWN, 0.5), expected)


def test_the_usual_threshold_is_the_median_class():
    np.testing.assert_allclose(repeat_factors(SHOWN), [1, 1, 1, 1, 1, 1, math.sqrt(2), 1])
    np.testing.assert_allclose(repeat_factors(np.zeros((3, 2), np.bool_)), [1, 1, 1])


def test_an_epoch_shows_each_picture_as_often_as_its_factor_says():
    draw = Repeated(np.array([1, 1, 1.5, 2.25, 1]))
    for epoch in range(20):
        counts = np.bincount(draw.order(np.random.default_rng(epoch)), minlength=5)
        assert (np.abs(counts - draw.rates) < 1).all()
    assert draw.length == 7  # 6.75
    assert draw.rates.sum() == pytest.approx(draw.length)
    np.testing.assert_allclose(seen(draw, 2000), draw.rates, atol=0.04)


def test_classes_come_alike_and_their_pictures_too():
    draw = ByClass(SHOWN)
    order = draw.order(np.random.default_rng(0))
    assert len(order) == 8
    # four groups (class 0, 1, 2, nothing) of two draws each: the only picture of class 2 and the empty one twice
    np.testing.assert_allclose(draw.rates, [2 / 7, 2 / 7, 2 / 7, 2 / 7, 9 / 7, 9 / 7, 16 / 7, 2])
    np.testing.assert_allclose(seen(draw, 3000), draw.rates, atol=0.05)
    for epoch in range(10):
        counts = np.bincount(draw.order(np.random.default_rng(epoch)), minlength=8)
        assert counts[7] == 2
        assert counts[6] in (2, 3)
        assert counts[:7].sum() == 6


def test_every_picture_of_a_class_comes_before_one_comes_again():
    shown = np.zeros((6, 2), np.bool_)
    shown[:5, 0], shown[5, 1] = True, True
    draw = ByClass(np.repeat(shown, 2, axis=0))  # ten of the first class, two of the second: six draws of each
    counts = np.bincount(draw.order(np.random.default_rng(1)), minlength=12)
    assert counts[:10].max() == 1
    assert counts[10:].tolist() == [3, 3]


@pytest.mark.parametrize("draw", [Once(8), Repeated(repeat_factors(SHOWN, 0.5)), ByClass(SHOWN)])
def test_the_same_generator_draws_the_same(draw: Draw):
    first, again, other = (draw.order(np.random.default_rng(seed)).tolist() for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_all_once():
    draw = Once(50)
    assert sorted(draw.order(np.random.default_rng(0)).tolist()) == list(range(50))
    assert draw.rates.tolist() == [1] * 50


def truth_of(shown: NDArray[np.bool_]) -> AnnotationSet:
    """Pictures with two objects of each class that they show, and one that is ignored of the last class."""
    image, label = np.nonzero(np.repeat(shown, 2, axis=1))
    image, label = np.append(image, len(shown) - 1), np.append(label // 2, shown.shape[1] - 1)
    order = np.argsort(image, kind="stable")
    return AnnotationSet.from_columns(
        root=Path(),
        format="made",
        categories=Categories(tuple(range(shown.shape[1])), tuple("abcd"[: shown.shape[1]])),
        image_files=[f"{i}.jpg" for i in range(len(shown))],
        image_hw=np.tile([40, 40], (len(shown), 1)),
        image_index=image[order],
        boxes=np.tile([5.0, 5.0, 20.0, 20.0], (len(image), 1)),
        labels=label[order],
        crowd=(np.arange(len(image)) == len(image) - 1)[order],
    )


def test_what_an_epoch_shows_of_each_class_is_told():
    truth = truth_of(SHOWN)
    draw = draw_of("repeat", truth, 0.5)
    counts = effective_counts(draw, truth)
    assert [(c.name, c.pictures, c.objects) for c in counts] == [("a", 7, 14), ("b", 2, 4), ("c", 1, 2), ("d", 0, 0)]
    scale = draw.length / (5 + 2 + 2 * math.sqrt(2))
    np.testing.assert_allclose(
        [c.objects_shown for c in counts],
        [2 * scale * (4 + 2 + 2 * math.sqrt(2)), 4 * scale * math.sqrt(2), 4 * scale, 0],
    )


def test_batches_are_drawn_so_and_a_picture_that_comes_again_looks_different():
    truth = truth_of(SHOWN)
    config = TrainConfig(data="x", balance="classes", batch=4, mosaic=0, multi_scale=0)
    batches = EpochBatches(len(truth), config, draw=draw_of("classes", truth))
    for epoch in range(5):
        batches.epoch = epoch
        tickets = [ticket for batch in batches for ticket in batch]
        expected = batches.draw.order(np.random.default_rng([config.seed, epoch]))
        assert [ticket.picture for ticket in tickets] == expected.tolist()
        shown = [(ticket.picture, ticket.turn) for ticket in tickets]
        assert len(set(shown)) == len(shown)
        assert (7, 0) in shown
        assert (7, 1) in shown
