"""DeepLab. Oracles: torchvision's (see test_torchvision_maps), torch's functions written out here, published counts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detseg import catalog
from detseg.backbones.spec import BackboneError
from detseg.errors import DetsegError
from detseg.segmenters import deeplab
from detseg.segmenters.deeplab import ASPP, Decoder, DeepLabConfig
from tests.segmenter_contract import expect_the_contract, small


def lively(module: nn.Module) -> nn.Module:
    """Batch norms that change what they see, in evaluation mode."""
    torch.manual_seed(0)
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean), nn.init.uniform_(norm.running_var, 0.5, 1.5)
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    return module.eval()


def by_hand(x: Tensor, state: dict[str, Tensor], conv: str, norm: str, dilation: int = 1) -> Tensor:
    """Convolution, batch norm and ReLU from a state dict; a kernel with one input channel filters each channel."""
    weight = state[f"{conv}.weight"]
    groups = x.shape[1] // weight.shape[1]
    x = F.conv2d(x, weight, padding=dilation * (weight.shape[-1] // 2), dilation=dilation, groups=groups)
    scale, shift, mean, var = (state[f"{norm}.{name}"] for name in ("weight", "bias", "running_mean", "running_var"))
    return F.batch_norm(x, mean, var, scale, shift).relu()


@pytest.mark.parametrize("separable", [False, True])
def test_the_pyramid_is_the_papers(separable):
    """One branch of 1x1, three of 3x3 with their rates, the mean of the map at every place; joined by 1x1."""
    config = DeepLabConfig(2, width=4, rates=(2, 3, 5), separable=separable)
    aspp = lively(ASPP(6, config))
    state, x = aspp.state_dict(), torch.randn(2, 6, 11, 13)
    branches = [by_hand(x, state, "branches.0.0", "branches.0.1")]
    for i, rate in enumerate((2, 3, 5), start=1):
        y = by_hand(x, state, f"branches.{i}.0", f"branches.{i}.1", rate)
        branches.append(by_hand(y, state, f"branches.{i}.3", f"branches.{i}.4") if separable else y)
    mean = by_hand(F.adaptive_avg_pool2d(x, 1), state, "pooled.0", "pooled.1")
    branches.append(mean.repeat(1, 1, 11, 13))
    with torch.no_grad():
        wanted = by_hand(torch.cat(branches, dim=1), state, "project.0", "project.1")
        torch.testing.assert_close(aspp(x), wanted, atol=1e-5, rtol=1e-4)


def test_without_image_pooling_a_branch_is_missing():
    assert len(ASPP(6, DeepLabConfig(2, width=4, image_pooling=False)).project[0].weight[0]) == 16
    assert len(ASPP(6, DeepLabConfig(2, width=4)).project[0].weight[0]) == 20


@pytest.mark.parametrize("separable", [False, True])
def test_the_decoder_is_the_papers(separable):
    """Few channels of the fine map beside the enlarged pyramid, then 3x3 twice (V3+ sec. 4.1)."""
    decoder = lively(Decoder(7, DeepLabConfig(2, width=4, low_level=3, separable=separable)))
    state, low, high = decoder.state_dict(), torch.randn(2, 7, 17, 25), torch.randn(2, 4, 5, 7)
    x = F.interpolate(high, size=(17, 25), mode="bilinear", align_corners=False)
    x = torch.cat([by_hand(low, state, "low.0", "low.1"), x], dim=1)
    for i in range(2):
        x = by_hand(x, state, f"mix.{i}.0", f"mix.{i}.1")
        x = by_hand(x, state, f"mix.{i}.3", f"mix.{i}.4") if separable else x
    with torch.no_grad():
        torch.testing.assert_close(decoder(low, high), x, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("fcn-r50", 21, 35_322_218),
        ("fcn-r101", 21, 54_314_346),
        ("deeplabv3-r50", 21, 42_004_074),
        ("deeplabv3-r101", 21, 60_996_202),
        ("deeplabv3-mobilenet", 21, 11_029_328),
        ("lraspp-mobilenet", 21, 3_221_538),
    ],
)
def test_there_are_as_many_parameters_as_torchvision_publishes(name, classes, parameters):
    entry, module = catalog.entry(name), catalog.module(name)
    with torch.device("meta"):
        model = module.build(module.configure(classes, {"backbone": entry.backbone, **entry.options}, None))
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(("output_stride", "hw"), [(8, (9, 13)), (16, (5, 7)), (32, (3, 4))])
def test_the_output_stride_is_that_of_the_answer(output_stride, hw):
    options = {"backbone": "resnet18", "output_stride": output_stride, "width": 8}
    model = deeplab.build(deeplab.configure(2, options, None)).eval()
    with torch.no_grad():
        assert model.answer(torch.randn(1, 3, 65, 97)).shape == (1, 2, *hw)
        finer = deeplab.build(deeplab.configure(2, {**options, "low_level": 4}, None)).eval()
        assert finer.answer(torch.randn(1, 3, 65, 97)).shape == (1, 2, 17, 25)


def test_one_picture_can_be_learnt_though_it_has_one_mean():
    """Batch norm refuses a single value; here the running statistics count, and are not moved by it."""
    aspp = lively(ASPP(6, DeepLabConfig(2, width=4, dropout=0.0))).train()
    before = aspp.pooled[1].running_mean.clone()
    assert bool(torch.isfinite(aspp(torch.randn(1, 6, 5, 7))).all())
    torch.testing.assert_close(aspp.pooled[1].running_mean, before)
    aspp(torch.randn(2, 6, 5, 7))
    assert (aspp.pooled[1].running_mean != before).any()


def test_v3_keeps_the_contract():
    expect_the_contract(small("deeplabv3-r50", backbone="resnet18", width=16), "deeplabv3-r50")


def test_v3_on_a_mobilenet_keeps_the_contract():
    model = small("deeplabv3-mobilenet", backbone="mobilenet_v3_small", width=16, reduced_tail=True)
    assert [(s.channels, s.stride) for s in model.backbone.features] == [(24, 8), (288, 16)]
    expect_the_contract(model, "deeplabv3-mobilenet")


def test_v3_plus_keeps_the_contract():
    expect_the_contract(small("deeplabv3plus", width=16, low_level=8), "deeplabv3plus")


def test_decoder_and_auxiliary_scores_go_together():
    model = small("deeplabv3plus", width=16, low_level=8, auxiliary_weight=0.4)
    with torch.no_grad():
        answer, beside = model.eval().lessons(torch.randn(1, 3, 64, 96))
    assert (answer.shape[2:], beside.shape[2:]) == ((16, 24), (4, 6))


def test_what_does_not_fit_is_refused():
    for options, told in (
        ({"reduced_tail": True}, "only widened maps"),
        ({"widened": True, "output_stride": 8}, "have output_stride 16"),
        ({"output_stride": 4}, "output_stride"),
        ({"rates": (0, 1)}, "rates must be at least 1"),
    ):
        with pytest.raises(DetsegError, match=told):
            deeplab.configure(2, options, None)
    with pytest.raises(BackboneError, match="widened map is that of mobilenet_v3_large"):
        deeplab.build(deeplab.configure(2, {"backbone": "resnet18", "widened": True}, None))
    config = deeplab.configure(2, {"backbone": "mobilenet_v3_small", "widened": True, "reduced_tail": True}, None)
    with pytest.raises(BackboneError, match="reduced tail has no ImageNet weights"):
        deeplab.build(config, backbone_weights="imagenet")
