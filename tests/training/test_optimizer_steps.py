"""Steps of the optimisers are those of the textbook, with the rates and decays of their groups."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from detseg.training.config import TrainConfig
from detseg.training.optimizer import make_optimizer
from tests.parts.test_batch_share_of_models import of_detector, of_segmenter
from tests.parts.test_class_rows_of_models import DETECTORS, SEGMENTERS
from tests.parts.test_class_rows_of_models import made as model_of


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(6, 5)
        self.head = nn.Linear(5, 2)


def made(name: str, **settings: Any) -> tuple[Net, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = Net()
    return net, make_optimizer(net, TrainConfig(data="x", optimizer=name, lr=0.05, **settings))


def gradients(net: Net, step: int) -> None:
    rng = torch.Generator().manual_seed(step)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=rng)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_steps_are_those_of_the_textbook(name: str) -> None:
    """Momentum: I. Sutskever et al. 2013 in PyTorch's form; AdamW: I. Loshchilov, F. Hutter 2019, algorithm 2."""
    net, optimizer = made(name)
    expected = {key: value.detach().double().clone() for key, value in net.named_parameters()}
    first = {key: torch.zeros_like(value) for key, value in expected.items()}
    second = {key: torch.zeros_like(value) for key, value in expected.items()}
    for t in range(1, 5):
        gradients(net, t)
        for key, parameter in net.named_parameters():
            lr = 0.05 * (0.2 if key.startswith("backbone") else 1)
            decay = 0.02 if parameter.ndim > 1 else 0.0
            gradient = parameter.grad.double()
            if name == "sgd":
                gradient = gradient + decay * expected[key]
                first[key] = gradient if t == 1 else 0.9 * first[key] + gradient
                expected[key] -= lr * (gradient + 0.9 * first[key])
                continue
            first[key] = 0.9 * first[key] + 0.1 * gradient
            second[key] = 0.999 * second[key] + 0.001 * gradient**2
            step = (first[key] / (1 - 0.9**t)) / ((second[key] / (1 - 0.999**t)).sqrt() + 1e-8)
            expected[key] -= lr * decay * expected[key] + lr * step
        optimizer.step()
    for key, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.detach().double(), expected[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_step_after_a_pause_is_the_same(name: str) -> None:
    (whole, optimizer), (_, _) = made(name), made(name)
    for t in range(2):
        gradients(whole, t)
        optimizer.step()
    parts, other = made(name)
    parts.load_state_dict(whole.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for net, each in ((whole, optimizer), (parts, other)):
        gradients(net, 7)
        each.step()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


@pytest.mark.parametrize("name", ["yolo", "faster-rcnn-mobilenet-fpn-320", "unet", "deeplabv3plus"])
def test_gradients_lie_in_memory_as_their_parameters_do(name: str) -> None:
    """Fused steps pair numbers by where they lie, and ask for no more."""
    detector = name in DETECTORS
    model = model_of(name, (DETECTORS if detector else SEGMENTERS)[name], 2).to(memory_format=torch.channels_last)
    losses = (of_detector(model, name) if detector else of_segmenter(model))(slice(0, 3))
    torch.stack(list(losses.values())).sum().backward()
    moved = [parameter for parameter in model.parameters() if parameter.grad is not None]
    assert any(parameter.ndim == 4 and not parameter.is_contiguous() for parameter in moved)
    for parameter in moved:
        long = [i for i, side in enumerate(parameter.shape) if side > 1]
        assert [parameter.stride(i) for i in long] == [parameter.grad.stride(i) for i in long]


def test_scaled_gradients_can_be_clipped() -> None:
    """Which Fabric refuses where a fused step would undo the scaling."""
    _, optimizer = made("adamw", precision="16-mixed")
    assert not getattr(optimizer, "_step_supports_amp_scaling", False)
    assert made("adamw")[1]._step_supports_amp_scaling
