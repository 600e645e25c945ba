"""The maps of region networks: channels and sides as they say, and what cannot be had is refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detseg.backbones.region_maps import MobileNetEnds, build_region_maps
from detseg.backbones.spec import BackboneError


def test_a_pyramid_has_its_width_on_every_map_and_one_coarser():
    made = build_region_maps("resnet18", strides=(8, 16, 32), width=24, norm=True, extra=True)
    maps = made.neck.eval()(made.backbone.eval()(torch.zeros(1, 3, 64, 128)))
    assert [tuple(x.shape[1:]) for x in maps] == [(24, 8, 16), (24, 4, 8), (24, 2, 4), (24, 1, 2)]
    assert made.channels == 24
    assert not made.last_stage


def test_the_stage_behind_one_map_goes_on_where_the_backbone_ends():
    """Backbone and stage together are the whole network: torchvision's layer4 follows its layer3."""
    made = build_region_maps("resnet18", strides=(16,), width=0, last_stage=True)
    (x,) = made.neck(made.backbone.eval()(torch.zeros(1, 3, 64, 64)))
    assert tuple(x.shape) == (1, made.channels, 4, 4) == (1, 256, 4, 4)
    y = nn.Sequential(*made.last_stage).eval()(x)
    assert tuple(y.shape) == (1, made.last_channels, 2, 2) == (1, 512, 2, 2)


def test_both_ends_of_a_mobilenet_share_their_stride():
    made = MobileNetEnds("mobilenet_v3_small").eval()
    maps = made(torch.zeros(1, 3, 64, 64))
    assert [x.shape[1] for x in maps] == [spec.channels for spec in made.features]
    assert {tuple(x.shape[2:]) for x in maps} == {(2, 2)}
    assert sum(len(stage) for stage in made.stages()) == len(made.layers)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_other_networks_have_no_such_ends(name):
    with pytest.raises(BackboneError, match=name):
        build_region_maps(name, strides=(32, 32), width=16, both_ends=True)
