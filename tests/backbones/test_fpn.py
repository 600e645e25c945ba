"""Feature pyramid. Oracle: torchvision.ops.FeaturePyramidNetwork with the same weights."""

from collections import OrderedDict

import pytest
import torch
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from detseg.backbones.fpn import FeaturePyramid
from detseg.backbones.spec import FeatureSpec

SPECS = (FeatureSpec(8, 8), FeatureSpec(12, 16), FeatureSpec(20, 32))
BLOCKS = {None: None, "pool": LastLevelMaxPool(), "conv": LastLevelP6P7(16, 16)}


@pytest.mark.parametrize("extra", [None, "pool", "conv"])
@pytest.mark.parametrize("sizes", [[(16, 24), (8, 12), (4, 6)], [(13, 11), (7, 6), (4, 3)]])
def test_maps_equal_those_of_torchvision(extra, sizes):
    torch.manual_seed(0)
    theirs = FeaturePyramidNetwork([s.channels for s in SPECS], 16, extra_blocks=BLOCKS[extra])
    ours = FeaturePyramid(SPECS, 16, extra)
    assert len(ours.state_dict()) == len(theirs.state_dict())
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    maps = [torch.randn(2, s.channels, *hw) for s, hw in zip(SPECS, sizes, strict=True)]
    expected = list(theirs(OrderedDict((str(i), x) for i, x in enumerate(maps))).values())
    found = ours(maps)
    assert [spec.stride for spec in ours.features] == [8, 16, 32, 64, 128][: len(found)]
    assert all(spec.channels == x.shape[1] for spec, x in zip(ours.features, found, strict=True))
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other)
