"""Oracle: torchvision's Matcher, BoxCoder, DefaultBoxGenerator and box_iou; SSD's own mining done by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.models.detection import _utils as theirs
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from detseg.parts.box_coder import BoxCoder
from detseg.parts.default_boxes import default_boxes, shapes_of, spread_scales
from detseg.parts.hard_negatives import hard_negatives
from detseg.parts.matcher import BACKGROUND, UNDECIDED, Matcher
from detseg.parts.norms import BatchNorm
from detseg.parts.overlaps import inside_any, iou


def some_boxes(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand((n, 2), generator=generator) * 90
    return torch.cat([corners, corners + torch.rand((n, 2), generator=generator) * 60 + 1], dim=1)


# overlaps


def test_overlaps_are_torchvisions_and_empty_boxes_overlap_nothing():
    a, b = some_boxes(20, 0), some_boxes(30, 1)
    torch.testing.assert_close(iou(a, b), box_iou(a, b))
    point = torch.tensor([[5.0, 5, 5, 5]])
    assert iou(point, point).item() == 0
    assert iou(a[:0], b).shape == (0, 30)


def test_a_small_box_inside_a_large_region_is_inside_though_their_iou_is_tiny():
    boxes = torch.tensor([[10.0, 10, 20, 20], [-6, 0, 4, 10], [-4, 0, 6, 10], [0, 0, 300, 300]])
    assert inside_any(boxes, torch.tensor([[0.0, 0, 100, 100]])).tolist() == [True, False, True, False]
    assert inside_any(boxes, torch.zeros(0, 4)).tolist() == [False] * 4


# matcher


@pytest.mark.parametrize(("high", "low"), [(0.5, 0.5), (0.7, 0.3)])
@pytest.mark.parametrize("forced", ["no", "best", "ties"])
def test_matches_are_torchvisions(high, low, forced):
    for seed in range(20):
        overlaps = box_iou(some_boxes(6, seed), some_boxes(80, seed + 100))
        expected = theirs.Matcher(high, low, allow_low_quality_matches=forced == "ties")(overlaps.clone())
        if forced == "best":  # as torchvision's SSDMatcher adds to the plain one
            best = overlaps.max(dim=1).indices
            expected[best] = torch.arange(len(best))
        assert torch.equal(Matcher(high, low, forced)(overlaps), expected)


def test_thresholds_by_hand():
    overlaps = torch.tensor([[0.69, 0.7, 0.1, 0.3, 0.0], [0.2, 0.1, 0.29, 0.25, 0.0]])
    assert Matcher(0.7, 0.3)(overlaps).tolist() == [UNDECIDED, 0, BACKGROUND, UNDECIDED, BACKGROUND]
    assert Matcher(0.7, 0.3, "best")(overlaps).tolist() == [UNDECIDED, 0, 1, UNDECIDED, BACKGROUND]
    # case (i) of Faster R-CNN: prior 2 is truth 1's best, and is nearest to truth 1
    assert Matcher(0.7, 0.3, "ties")(overlaps).tolist() == [UNDECIDED, 0, 1, UNDECIDED, BACKGROUND]


def test_of_two_truths_with_one_best_prior_the_later_gets_it():
    overlaps = torch.tensor([[0.1, 0.9], [0.2, 0.6]])
    assert Matcher(0.5, 0.5, "best")(overlaps).tolist() == [BACKGROUND, 1]


def test_without_truth_all_is_background_and_thresholds_have_an_order():
    assert Matcher(forced="best")(torch.zeros(0, 3)).tolist() == [BACKGROUND] * 3
    assert Matcher()(torch.zeros(2, 0)).shape == (0,)
    with pytest.raises(ValueError, match="low must not be above high"):
        Matcher(0.3, 0.7)


# box coder


def test_deltas_are_torchvisions_and_come_back():
    boxes, references = some_boxes(40, 2), some_boxes(40, 3)
    for weights in ((1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)):
        coder, oracle = BoxCoder(weights), theirs.BoxCoder(weights)
        deltas = coder.encode(boxes, references)
        torch.testing.assert_close(deltas, oracle.encode_single(boxes, references))
        torch.testing.assert_close(coder.decode(deltas, references), boxes, atol=1e-4, rtol=1e-5)
        wild = torch.randn(40, 4, generator=torch.Generator().manual_seed(4)) * 30
        torch.testing.assert_close(coder.decode(wild, references), oracle.decode_single(wild, references))


def test_a_delta_by_hand():
    # from a 20 x 10 box around (30, 25) to a 40 x 10 one around (35, 25): a quarter of its width, twice as wide
    reference, box = torch.tensor([[20.0, 20, 40, 30]]), torch.tensor([[15.0, 20, 55, 30]])
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    torch.testing.assert_close(coder.encode(box, reference), torch.tensor([[2.5, 0, 5 * math.log(2), 0]]))


# default boxes


@pytest.mark.parametrize("steps", [None, (8, 16, 100)])
def test_default_boxes_are_torchvisions(steps):
    ratios, scales, grids = ((2,), (2, 3), (2,)), (0.1, 0.35, 0.8, 1.05), [(5, 7), (3, 4), (1, 2)]
    oracle = DefaultBoxGenerator([list(r) for r in ratios], scales=list(scales), steps=steps and list(steps))
    images = ImageList(torch.zeros(1, 3, 120, 200), [(120, 200)])
    expected = oracle(images, [torch.zeros(1, 1, *grid) for grid in grids])[0]
    found = default_boxes(shapes_of(scales, ratios), grids, (120, 200), steps)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_scales_and_shapes_of_the_paper():
    assert spread_scales(0.2, 0.9, 6) == pytest.approx((0.2, 0.34, 0.48, 0.62, 0.76, 0.9, 1.0))
    assert spread_scales(0.2, 0.9, 1) == (0.2, 1.0)
    ((square, between, wide, tall),) = shapes_of((0.2, 0.8), ((2,),))
    assert square == (0.2, 0.2)
    assert between == pytest.approx((0.4, 0.4))
    assert wide == pytest.approx((0.2 * 2**0.5, 0.2 / 2**0.5))
    assert tall == wide[::-1]
    with pytest.raises(ValueError, match="2 maps need 3 scales, got 2"):
        shapes_of((0.2, 0.8), ((2,), (2,)))


def test_a_cell_without_shapes_and_one_by_hand():
    boxes = default_boxes(((), ((0.5, 0.25),)), [(4, 4), (1, 2)], (80, 100))
    assert boxes.tolist() == [[0, 30, 50, 50], [50, 30, 100, 50]]


# hard negatives


def test_three_negatives_for_each_positive_the_hardest_first():
    loss = torch.tensor([[9.0, 1, 8, 2, 7, 3, 6, 4], [5.0, 5, 5, 5, 5, 5, 5, 5]])
    positive = torch.zeros(2, 8, dtype=torch.bool)
    positive[0, 0] = True
    excluded = torch.zeros(2, 8, dtype=torch.bool)
    excluded[0, 2] = True
    learnt = hard_negatives(loss, positive, excluded)
    assert learnt[0].nonzero().flatten().tolist() == [4, 6, 7]  # 7, 6, 4: not the positive 9, not the excluded 8
    assert not learnt[1].any()  # a picture without objects teaches nothing
    positive[0, 3:] = True  # 18 wanted, one left
    assert hard_negatives(loss, positive, excluded)[0].nonzero().flatten().tolist() == [1]


# batch norm


def test_one_value_is_normalised_by_what_was_seen_before_and_more_as_ever():
    norm, usual = BatchNorm(3), torch.nn.BatchNorm2d(3)
    norm.running_mean.fill_(2.0)
    torch.testing.assert_close(
        norm.train()(torch.full((1, 3, 1, 1), 5.0)).flatten(), torch.full((3,), 3.0), rtol=1e-4, atol=0
    )
    assert norm.running_mean.tolist() == [2.0] * 3
    x = torch.randn(2, 3, 1, 1)
    torch.testing.assert_close(norm(x), usual.train()(x))
