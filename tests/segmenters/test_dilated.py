"""Dilated networks. Oracles: table 1 and eq. 5 of the paper, and the strided network that the dense one contains."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detseg.backbones.convolutional_vgg import ConvolutionalVGG
from detseg.backbones.spec import BackboneError
from detseg.errors import DetsegError
from detseg.segmenters import dilated
from detseg.segmenters.dilated import DILATIONS, WIDTHS, ContextModule, start_as_identity
from tests.segmenter_contract import CLASSES, expect_the_contract, small


@pytest.fixture(scope="module")
def vgg() -> ConvolutionalVGG:
    """A dense VGG with narrow fc6 and fc7."""
    torch.manual_seed(0)
    return ConvolutionalVGG("vgg11", (32,), width=16, dropout=0.0, dense=True).eval()


@pytest.mark.parametrize("kind", ["basic", "large"])
def test_the_context_module_starts_as_the_identity(kind):
    x = torch.rand(1, CLASSES, 21, 34)
    with torch.no_grad():
        torch.testing.assert_close(ContextModule(CLASSES, WIDTHS[kind], noise=0.0)(x), x)
        # with the noise that tells copies of a class apart it is nearly so
        noisy = ContextModule(CLASSES, WIDTHS[kind])(x)
        assert (noisy - x).abs().max() < (1e-6 if kind == "basic" else 0.5)
        assert ((noisy - x).abs().mean() > 1e-6) == (kind == "large")


def test_negative_scores_are_cut_off():
    x = torch.tensor([-2.0, 0.0, 3.0]).reshape(1, 3, 1, 1).expand(1, 3, 9, 9)
    with torch.no_grad():
        assert ContextModule(3, WIDTHS["basic"])(x)[0, :, 4, 4].tolist() == [0, 0, 3]


def test_the_first_weights_by_hand():
    """Eq. 5 with C = 2: from 2 to 4 channels each class is split in halves, from 4 to 2 they are summed."""
    split, joined = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 2, 1)
    for layer in (split, joined):
        start_as_identity(layer, 2, 0.0)
    assert split.weight[:, :, 1, 1].tolist() == [[0.5, 0], [0.5, 0], [0, 0.5], [0, 0.5]]
    assert split.weight.sum() == 2  # nothing beside the middle
    assert joined.weight[:, :, 0, 0].tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize("kind", ["basic", "large"])
def test_layers_and_what_they_see_are_table_1s(kind):
    module = ContextModule(1, WIDTHS[kind], noise=0.0)
    layers = [layer for layer in module.layers if isinstance(layer, nn.Conv2d)]
    widths = [layer.out_channels for layer in layers]
    assert widths == ([1] * 8 if kind == "basic" else [2, 2, 4, 8, 16, 32, 32, 1])
    assert tuple(layer.dilation[0] for layer in layers) == (*DILATIONS, 1)
    assert [type(layer) for layer in module.layers][-3:] == [nn.Conv2d, nn.ReLU, nn.Conv2d]
    dot = torch.zeros(1, 1, 91, 91)
    dot[..., 45, 45] = 1
    sides = []
    with torch.no_grad():
        for layer in layers:
            layer.weight.fill_(1 / layer.weight[0].numel())
        for layer in module.layers:
            dot = layer(dot)
            if isinstance(layer, nn.Conv2d):
                rows = dot[0, 0].any(dim=1).nonzero()
                sides.append(int(rows.max() - rows.min()) + 1)
    assert sides == [3, 5, 9, 17, 33, 65, 67, 67]


def test_the_front_end_contains_the_strided_network(vgg):
    """Each fourth answer is that of the VGG whose last two poolings skip pixels and take no maxima."""
    images = torch.randn(1, 3, 128, 96)
    layers = list(vgg.net.features)
    assert [type(layer) for layer in layers].count(nn.MaxPool2d) == 3
    cut = next(i for i, layer in enumerate(layers) if isinstance(layer, nn.Identity))
    with torch.no_grad():
        dense = vgg(images)[0]
        x = images
        for layer in layers[:cut]:
            x = layer(x)
        x = x[:, :, ::2, ::2]
        for layer in layers[cut + 1 :]:
            x = F.conv2d(x, layer.weight, layer.bias, padding=1) if isinstance(layer, nn.Conv2d) else layer(x)
        fc6, _, _, fc7, _, _ = vgg.fc
        x = F.conv2d(x[:, :, ::2, ::2], fc6.weight, fc6.bias, padding=3).relu()
        wanted = F.conv2d(x, fc7.weight, fc7.bias).relu()
    assert dense.shape[2:] == (16, 12)
    assert wanted.shape[2:] == (4, 3)
    assert wanted.std() > 0
    torch.testing.assert_close(dense[:, :, ::4, ::4], wanted, atol=1e-4, rtol=1e-4)


def test_on_vgg_it_keeps_the_contract(vgg):
    config = dilated.configure(CLASSES, {"backbone": "vgg11", "fc": 16}, None)
    torch.manual_seed(0)
    model = dilated.Dilated(config, copy.deepcopy(vgg))
    nn.init.normal_(model.scores.weight)
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        whole = model.eval().segment(F.pad(images, (0, 7, 0, 7)))
        torch.testing.assert_close(model.segment(images), whole[:, :, :65, :97])
    expect_the_contract(model, "dilated")


@pytest.mark.parametrize("context", ["none", "large"])
def test_on_a_resnet_it_keeps_the_contract(context):
    weight = 0.0 if context == "none" else 0.5
    model = small("dilated-r50", backbone="resnet18", context_module=context, auxiliary_weight=weight)
    assert [spec.stride for spec in model.backbone.features] == [8]
    expect_the_contract(model, "dilated-r50")


def test_what_does_not_fit_is_refused():
    with pytest.raises(DetsegError, match="context"):
        dilated.configure(2, {"context_module": "huge"}, None)
    with pytest.raises(BackboneError, match="only a VGG has fc6 and fc7"):
        dilated.build(dilated.configure(2, {"backbone": "resnet18"}, None))
    with pytest.raises(BackboneError, match="has features at strides 32; asked for 16"):
        ConvolutionalVGG("vgg11", (16, 32), dense=True)
