"""Dilation. Oracles: torchvision's own for ResNet; and that each second dense answer is the strided one."""

import pytest
import torch
import torch.nn.functional as F
from torchvision import models

from detseg.backbones.catalog import build_backbone
from detseg.backbones.dilation import DensePool
from detseg.backbones.spec import BackboneError


@pytest.mark.parametrize(("output_stride", "replaced"), [(16, (False, False, True)), (8, (False, True, True))])
def test_resnet_equals_torchvisions_dilated_one(output_stride, replaced):
    torch.manual_seed(0)
    theirs = models.resnet50(replace_stride_with_dilation=replaced).eval()
    ours = build_backbone("resnet50", dilate=output_stride).eval()
    assert [spec.stride for spec in ours.features] == [8, min(16, output_stride), output_stride]
    ours.net.load_state_dict(theirs.state_dict(), strict=False)
    images = torch.randn(1, 3, 97, 64)
    found = []
    for layer in (theirs.layer2, theirs.layer3, theirs.layer4):
        layer.register_forward_hook(lambda _module, _args, output: found.append(output.clone()))
    with torch.no_grad():
        theirs(images)
        for mine, other in zip(ours(images), found, strict=True):
            torch.testing.assert_close(mine, other)


# not those with squeeze-and-excitation: their averages over the whole map see the new pixels too
@pytest.mark.parametrize(
    "name",
    [
        *("efficientnet_lite0", "resnet18", "vgg11_bn", "googlenet", "densenet121", "squeezenet1_1"),
        *("mobilenet_v2", "mnasnet0_5", "shufflenet_v2_x0_5", "regnet_x_400mf", "convnext_tiny", "alexnet"),
    ],
)
def test_every_second_dense_answer_is_the_strided_one(name):
    torch.manual_seed(0)
    strides = (8, 16) if name.startswith("squeezenet") else (8, 16, 32)
    strided = build_backbone(name, strides=strides).eval()
    dense = build_backbone(name, strides=strides, dilate=8).eval()
    dense.load_state_dict(strided.state_dict())
    assert {spec.stride for spec in dense.features} == {8}
    # poolings without padding leave a last row out, which the dense network has: its neighbours below see it
    margin = 5 if name in ("squeezenet1_1", "alexnet") else 0
    images = torch.randn(1, 3, *((256, 192) if margin else (128, 96)))
    with torch.no_grad():
        answers = dense(images)
        for stride, coarse, fine in zip(strides, strided(images), answers, strict=True):
            assert fine.shape[2:] == answers[0].shape[2:]
            h, w = (side - margin for side in coarse.shape[-2:])
            sampled, coarse = fine[:, :, :: stride // 8, :: stride // 8][..., :h, :w], coarse[..., :h, :w]
            torch.testing.assert_close(sampled, coarse, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("hw", [(96, 64), (97, 83)])
def test_same_padding_keeps_the_grid_at_odd_sizes(hw):
    torch.manual_seed(0)
    strided = build_backbone("efficientnet_lite0", weights="imagenet").eval()
    for output_stride in (8, 16):
        dense = build_backbone("efficientnet_lite0", weights="imagenet", dilate=output_stride).eval()
        images = torch.randn(1, 3, *hw)
        with torch.no_grad():
            step = 32 // output_stride
            torch.testing.assert_close(dense(images)[2][:, :, ::step, ::step], strided(images)[2], atol=1e-4, rtol=1e-4)


def test_dense_pool_equals_pytorchs_where_that_can_do_it():
    x = torch.randn(2, 3, 9, 8)
    theirs = F.max_pool2d(x, 3, stride=1, padding=1)
    torch.testing.assert_close(DensePool("max", (3, 3), (1, 1), (1, 1), (1, 1))(x), theirs)
    theirs = F.max_pool2d(x, 3, stride=1, padding=0, dilation=2)
    torch.testing.assert_close(DensePool("max", (3, 3), (2, 2), (0, 0), (0, 0))(x), theirs)
    theirs = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    torch.testing.assert_close(DensePool("mean", (3, 3), (1, 1), (1, 1), (1, 1))(x), theirs)


@pytest.mark.parametrize("name", ["inception_v3", "swin_t"])
def test_networks_that_cannot_say_so(name):
    with pytest.raises(BackboneError, match=f"{name} cannot be dilated"):
        build_backbone(name, dilate=16)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
def test_other_output_strides_are_refused(name):
    with pytest.raises(BackboneError, match="16 or 8, not 4"):
        build_backbone(name, dilate=4)
