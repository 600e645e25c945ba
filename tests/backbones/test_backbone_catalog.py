"""Every name keeps the contract. Oracle: torchvision's own forward pass with the same weights."""

import copy

import pytest
import torch

from detseg.backbones import torchvision_zoo
from detseg.backbones.catalog import TORCHVISION_FAMILIES, build_backbone, names
from detseg.backbones.spec import BackboneError

REPRESENTATIVES = {family[0] for family in TORCHVISION_FAMILIES.values()} - {"wide_resnet50_2"}  # a ResNet
REPRESENTATIVES |= {"mobilenet_v3_small"}
HUGE = {"regnet_y_128gf"}  # 2.6 GB of weights
ALL = [
    pytest.param(name, marks=[] if name in REPRESENTATIVES else pytest.mark.slow)
    for name in names()
    if name not in {"efficientnet_lite0", *HUGE}
]
UNPADDED = ("alexnet", "googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1")


def _strides(name):
    return (8, 16) if name.startswith("squeezenet") else (8, 16, 32)


def _check_shapes(backbone, maps, hw, slack):
    assert len(maps) == len(backbone.features)
    for spec, x in zip(backbone.features, maps, strict=True):
        assert x.shape[:2] == (2, spec.channels)
        for side, length in zip(x.shape[2:], hw, strict=True):
            assert length // spec.stride - slack <= side <= -(-length // spec.stride)


def _twin(net, tensor_of):
    """A copy of a network whose parameters and buffers are what `tensor_of` gives for each."""
    memo = {id(p): torch.nn.Parameter(tensor_of(p.detach()), requires_grad=False) for p in net.parameters()}
    return copy.deepcopy(net, memo | {id(b): tensor_of(b) for b in net.buffers()})


@pytest.mark.parametrize("name", ALL)
def test_torchvision_network(name, monkeypatch):
    torch.manual_seed(0)
    whole = torchvision_zoo._random_net(name).eval()
    # of the large ones a copy is a gigabyte: this one shares its tensors
    monkeypatch.setattr(torchvision_zoo, "_random_net", lambda _: _twin(whole, lambda tensor: tensor))
    backbone = build_backbone(name, strides=_strides(name)).eval()
    outputs = {}
    for link in backbone._links:
        hook = lambda _module, _args, output, link=link: outputs.__setitem__(link, output.clone())  # noqa: E731
        whole.get_submodule(link).register_forward_hook(hook)
    for hw in ((96, 80), (97, 83)) if name in UNPADDED else ((64, 48), (65, 51)):
        images = torch.randn(2, 3, *hw, requires_grad=True)
        maps = backbone(images)
        _check_shapes(backbone, maps, hw, slack=3 if name in UNPADDED else 0)
        with torch.no_grad():
            whole(images)
        for tap, mine in zip(backbone._taps, maps, strict=True):
            other = outputs[tap].permute(0, 3, 1, 2) if name.startswith("swin") else outputs[tap]
            torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)
    sum(x.square().mean() for x in maps).backward()
    assert images.grad.isfinite().all()
    assert images.grad.abs().sum() > 0

    monkeypatch.setattr(torchvision_zoo, "_random_net", lambda _: _twin(whole, torch.zeros_like))
    again = build_backbone(name, strides=_strides(name)).eval()
    again.load_state_dict(dict(backbone.state_dict()))  # plain tensors, as a file gives them
    with torch.no_grad():
        assert all(torch.equal(a, b.detach()) for a, b in zip(again(images), maps, strict=True))


def test_efficientnet_lite0():
    torch.manual_seed(0)
    backbone = build_backbone("efficientnet_lite0", strides=(32, 2, 4, 8, 16)).eval()
    assert [(s.channels, s.stride) for s in backbone.features] == [
        (16, 2),
        (24, 4),
        (40, 8),
        (112, 16),
        (320, 32),
    ]
    for hw in ((96, 80), (97, 83)):
        images = torch.randn(2, 3, *hw, requires_grad=True)
        maps = backbone(images)
        assert [tuple(x.shape[2:]) for x in maps] == [
            (-(-hw[0] // stride), -(-hw[1] // stride)) for stride in (2, 4, 8, 16, 32)
        ]
    maps[-1].square().sum().backward()
    assert images.grad.abs().sum() > 0
    again = build_backbone("efficientnet_lite0", strides=(2, 4, 8, 16, 32)).eval()
    again.load_state_dict(backbone.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(again(images), maps, strict=True))


def test_every_classification_network_of_torchvision_is_there():
    from torchvision import models

    fixed_size = {name for name in models.list_models(module=models) if name.startswith(("vit_", "maxvit_"))}
    assert set(names()) == set(models.list_models(module=models)) - fixed_size | {"efficientnet_lite0"}


@pytest.mark.parametrize(
    ("name", "channels"),  # of the last layer at strides 8, 16 and 32 in the table of each paper
    [
        ("resnet50", (512, 1024, 2048)),
        ("googlenet", (480, 832, 1024)),
        ("densenet121", (512, 1024, 1024)),
        ("mobilenet_v2", (32, 96, 320)),
        ("efficientnet_b0", (40, 112, 320)),
    ],
)
def test_features_are_the_last_at_their_stride(name, channels):
    assert tuple(spec.channels for spec in build_backbone(name).features) == channels


def test_head_convolution_on_request():
    plain = torchvision_zoo.TorchvisionBackbone("mobilenet_v3_small", (32,))
    whole = torchvision_zoo.TorchvisionBackbone("mobilenet_v3_small", (32,), head_conv=True)
    assert plain.features[0].channels == 96  # table 2 of the MobileNetV3 paper: last block, then conv2d 576
    assert whole.features[0].channels == 576


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("squeezenet1_0", "2, 4, 8, 16"),
        ("convnext_tiny", "4, 8, 16, 32"),
        ("efficientnet_lite0", "2, 4, 8, 16, 32"),
    ],
)
def test_a_stride_it_lacks_is_refused_with_those_it_has(name, has):
    with pytest.raises(ValueError, match=f"{name} has features at strides {has}; asked for 64"):
        build_backbone(name, strides=(8, 64))


def test_unknown_names_get_a_suggestion():
    with pytest.raises(BackboneError, match="'resnet5'; did you mean resnet5"):
        build_backbone("resnet5")
    with pytest.raises(BackboneError, match="timm:NAME"):
        build_backbone("zzz")
