"""Losses of label maps: arithmetic by hand, torch's and sklearn's own, gradients by differences, invariances."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.autograd import gradcheck

from detseg.parts.label_maps import IGNORE, LabelMaps
from detseg.parts.map_losses import Criterion, LossConfig, PixelCounts, class_weights, resolved

TERMS = ["cross_entropy", "focal", "dice", "generalised_dice", "jaccard", "tversky", "lovasz"]
REGIONS = TERMS[2:]


def of(terms: str, logits: Tensor, labels: Tensor, weights: Tensor | None = None, **settings) -> float:
    found = Criterion(LossConfig(terms, **settings))(logits, LabelMaps(labels, weights))
    return float(sum(found.values()))


def by_hand() -> tuple[Tensor, Tensor]:
    """One row of four pixels, two classes: probabilities of class 1 are 0.8, 0.5, 0.2, 0.9; the last is ignored."""
    p = torch.tensor([0.8, 0.5, 0.2, 0.9])
    return torch.stack([(1 - p).log(), p.log()]).reshape(1, 2, 1, 4), torch.tensor([[[1, 0, 0, IGNORE]]])


def random(classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 6, 7, generator=generator)
    labels = torch.randint(0, classes, (2, 6, 7), generator=generator)
    labels[0, 2:4, :3] = IGNORE
    return logits, labels


# What counts: pixel 1 is class 1 (p 0.8), pixels 2 and 3 are class 0 (p 0.5 and 0.8).
# Class 0: sum p = 0.2 + 0.5 + 0.8 = 1.5, sum p^2 = 0.04 + 0.25 + 0.64 = 0.93, truth 2, both 0.5 + 0.8 = 1.3.
# Class 1: sum p = 0.8 + 0.5 + 0.2 = 1.5, sum p^2 = 0.64 + 0.25 + 0.04 = 0.93, truth 1, both 0.8.
@pytest.mark.parametrize(
    ("terms", "wanted"),
    [
        ("cross_entropy", -(math.log(0.8) + math.log(0.5) + math.log(0.8)) / 3),
        ("focal", -(0.2**2 * math.log(0.8) * 2 + 0.5**2 * math.log(0.5)) / 3),
        ("dice", 1 - (2 * 1.3 / (0.93 + 2) + 2 * 0.8 / (0.93 + 1)) / 2),
        ("generalised_dice", 1 - 2 * (1.3 / 4 + 0.8) / ((1.5 + 2) / 4 + (1.5 + 1))),
        ("jaccard", 1 - (1.3 / (1.5 + 2 - 1.3) + 0.8 / (1.5 + 1 - 0.8)) / 2),
        ("tversky", 1 - (1.3 / (1.3 + 0.3 * 0.2 + 0.7 * 0.7) + 0.8 / (0.8 + 0.3 * 0.7 + 0.7 * 0.2)) / 2),
        # Errors of class 1, largest first: 0.5 (not the class), 0.2 (the class), 0.2 (not). Its IoU falls from 1 to
        # 1/2 with the first, to 0 with the second, and stays. Class 0: 0.5 (the class), 0.2 (not), 0.2 (the class):
        # 1 to 1/2, to 1/3, to 0. Pixels of one error may change places: 0.2 and 0.2 then share what both take.
        ("lovasz", ((0.5 * 0.5 + 0.2 * 0.5) + (0.5 * 0.5 + 0.2 * 0.5)) / 2),
        (
            "cross_entropy + 0.5*dice",
            -(2 * math.log(0.8) + math.log(0.5)) / 3 + 0.5 * (1 - (2 * 1.3 / 2.93 + 2 * 0.8 / 1.93) / 2),
        ),
    ],
)
def test_by_hand(terms, wanted):
    assert of(terms, *by_hand()) == pytest.approx(wanted, abs=1e-6)


def test_tversky_of_equal_shares_is_dice_without_squares_and_of_ones_is_jaccard():
    logits, labels = random()
    ones = of("tversky", logits, labels, too_much=1.0, missed=1.0)
    assert ones == pytest.approx(of("jaccard", logits, labels), abs=1e-6)
    p, halves = logits.softmax(dim=1), of("tversky", logits, labels, too_much=0.5, missed=0.5)
    counted = labels != IGNORE
    scores = []
    for c in range(4):
        true, soft = ((labels == c) & counted).float(), p[:, c] * counted
        scores.append(2 * (soft * true).sum() / (soft.sum() + true.sum()))
    assert halves == pytest.approx(1 - float(torch.stack(scores).mean()), abs=1e-6)


def test_lovasz_of_hard_answers_is_the_mean_of_1_minus_iou():
    _, labels = random()
    answers = torch.randint(0, 4, labels.shape, generator=torch.Generator().manual_seed(1))
    logits = 200.0 * F.one_hot(answers, 4).movedim(-1, 1).float()
    counted = (labels != IGNORE).numpy()
    ious = []
    for c in range(4):
        found, true = (x.numpy()[counted] == c for x in (answers, labels))
        ious.append((found & true).sum() / (found | true).sum())
    assert of("lovasz", logits, labels) == pytest.approx(1 - np.mean(ious), abs=1e-5)


@pytest.mark.parametrize("weights", [(), (0.5, 2.0, 1.0, 0.0)])
def test_cross_entropy_is_torchs(weights):
    logits, labels = random()
    theirs = torch.nn.CrossEntropyLoss(torch.tensor(weights) if weights else None, ignore_index=IGNORE)
    mine, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    found = Criterion(LossConfig(class_weights=weights))(mine, LabelMaps(labels))["cross_entropy"]
    wanted = theirs(other, labels)
    torch.testing.assert_close(found, wanted)
    found.backward(), wanted.backward()
    torch.testing.assert_close(mine.grad, other.grad)


def test_focal_without_gamma_is_the_cross_entropy_of_the_same_weights():
    logits, labels = random()
    given = torch.rand(labels.shape, generator=torch.Generator().manual_seed(3))
    settings = {"class_weights": (0.5, 2.0, 1.0, 3.0), "weights": given}
    assert of("focal", logits, labels, gamma=0.0, **settings) == pytest.approx(
        of("cross_entropy", logits, labels, **settings), abs=1e-6
    )


@pytest.mark.parametrize("terms", ["cross_entropy", "focal"])
def test_a_pixel_of_weight_two_counts_as_two_pixels(terms):
    logits, labels = random()
    weights = torch.ones(labels.shape)
    weights[:, 0], weights[:, 1] = 2.0, 0.0
    rows = [0, 0, 2, 3, 4, 5]
    assert of(terms, logits, labels, weights) == pytest.approx(of(terms, logits[:, :, rows], labels[:, rows]), abs=1e-6)


@pytest.mark.parametrize("terms", TERMS)
def test_gradients_are_those_of_differences(terms):
    logits, labels = random(3)
    logits, truth = logits[:, :, :3, :3].double().requires_grad_(), LabelMaps(labels[:, :3, :3])
    config = LossConfig(terms, class_weights=(0.5, 1.0, 2.0))
    assert gradcheck(lambda x: Criterion(config)(x, truth)[terms], logits)


@pytest.mark.parametrize("terms", TERMS)
def test_what_is_right_costs_nothing_and_what_is_wrong_costs(terms):
    _, labels = random()
    shown = labels.where(labels != IGNORE, 0)
    right = 50.0 * F.one_hot(shown, 4).movedim(-1, 1).float()
    assert of(terms, right, labels) == pytest.approx(0, abs=1e-5)
    assert of(terms, right.roll(1, dims=1), labels) > 0.99


@pytest.mark.parametrize("terms", TERMS)
def test_the_order_of_pixels_and_what_is_ignored_do_not_matter(terms):
    logits, labels = random()
    wanted = of(terms, logits, labels)
    order = torch.randperm(labels.numel() // 2, generator=torch.Generator().manual_seed(2))
    moved = logits.flatten(2)[:, :, order].view_as(logits), labels.flatten(1)[:, order].view_as(labels)
    assert of(terms, *moved) == pytest.approx(wanted, abs=1e-6)
    noise = torch.where((labels == IGNORE)[:, None], 9 * torch.randn_like(logits), logits)
    assert not torch.equal(noise, logits)
    assert of(terms, noise, labels) == pytest.approx(wanted, abs=1e-6)
    ignored = logits.clone().requires_grad_()
    sum(Criterion(LossConfig(terms))(ignored, LabelMaps(labels)).values()).backward()
    assert ignored.grad.movedim(1, -1)[labels == IGNORE].abs().max() == 0
    assert (ignored.grad.movedim(1, -1)[labels != IGNORE].abs().sum(dim=-1) > 0).all()


@pytest.mark.parametrize("terms", REGIONS)
def test_a_class_that_the_batch_does_not_show_is_left_out(terms):
    """Its score would be 0 however little of it is found, and the loss never fall to 0."""
    logits, labels = random(3)
    labels = labels.clamp(max=1).where(labels != IGNORE, IGNORE)
    without = torch.cat([logits[:, :2], torch.full_like(logits[:, :1], -200.0)], dim=1)
    assert of(terms, without, labels) == pytest.approx(of(terms, logits[:, :2], labels), abs=1e-6)


@pytest.mark.parametrize("terms", TERMS)
def test_without_a_pixel_that_counts_the_loss_is_0_with_gradients(terms):
    logits, labels = random()
    logits.requires_grad_()
    truth = LabelMaps(torch.full_like(labels, IGNORE), torch.ones(labels.shape))
    loss = sum(Criterion(LossConfig(terms, class_weights=(1.0, 2.0, 3.0, 4.0)))(logits, truth).values())
    assert loss.item() == 0
    loss.backward()
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("terms", TERMS)
def test_pixels_that_all_have_the_weight_0_give_finite_numbers(terms):
    logits, labels = random()
    logits.requires_grad_()
    truth = LabelMaps(labels, torch.zeros(labels.shape))
    sum(Criterion(LossConfig(terms, class_weights=(0.0,) * 4))(logits, truth).values()).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("terms", TERMS)
def test_wild_logits_give_finite_numbers(terms):
    logits, labels = random()
    logits = (1e4 * logits).requires_grad_()
    loss = sum(Criterion(LossConfig(terms, gamma=0.5))(logits, LabelMaps(labels)).values())
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


# two pictures of 100 pixels, one of 60 where 40 are ignored: class 0 in all, 1 in the second, 2 in the third, 3 nowhere
COUNTS = PixelCounts(np.array([200, 40, 20, 0]), np.array([260, 100, 60, 0]))


def test_median_frequency_weights_by_hand():
    """freq: 200/260 = 0.76923, 40/100 = 0.4, 20/60 = 0.33333; their median 0.4."""
    assert class_weights("median", COUNTS) == pytest.approx((0.52, 1.0, 1.2, 1.0))


def test_inverse_weights_are_sklearns_balanced_ones():
    labels = np.repeat([0, 1, 2], [200, 40, 20])
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert class_weights("inverse", COUNTS) == pytest.approx((*wanted, 1.0), rel=1e-5)


def test_effective_numbers_by_hand():
    """beta 0.9 and 1, 2 and 50 pixels: E = 1, 1 + 0.9, sum of 0.9^i up to i = 49; weights 1 / E, their mean 1."""
    counts = PixelCounts(np.array([1, 2, 50]), np.array([100, 100, 100]))
    inverse = [1.0, 1 / 1.9, 1 / sum(0.9**i for i in range(50))]
    wanted = [3 * x / sum(inverse) for x in inverse]
    assert class_weights("effective", counts, 0.9) == pytest.approx(wanted, rel=1e-5)
    assert class_weights("effective", counts, 0.0) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("weighting", ["none", "median", "inverse", "effective"])
def test_a_class_that_never_occurs_counts_1_and_so_does_each_of_an_empty_set(weighting):
    assert class_weights(weighting, COUNTS)[3] == 1
    assert class_weights(weighting, PixelCounts(np.zeros(2, np.int64), np.zeros(2, np.int64))) == (1.0, 1.0)


def test_resolving_counts_only_where_weights_are_wanted():
    def counted() -> PixelCounts:
        calls.append(1)
        return COUNTS

    calls: list[int] = []
    plain, wanted = LossConfig("dice"), LossConfig("dice", weighting="median")
    given = replace(wanted, class_weights=(1.0, 2.0))
    assert [resolved(config, counted) for config in (plain, given)] == [plain, given]
    assert resolved(wanted, None) == wanted
    assert not calls
    assert resolved(wanted, counted) == replace(wanted, class_weights=(0.52, 1.0, 1.2, 1.0))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"terms": "dise"}, "there is no loss dise; there are: cross_entropy, focal, dice"),
        ({"terms": "dice+"}, "no loss"),
        ({"terms": "x*dice"}, "neither NAME nor NUMBER"),
        ({"terms": "0*dice"}, "above 0"),
        ({"terms": "nan*dice"}, "above 0"),
        ({"terms": "dice+2*dice"}, "each loss once"),
        ({"class_weights": (1.0, -1.0)}, "at least 0"),
        ({"gamma": -1.0}, "gamma"),
        ({"effective_beta": 1.0}, "effective_beta"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        LossConfig(**settings)


def test_weights_for_other_classes_are_refused():
    logits, labels = random()
    with pytest.raises(ValueError, match="2 class weights for 4 classes"):
        Criterion(LossConfig(class_weights=(1.0, 2.0)))(logits, LabelMaps(labels))
