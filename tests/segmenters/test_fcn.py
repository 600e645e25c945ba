"""FCN. Oracles: torch's interpolation, a VGG with its matrices, sums written out here, what padding must not change."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detseg import catalog
from detseg.backbones.convolutional_vgg import ConvolutionalVGG
from detseg.backbones.spec import BackboneError
from detseg.errors import DetsegError
from detseg.segmenters import fcn
from tests.segmenter_contract import CLASSES, expect_the_contract, small

WIDTH = 16


@pytest.fixture(scope="module")
def vgg() -> ConvolutionalVGG:
    """A VGG with narrow fc6 and fc7; torchvision draws 100 million numbers for each, so it is made once."""
    torch.manual_seed(0)
    return ConvolutionalVGG("vgg11", width=WIDTH, dropout=0.0).eval()


def on(vgg: ConvolutionalVGG, strides: tuple[int, ...], **options: object) -> fcn.FCN:
    """An FCN of these strides on a copy of the backbone, its scores random."""
    backbone = copy.deepcopy(vgg)
    maps = {8: 0, 16: 1, 32: 2}
    poolings = [link for link in backbone._links if isinstance(backbone.net.get_submodule(link), nn.MaxPool2d)]
    backbone._taps = tuple(poolings[2 + maps[stride]] for stride in strides)
    backbone.features = tuple(backbone.features[maps[stride]] for stride in strides)
    config = fcn.configure(CLASSES, {"backbone": "vgg11", "strides": strides, "fc": WIDTH, **options}, None)
    model = fcn.FCN(config, backbone)
    with torch.no_grad():
        for score in model.scores:
            score.weight.normal_(std=0.1)
            score.bias.normal_()
    return model.eval()


@pytest.mark.parametrize("hw", [(1, 1), (2, 3), (7, 5)])
def test_enlargement_starts_as_bilinear_interpolation(hw):
    """Up to the border: torch's own interpolation holds the last value there, and so does ours."""
    x = torch.randn(2, 4, *hw)
    wanted = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(fcn.Doubled(4)(x), wanted)


def test_enlargement_by_hand():
    row = torch.tensor([[[[0.0, 4.0]]]])
    assert fcn.Doubled(1)(row)[0, 0].tolist() == [[0, 1, 3, 4], [0, 1, 3, 4]]


def test_scores_start_at_zero():
    assert fcn.FCNConfig(2).strides == (8, 16, 32)
    model = catalog.module("fcn").build(fcn.configure(2, {"backbone": "mobilenet_v3_small", "fc": 0}, None))
    assert not model.eval().segment(torch.randn(1, 3, 64, 64)).any()


@pytest.mark.parametrize("strides", [(32,), (16, 32), (8, 16, 32)])
def test_each_fcn_is_the_sum_of_its_scores(vgg, strides):
    """Figure 3 of the paper, layer by layer, on a frame that pads to 96 x 128."""
    model = on(vgg, strides)
    images = torch.randn(1, 3, 65, 97)
    x, poolings = F.pad(images, (0, 31, 0, 31)), []
    with torch.no_grad():
        for layer in model.backbone.net.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                poolings.append(x)
        maps = {8: poolings[2], 16: poolings[3], 32: model.backbone.fc(x)}
        total: Tensor | None = None
        for stride, score in zip(reversed(strides), reversed(list(model.scores)), strict=True):
            told = torch.einsum("kc,nchw->nkhw", score.weight[:, :, 0, 0], maps[stride]) + score.bias[:, None, None]
            if total is not None:
                told = told + F.interpolate(total, scale_factor=2, mode="bilinear", align_corners=False)
            total = told
        assert total is not None
        wanted = F.interpolate(total, scale_factor=strides[0], mode="bilinear", align_corners=False)
        torch.testing.assert_close(model.segment(images), wanted[:, :, :65, :97], atol=1e-4, rtol=1e-4)


