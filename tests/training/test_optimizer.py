"""Who learns how fast. Oracles: torchvision's names of a ResNet's layers, and rates worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detseg.backbones.catalog import build_backbone
from detseg.backbones.spec import BackboneError
from detseg.training.config import TrainConfig
from detseg.training.optimizer import learning_parts, make_optimizer, rate_factors


class Net(nn.Module):
    """A ResNet and a head of 2 * 3 + 2 numbers."""

    def __init__(self, name: str = "resnet18", **frozen) -> None:
        super().__init__()
        self.backbone = build_backbone(name, **frozen)
        self.predict = nn.Linear(3, 2)


# torchvision's layers by the stride that they work at: 2, 4, 8, 16, 32
LAYERS = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))


def layers(*which: int) -> tuple[str, ...]:
    return tuple(f"backbone.net.{name}." for i in which for name in LAYERS[i])


def config(**changes) -> TrainConfig:
    return TrainConfig(data="x", **{"lr": 0.1, "backbone_lr": 0.5, "weight_decay": 0.02, **changes})


def test_each_stage_learns_slower_than_the_one_above_it():
    found = rate_factors(Net(), config(layer_decay=0.5))
    assert {name: rate for name, rate in found.items() if name.startswith("predict")} == {
        "predict.weight": 1.0,
        "predict.bias": 1.0,
    }
    for i, rate in enumerate([0.5 / 16, 0.5 / 8, 0.5 / 4, 0.5 / 2, 0.5]):
        assert {rate} == {found[name] for name in found if name.startswith(layers(i))}


def test_weights_move_by_their_own_rates():
    net, settings = Net(freeze_stages=1), config(layer_decay=0.5, optimizer="sgd", weight_decay=0)
    optimizer = make_optimizer(net, settings)
    before = {name: value.clone() for name, value in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    rates = rate_factors(net, settings)
    for name, value in net.named_parameters():
        # Nesterov's first step is 1 + momentum times as long
        wanted = 0.0 if name.startswith(layers(0)) else 0.1 * rates[name] * 1.9
        torch.testing.assert_close(before[name] - value, torch.full_like(value, wanted), atol=1e-6, rtol=0)


def test_without_decay_there_are_two_rates_each_with_and_without_weight_decay():
    net = Net(freeze_stages=2)
    groups = make_optimizer(net, config()).param_groups
    assert [(group["base_lr"], group["weight_decay"]) for group in groups] == [
        (0.05, 0.02),
        (0.05, 0.0),
        (0.1, 0.02),
        (0.1, 0.0),
    ]
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    learning = [[names[id(parameter)] for parameter in group["params"]] for group in groups]
    assert all(name.startswith(layers(2, 3, 4)) for name in learning[0] + learning[1])
    assert learning[2:] == [["predict.weight"], ["predict.bias"]]
    assert sum(map(len, learning)) == sum(p.requires_grad for p in net.parameters())


def test_what_is_told_of_the_rates():
    net = Net(freeze_stages=2, freeze_bn=True)
    settings = config(layer_decay=0.5, epochs=9, finetune_at=3, finetune_lr=0.2)
    numbers = [
        sum(
            m.weight.numel() for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and f"{name}.".startswith(w)
        )
        for w in (layers(4), layers(3), layers(2))
    ]
    told = [(part.name, part.stages, part.learning, part.rates) for part in learning_parts(net, settings)]
    assert told == [
        ("head", None, 8, pytest.approx((0.1, 0.02))),
        ("backbone", (5, 5), numbers[0], pytest.approx((0, 0.01))),
        ("backbone", (4, 4), numbers[1], pytest.approx((0, 0.005))),
        ("backbone", (3, 3), numbers[2], pytest.approx((0, 0.0025))),
        ("backbone", (1, 2), 0, (0, 0)),
    ]
    together = learning_parts(net, config())
    assert [(part.stages, part.rates) for part in together] == [(None, (0.1,)), ((3, 5), (0.05,)), ((1, 2), (0.0,))]


def test_a_backbone_that_has_no_stages_has_one_rate():
    net = Net()

    def none() -> None:
        raise BackboneError("cannot be taken apart into stages")

    net.backbone.stages = none
    (head, backbone) = learning_parts(net, config())
    assert (head.rates, backbone.stages, backbone.rates) == ((0.1,), None, (0.05,))
    assert backbone.learning == sum(p.numel() for p in net.backbone.parameters())
    with pytest.raises(BackboneError, match="cannot be taken apart"):
        make_optimizer(net, config(layer_decay=0.5))
