"""What a cell sees, by hand and by changing pixels; pictures resized as torchvision's RoIAlign cuts them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import roi_align

from detseg.backbones.catalog import build_backbone
from detseg.backbones.receptive_field import Field, receptive_field
from detseg.backbones.spec import Backbone, BackboneError, FeatureSpec
from detseg.parts.area_pool import area_pool
from detseg.parts.resampling import resampled, row_weights


def test_fields_by_hand():
    """A 5x5 convolution, a pooling by 2, and the same again: LeNet-5 up to S4 sees 16 pixels, 4 apart."""
    field = Field().through(5, 1, 0).through(2, 2, 0).through(5, 1, 0).through(2, 2, 0)
    assert field == Field(step=4, first=0, last=15)
    assert list(field.inside(32)) == [0, 1, 2, 3, 4]
    assert [field.side(cells) for cells in (1, 4, 5)] == [16, 28, 32]
    padded = Field().through(3, 2, 1).through(3, 1, 2, dilation=2)
    assert padded == Field(step=2, first=-5, last=5)
    assert list(padded.inside(16)) == [3, 4, 5]  # cell 3 sees pixels 1 to 11, cell 5 pixels 5 to 15
    assert len(padded.inside(9)) == 0


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "googlenet", "shufflenet_v2_x0_5"])
def test_a_cell_sees_its_field_and_nothing_else(name):
    """Pixels are changed in turn; the cell answers exactly to those of its field (and, far in the corners, hardly)."""
    torch.manual_seed(0)
    network = build_backbone(name, strides=(8,)).eval().double()
    field = receptive_field(network, name)[0]
    side = field.side(3)
    cell = field.inside(side)[1]
    image = torch.randn(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    network(image)[0][0, :, cell, cell].square().sum().backward()
    assert image.grad is not None
    rows = image.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    low, high = field.step * cell + field.first, field.step * cell + field.last
    assert low <= rows.min()
    assert rows.max() <= high
    assert rows.min() - low <= 2  # ReLUs and poolings may shut a single row out, not more
    assert high - rows.max() <= 2


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "swin_t"])
def test_networks_that_see_everything_are_refused_by_name(name):
    with pytest.raises(BackboneError, match=name):
        receptive_field(build_backbone(name, strides=(8,)), name)


def test_maps_that_do_not_fit_and_lopsided_kernels_are_refused():
    class Odd(Backbone):
        features = (FeatureSpec(3, 1),)

        def __init__(self, kernel: tuple[int, int]) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, kernel)

        def forward(self, images):
            return [self.layer(images)]

        def stages(self):
            return [self.layer]

    assert receptive_field(Odd((3, 3)), "odd") == (Field(1, 0, 2),)
    with pytest.raises(BackboneError, match="along one side"):
        receptive_field(Odd((1, 3)), "odd")


@given(
    top=st.floats(-20, 60), height=st.floats(5, 90), left=st.floats(-20, 60), width=st.floats(5, 90),
    rows=st.integers(1, 12), columns=st.integers(1, 12),
)  # fmt: skip
def test_resampling_is_roi_align(top, height, left, width, rows, columns):
    image = torch.rand(1, 2, 41, 57, generator=torch.Generator().manual_seed(1))
    box = torch.tensor([[left, top, left + width, top + height]])
    x1, y1, x2, y2 = (float(v) for v in box[0])
    expected = roi_align(image, [box], (rows, columns), 1.0, 3, aligned=True)
    got = resampled(image, ((y1, y2), (x1, x2)), (rows, columns), (3, 3))
    # where a sample falls on the last pixel of colour, a digit decides
    torch.testing.assert_close(got, expected, atol=2e-3, rtol=0)


def test_weights_of_rows_by_hand():
    halves = row_weights(4, (0, 4), 2, 2)  # samples at 0.5 and 1.5, that is on the pixels themselves
    assert halves.tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
    assert row_weights(2, (-4, 4), 4).tolist() == [[0, 0], [0, 0], [0.5, 0.5], [0, 0]]  # nothing beyond, 3 is out of 2


@given(rows=st.integers(1, 13), cells=st.integers(1, 6))
def test_areas_are_pooled_by_their_shares(rows, cells):
    maps = torch.rand(2, 3, rows, 2 * cells, generator=torch.Generator().manual_seed(0))
    fine = maps.repeat_interleave(cells, dim=2)
    torch.testing.assert_close(area_pool(maps, cells), F.avg_pool2d(fine, (rows, 2)))
