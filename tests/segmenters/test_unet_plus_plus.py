"""U-Net++: the triangle of nodes counted by hand, its row by hand, pruning, deep supervision, the two doors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from detseg.errors import DetsegError
from detseg.parts.label_maps import enlarged
from detseg.segmenters import unet_plus_plus
from tests.segmenter_contract import (
    expect_a_trace_to_answer_alike,
    expect_lessons_to_reach_every_parameter,
    expect_one_answer_a_pixel_alone_and_in_company,
    lively,
    made,
    maps_of,
    pictures,
)

LIGHT = {"backbone": "mobilenet_v3_small", "strides": [2, 4, 8, 16], "widths": [6, 8, 10]}


@pytest.mark.parametrize("options", [{}, {"average": False, "upsampling": "shuffle", "separable": False}])
def test_it_answers_for_frames_of_odd_size(options):
    expect_one_answer_a_pixel_alone_and_in_company(made("unet-plus-plus", **LIGHT, **options))


def test_lessons_reach_every_parameter_whatever_answers_rest_on():
    losses = expect_lessons_to_reach_every_parameter(made("unet-plus-plus", **LIGHT, depth=1))
    assert list(losses) == ["cross_entropy", "dice", "auxiliary"]


def test_it_can_be_exported():
    expect_a_trace_to_answer_alike(made("unet-plus-plus", **LIGHT))


def test_the_nodes_and_what_they_take():
    """Maps of 16, 16, 24, 48 channels: X^{0,3} takes 16 + 2 * 6 of its row and 8 of X^{1,2}."""
    net = made("unet-plus-plus", **LIGHT)
    assert [spec.channels for spec in net.backbone.features] == [16, 16, 24, 48]
    taken = {name: node[0].in_channels for name, node in net.nodes.items()}
    assert taken == {
        "0_1": 16 + 16,
        "0_2": 16 + 6 + 8,
        "0_3": 16 + 12 + 8,
        "1_1": 16 + 24,
        "1_2": 16 + 8 + 10,
        "2_1": 72,
    }


@torch.no_grad()
def test_the_top_row_is_the_recursion_of_the_paper():
    """Eq. 1, written as it stands: X^{i,j} = H([X^{i,0} .. X^{i,j-1}, U(X^{i+1,j-1})])."""
    net = lively(made("unet-plus-plus", **LIGHT), (64, 64))
    images = pictures(1, (48, 40))
    column = net.backbone(images)

    def x(i: int, j: int) -> torch.Tensor:
        if j == 0:
            return column[i]
        row = [x(i, k) for k in range(j)]
        up = F.interpolate(x(i + 1, j - 1), size=row[0].shape[2:], mode="bilinear", align_corners=False)
        return net.nodes[f"{i}_{j}"](torch.cat([*row, up], dim=1))

    for found, j in zip(net.top_row(images, 3), (1, 2, 3), strict=True):
        torch.testing.assert_close(found, x(0, j))


@torch.no_grad()
def test_answers_are_the_mean_of_all_outputs_or_the_last_of_those_that_are_left():
    whole = lively(made("unet-plus-plus", **LIGHT), (64, 64))
    images = pictures(1, (48, 40))
    outputs = whole.outputs(images, 3)
    torch.testing.assert_close(whole.answer(images), sum(outputs) / 3)
    for depth in (1, 2, 3):
        fast = made("unet-plus-plus", **LIGHT, depth=depth, average=False).eval()
        fast.load_state_dict(whole.state_dict())
        torch.testing.assert_close(fast.answer(images), outputs[depth - 1])


@torch.no_grad()
def test_what_is_pruned_is_not_computed():
    net = made("unet-plus-plus", **LIGHT, depth=1).eval()
    ran: list[str] = []
    for name, node in net.nodes.items():
        node.register_forward_hook(lambda *_, name=name: ran.append(name))
    net.segment(pictures(1, (32, 32)))
    assert ran == ["0_1"]
    net.lessons(pictures(1, (32, 32)))
    assert sorted(ran[1:]) == sorted(net.nodes)


@torch.no_grad()
def test_every_output_counts_alike():
    """The loss is the sum over the outputs, of half the cross entropy and Dice, with the weights of the paper."""
    net = lively(made("unet-plus-plus", **LIGHT), (64, 64))
    images, truth = pictures(2, (40, 40)), maps_of(2, (40, 40))
    by_output = [net.criterion(enlarged(x, (40, 40)), truth) for x in net.outputs(images, 3)]
    wanted = sum(value for losses in by_output for value in losses.values())
    found = net.losses(images, truth)
    torch.testing.assert_close(sum(found.values()), wanted)
    torch.testing.assert_close(found["dice"], by_output[-1]["dice"])
    plain = F.cross_entropy(enlarged(net.outputs(images, 3)[-1], (40, 40)), truth.labels, ignore_index=255)
    torch.testing.assert_close(found["cross_entropy"], plain / 2)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"no_such": 1}, "there is no option no_such"),
        ({"depth": 5}, "depth must be 0 to 4"),
        ({"widths": [8, 8]}, "a width for each"),
        ({"auxiliary_weight": -1}, "auxiliary_weight"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_words(options, told):
    with pytest.raises(DetsegError, match=told):
        unet_plus_plus.configure(3, options, None)
