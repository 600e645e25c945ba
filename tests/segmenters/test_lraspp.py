"""LR-ASPP. Oracles: torchvision's (see test_torchvision_maps), torch's functions written out here."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from detseg.errors import DetsegError
from detseg.segmenters import lraspp
from tests.segmenter_contract import expect_the_contract, small


def test_the_head_is_figure_10s():
    """Gated features enlarged, then their scores, to which those of the fine map are added."""
    model = small("lraspp", backbone="mobilenet_v3_small", width=8).eval()
    conv, norm, _ = model.high
    torch.nn.init.normal_(norm.running_mean), torch.nn.init.uniform_(norm.running_var, 0.5, 1.5)
    images = torch.randn(2, 3, 65, 97)
    with torch.no_grad():
        low, high = model.backbone(images)
        x = F.batch_norm(F.conv2d(high, conv.weight), norm.running_mean, norm.running_var, norm.weight, norm.bias)
        gate = torch.sigmoid(F.conv2d(F.adaptive_avg_pool2d(high, 1), model.gate[0].weight))
        x = F.interpolate(x.relu() * gate, size=low.shape[2:], mode="bilinear", align_corners=False)
        wanted = F.conv2d(x, model.scores.weight, model.scores.bias)
        wanted = wanted + F.conv2d(low, model.low_scores.weight, model.low_scores.bias)
        torch.testing.assert_close(model.answer(images), wanted, atol=1e-5, rtol=1e-4)
    assert low.shape[2:] == (9, 13)
    assert high.shape[2:] == (5, 7)


def test_on_any_backbone_it_keeps_the_contract():
    expect_the_contract(small("lraspp"), "lraspp")


@pytest.mark.parametrize("reduced", [False, True])
def test_on_a_mobilenet_it_keeps_the_contract(reduced):
    model = small("lraspp-mobilenet", backbone="mobilenet_v3_small", reduced_tail=reduced)
    assert [(s.channels, s.stride) for s in model.backbone.features] == [(24, 8), (288 if reduced else 576, 16)]
    expect_the_contract(model, "lraspp-mobilenet")


def test_what_does_not_fit_is_refused():
    for options, told in (
        ({"reduced_tail": True}, "only widened maps"),
        ({"widened": True, "output_stride": 32}, "have output_stride 16"),
        ({"low_stride": 16}, "low_stride"),
    ):
        with pytest.raises(DetsegError, match=told):
            lraspp.configure(2, options, None)