def test_fc6_and_fc7_answer_as_the_classifier_does(vgg, tmp_path):
    """In the middle of a map of 7 x 7 the kernel sees all of it: there fc7 is that of the classifier, FCN sec. 3.1."""
    torch.manual_seed(1)
    classifier = nn.Sequential(
        nn.Linear(512 * 7 * 7, WIDTH), nn.ReLU(), nn.Identity(), nn.Linear(WIDTH, WIDTH), nn.ReLU()
    )
    state = {f"features.{name}": tensor for name, tensor in vgg.net.features.state_dict().items()}
    state |= {f"classifier.{name}": tensor for name, tensor in classifier.state_dict().items()}
    state["classifier.6.weight"] = torch.zeros(5, WIDTH)
    torch.save(state, tmp_path / "vgg.pth")
    filled = copy.deepcopy(vgg)
    filled._load("vgg11", tmp_path / "vgg.pth", None)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        wanted = classifier(vgg.net.features(images).flatten(1))[0]
        middle = filled(images)[-1][0, :, 3, 3]
    assert wanted.std() > 0
    torch.testing.assert_close(middle, wanted, atol=1e-4, rtol=1e-4)
    before = {name: tensor.clone() for name, tensor in vgg.fc.state_dict().items()}
    state = {name: tensor for name, tensor in state.items() if name.startswith("features.")}
    torch.save(state, tmp_path / "features.pth")
    filled = copy.deepcopy(vgg)
    filled._load("vgg11", tmp_path / "features.pth", None)  # without fc6 and fc7: they stay as they were
    torch.testing.assert_close(dict(filled.fc.state_dict()), before)


def test_stages_are_those_of_their_strides(vgg):
    """Stage i and those before it are all that works at strides up to 2 ** i; fc6 and fc7 are the last."""
    backbone = copy.deepcopy(vgg)
    for stages, free in ((1, 6), (2, 4), (3, 2), (4, 0)):  # of 8 convolutions: 1, 1, 2, 2, 2 between the poolings
        backbone.freeze(stages)
        convolutions = [m for m in backbone.net.modules() if isinstance(m, nn.Conv2d)]
        assert [c.weight.requires_grad for c in convolutions] == [False] * (8 - free) + [True] * free
        assert backbone.fc[0].weight.requires_grad
    backbone.freeze(5)
    assert not any(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize("light", [True, False])
def test_what_lies_beyond_the_frame_changes_nothing(vgg, light):
    model = small("fcn", backbone="mobilenet_v3_small").eval() if light else on(vgg, (8, 16, 32))
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        whole = model.segment(F.pad(images, (0, 31, 0, 31)))
        torch.testing.assert_close(model.segment(images), whole[:, :, :65, :97])


def test_plain_and_learnt_enlargement_start_alike():
    learnt, plain = (small("fcn", backbone="mobilenet_v3_small", upsampling=u).eval() for u in ("learnt", "bilinear"))
    assert len(list(learnt.larger.parameters())) == 2
    assert not list(plain.larger.parameters())
    plain.load_state_dict({n: t for n, t in learnt.state_dict().items() if not n.startswith("larger.")})
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        torch.testing.assert_close(learnt.segment(images), plain.segment(images), atol=1e-5, rtol=1e-4)


def test_the_light_one_keeps_the_contract():
    expect_the_contract(small("fcn", backbone="mobilenet_v3_small"), "fcn")


def test_the_papers_keeps_the_contract(vgg):
    expect_the_contract(on(vgg, (8, 16, 32)), "fcn-8s")


def test_the_dilated_one_keeps_the_contract():
    expect_the_contract(small("fcn-r50", backbone="resnet18"), "fcn-r50")


def test_what_does_not_fit_is_refused():
    for options, told in (
        ({"strides": (8, 32)}, "double from one to the next"),
        ({"output_stride": 8}, "no hidden layer, dilation or auxiliary loss"),
        ({"fc": 0, "output_stride": 8}, "a dilated backbone has one map"),
        ({"fc": 0, "auxiliary_weight": 0.5}, "0 where several maps have scores"),
        ({"upsampling": "nearest"}, "upsampling"),
    ):
        with pytest.raises(DetsegError, match=told):
            fcn.configure(2, options, None)
    with pytest.raises(BackboneError, match="only a VGG has fc6 and fc7"):
        fcn.build(fcn.configure(2, {"backbone": "resnet18"}, None))
    with pytest.raises(BackboneError, match=r"cannot be dilated.*output_stride=32"):
        fcn.build(fcn.configure(2, {"backbone": "swin_t", "fc": 0, "strides": (32,), "output_stride": 8}, None))
