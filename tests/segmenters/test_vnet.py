"""V-Net: the paper's stages and channels, a residual stage by hand, the two doors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from detseg.errors import DetsegError
from detseg.parts.label_maps import LabelMaps
from detseg.parts.map_losses import PixelCounts
from detseg.segmenters import vnet
from tests.segmenter_contract import (
    expect_a_trace_to_answer_alike,
    expect_lessons_to_reach_every_parameter,
    expect_one_answer_a_pixel_alone_and_in_company,
    lively,
    made,
    pictures,
)

THIN = {"width": 4, "convolutions": [1, 2, 2]}


@pytest.mark.parametrize("norm", [True, False])
def test_it_answers_for_frames_of_odd_size(norm):
    expect_one_answer_a_pixel_alone_and_in_company(made("vnet", **THIN, norm=norm))


@pytest.mark.parametrize("norm", [True, False])
def test_lessons_reach_every_parameter(norm):
    assert list(expect_lessons_to_reach_every_parameter(made("vnet", **THIN, norm=norm), (32, 32))) == ["dice"]


def test_it_can_be_exported():
    expect_a_trace_to_answer_alike(made("vnet", **THIN))


def test_the_stages_are_those_of_the_papers_figure():
    """Down 16, 32, 64, 128, 256 channels by 1, 2, 3, 3, 3 convolutions; up 256, 128, 64, 32 by 3, 3, 2, 1."""
    with torch.device("meta"):
        net = vnet.VNet(vnet.VNetConfig(2)).eval()
        maps = net.backbone(torch.zeros(1, 3, 128, 64))
        assert net.segment(torch.zeros(1, 3, 128, 64)).shape == (1, 2, 128, 64)
    assert [tuple(x.shape[1:]) for x in maps] == [(16 * 2**i, 128 // 2**i, 64 // 2**i) for i in range(5)]
    counts = [sum(isinstance(m, torch.nn.Conv2d) for m in part.residual.layers) for part in net.backbone.parts]
    assert counts == [1, 2, 3, 3, 3]
    assert [(up.last.num_parameters, len(up.layers) // 2 + 1) for up in net.up] == [
        (256, 3),
        (128, 3),
        (64, 2),
        (32, 1),
    ]
    assert not any(isinstance(m, torch.nn.BatchNorm2d | torch.nn.MaxPool2d) for m in net.modules())
    kernels = {m.kernel_size for m in net.modules() if isinstance(m, torch.nn.Conv2d)}
    assert kernels == {(1, 1), (2, 2), (5, 5)}


@torch.no_grad()
def test_a_residual_stage_by_hand():
    """Two convolutions that pass on x and 2 x: PReLU(2 PReLU(x) + x); of -4 that is -1, -2 - 4 = -6, then -1.5."""
    stage = vnet.ResidualStage(1, 1, 2, vnet.VNetConfig(2))
    for i, factor in ((0, 1.0), (2, 2.0)):
        torch.nn.init.zeros_(stage.layers[i].weight)
        torch.nn.init.zeros_(stage.layers[i].bias)
        stage.layers[i].weight[0, 0, 2, 2] = factor
    assert stage(torch.tensor([[[[-4.0, 3.0]]]])).tolist() == [[[[-1.5, 9.0]]]]


@torch.no_grad()
def test_a_frame_is_mirrored_up_to_what_can_be_halved():
    net = lively(made("vnet", **THIN), (32, 32))
    image = pictures(1, (30, 45))
    beyond = np.pad(image.numpy(), ((0, 0), (0, 0), (0, 2), (0, 3)), mode="reflect")
    torch.testing.assert_close(net.segment(image), net.segment(torch.from_numpy(beyond))[:, :, :30, :45])


def test_weights_start_so_that_signals_keep_their_size():
    """He et al. 2015, eq. 15: (1 + a^2) / 2 times the incoming nodes times the variance is 1."""
    net = made("vnet", width=16)
    weight = net.backbone.parts[2].residual.layers[0].weight
    assert float(weight.detach().var()) == pytest.approx(2 / ((1 + 0.25**2) * 25 * 64), rel=0.05)


@torch.no_grad()
def test_dice_is_what_it_learns_from():
    net = lively(made("vnet", **THIN), (32, 32))
    images, labels = pictures(1, (16, 16)), torch.arange(256).reshape(1, 16, 16) % 3
    p, g = net.segment(images).softmax(dim=1), F.one_hot(labels, 3).movedim(-1, 1).float()
    scores = 2 * (p * g).sum(dim=(0, 2, 3)) / (p.square() + g.square()).sum(dim=(0, 2, 3))
    found = net.losses(images, LabelMaps(labels))
    torch.testing.assert_close(found["dice"], 1 - scores.mean())


def test_class_weights_come_from_the_data_where_they_are_wanted():
    counts = PixelCounts(np.array([30, 10]), np.array([40, 40]))
    config = vnet.configure(2, {"loss.terms": "cross_entropy", "loss.weighting": "median"}, lambda: counts)
    assert config.loss.class_weights == pytest.approx((0.5 / 0.75, 0.5 / 0.25), rel=1e-5)
    assert vnet.config_from_json(vnet.config_to_json(config)) == config


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"no_such": 1}, "there is no option no_such"),
        ({"backbone": "resnet18"}, "cannot change it"),
        ({"kernel": 4}, "odd"),
        ({"convolutions": [2]}, "two stages"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_words(options, told):
    with pytest.raises(DetsegError, match=told):
        vnet.configure(3, options, None)


def test_it_has_no_weights_to_start_from():
    with pytest.raises(DetsegError, match="no weights to start from"):
        vnet.build(vnet.VNetConfig(2), backbone_weights="imagenet")
