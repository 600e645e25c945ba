"""Hand-computed rates and averages."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from detseg.training.config import TrainConfig
from detseg.training.schedule import MovingAverage, cosine_factor, phase_of, phases, rate_factor


def test_warm_up_is_linear_then_half_a_cosine():
    factors = [cosine_factor(step, 20, 4, 0.1) for step in range(21)]
    assert factors[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert factors[4] == 1
    assert factors[12] == pytest.approx(0.55)  # half way: the mean of 1 and 0.1
    assert factors[20] == pytest.approx(0.1)
    assert factors[4:] == sorted(factors[4:], reverse=True)


def test_each_phase_has_a_warm_up_and_a_cosine_of_its_own():
    config = TrainConfig(data="x", epochs=5, finetune_at=2, finetune_lr=0.5, warmup_epochs=0.25, final_lr=0.1)
    factors = [rate_factor(config, step, 4) for step in range(20)]
    # the warm-up is one step; then half a cosine to a tenth over the other 7 steps of the first phase, 11 of the next
    assert factors[0] == pytest.approx(0.5)
    assert factors[1:8] == pytest.approx([0.1 + 0.45 * (1 + math.cos(math.pi * i / 7)) for i in range(7)])
    assert factors[8] == pytest.approx(0.25)
    assert factors[9:] == pytest.approx([0.05 + 0.225 * (1 + math.cos(math.pi * i / 11)) for i in range(11)])
    assert [phase_of(config, epoch).backbone_rests for epoch in range(5)] == [True, True, False, False, False]


def test_without_a_second_phase_the_rate_is_one_cosine():
    config = TrainConfig(data="x", epochs=5, finetune_lr=0.5)
    assert len(phases(config)) == 1
    assert [rate_factor(config, i, 4) for i in range(20)] == [cosine_factor(i, 20, 4, 0.01) for i in range(20)]
    assert not phase_of(config, 0).backbone_rests


def test_the_average_follows_its_formula():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    average = MovingAverage(model, decay=0.25)
    nn.init.constant_(model.weight, 1.0)
    average.update(model)  # old weight min(0.25, 2 / 11)
    assert float(average.state["weight"]) == pytest.approx(1 - 2 / 11)
    average.update(model)  # old weight min(0.25, 3 / 12)
    assert float(average.state["weight"]) == pytest.approx(1 - 2 / 11 * 0.25)


def test_whole_numbers_are_copied():
    model = nn.BatchNorm2d(2)
    average = MovingAverage(model, 0.9)
    model.num_batches_tracked += 7
    average.update(model)
    assert int(average.state["num_batches_tracked"]) == 7
    assert torch.equal(average.state["running_var"], torch.ones(2))
