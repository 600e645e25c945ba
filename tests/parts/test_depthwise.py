"""Quick depthwise convolutions. Oracle: PyTorch's own layer, and gradcheck."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from detseg.backbones.efficientnet_lite import SameConv2d
from detseg.parts.depthwise import DepthwiseConv2d, quicken

SHAPES = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 5, "padding": 4, "dilation": 2},
    {"kernel_size": 3, "padding": 1, "stride": 2},
    {"kernel_size": (3, 5), "padding": (2, 1), "dilation": (2, 1)},
    {"kernel_size": 3, "padding": 0, "bias": False},
    {"kernel_size": 3, "padding": 5},
]


def pair(**shape) -> tuple[nn.Conv2d, nn.Conv2d]:
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 6, groups=6, **shape)
    quick = copy.deepcopy(plain)
    quicken(quick)
    assert type(quick) is DepthwiseConv2d
    return plain, quick


def gradients(layer: nn.Conv2d, images: torch.Tensor, bfloat16: bool = False) -> list[torch.Tensor]:
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        answer = layer(images)
    answer.float().square().sum().backward()
    return [answer.float(), images.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_answers_and_gradients_are_pytorchs(shape, memory):
    images = torch.randn(2, 6, 11, 13).to(memory_format=memory)
    for own, other in zip(*(gradients(layer, images) for layer in pair(**shape)), strict=True):
        torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_in_bfloat16_they_are_as_near_as_pytorchs(shape):
    images = torch.randn(2, 6, 11, 13)
    plain, quick = pair(**shape)
    exact = gradients(plain, images)
    plain.zero_grad(), quick.zero_grad()
    theirs, ours = gradients(copy.deepcopy(plain), images, True), gradients(quick, images, True)
    for true, their, our in zip(exact, theirs, ours, strict=True):
        assert our.dtype == their.dtype
        assert (our - true).abs().max() <= 1.5 * (their - true).abs().max() + 0.02 * true.abs().max()


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_differences(shape):
    _, quick = pair(**shape)
    quick.double()
    assert gradcheck(quick, torch.randn(1, 6, 6, 7, dtype=torch.float64, requires_grad=True))


def test_only_depthwise_layers_change_and_nothing_else_of_them():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 8, 3, groups=4),
        nn.Conv2d(8, 16, 3, groups=8),
        nn.Conv2d(16, 16, 3, groups=16, padding="same"),
        nn.Conv2d(16, 16, 3, groups=16, padding=1, padding_mode="reflect"),
    )
    before = {name: value.clone() for name, value in net.state_dict().items()}
    quicken(net)
    assert [type(layer) is DepthwiseConv2d for layer in net] == [False, True, False, False, False, False]
    after = net.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_frozen_layer_answers_as_ever():
    plain, quick = pair(kernel_size=3, padding=1)
    quick.requires_grad_(False)
    images = torch.randn(1, 6, 5, 5)
    torch.testing.assert_close(quick(images), plain(images), rtol=0, atol=0)


@pytest.mark.parametrize("hw", [(11, 13), (12, 12)])
@pytest.mark.parametrize("shape", [{"stride": 1}, {"stride": 2}, {"stride": 1, "dilation": 2}])
def test_tensorflows_padding_is_kept(shape, hw):
    torch.manual_seed(0)
    plain = SameConv2d(6, 6, 5, groups=6, bias=False, **shape)
    quick = copy.deepcopy(plain)
    quicken(quick)
    images = torch.randn(2, 6, *hw)
    found = quick(images.requires_grad_())
    assert type(found.grad_fn).__name__ == "_DepthwiseBackward"
    for own, other in zip(gradients(plain, images.detach()), gradients(quick, images.detach()), strict=True):
        torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-5)


def test_a_convolution_over_channels_with_tensorflows_padding_stays():
    layer = SameConv2d(6, 8, 3)
    quicken(layer)
    assert layer.convolve is torch.nn.functional.conv2d
