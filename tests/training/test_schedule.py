"""Hand-computed rates and averages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detseg.training.schedule import MovingAverage, cosine_factor


def test_warm_up_is_linear_then_half_a_cosine():
    factors = [cosine_factor(step, 20, 4, 0.1) for step in range(21)]
    assert factors[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert factors[4] == 1
    assert factors[12] == pytest.approx(0.55)  # half way: the mean of 1 and 0.1
    assert factors[20] == pytest.approx(0.1)
    assert factors[4:] == sorted(factors[4:], reverse=True)


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
