"""SegNet. Oracles: torch's own unpooling, a map by hand, the layers of the paper, torchvision's VGG."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import vgg11_bn

from detseg.backbones.spec import BackboneError
from detseg.segmenters import segnet
from tests.segmenter_contract import CLASSES, expect_the_contract, small


def test_maxima_go_back_to_where_they_stood():
    """3 x 3 pixels: the windows reach over the right and lower edge, and nothing is left out."""
    x = torch.tensor([[[[1.0, 2, 9], [4, 3, 5], [8, 6, 7]]]])
    pooled, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    assert pooled[0, 0].tolist() == [[4, 9], [8, 7]]
    back = segnet.unpooled(pooled, indices, (3, 3))
    assert back[0, 0].tolist() == [[0, 0, 9], [4, 0, 0], [8, 0, 7]]


@pytest.mark.parametrize("hw", [(8, 6), (7, 9), (1, 1)])
def test_unpooling_is_torchs(hw):
    x = torch.randn(2, 3, *hw, requires_grad=True)
    pooled, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
    wanted = F.max_unpool2d(pooled, indices, 2, output_size=hw)
    found = segnet.unpooled(pooled, indices, hw)
    torch.testing.assert_close(found, wanted)
    weights = torch.randn(wanted.shape)
    given, expected = (torch.autograd.grad((y * weights).sum(), x, retain_graph=True)[0] for y in (found, wanted))
    torch.testing.assert_close(given, expected)


def test_the_network_is_the_papers():
    """13 convolutions of VGG16 and 13 that mirror them, all with batch norm; strides and channels of the decoder."""
    with torch.device("meta"):
        model = segnet.build(segnet.SegNetConfig(11))
    encoder, decoder = (
        [(c.in_channels, c.out_channels) for c in part.modules() if isinstance(c, nn.Conv2d)]
        for part in (model.backbone, model.decoder)
    )
    assert len(encoder) == len(decoder) == 13
    assert decoder[:6] == [*[(512, 512)] * 5, (512, 256)]
    assert decoder[6:] == [(256, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64), (64, 64)]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 26
    assert (model.scores.in_channels, model.scores.out_channels) == (64, 11)


def test_the_encoder_is_torchvisions_vgg():
    torch.manual_seed(0)
    theirs = vgg11_bn(init_weights=False).features
    for norm in (m for m in theirs if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean), nn.init.uniform_(norm.running_var, 0.5, 1.5)
    ours = segnet.Encoder(segnet.vgg_blocks(theirs)).eval()
    theirs.eval()
    assert [len(segnet._convolutions(block)) for block in ours.blocks] == [1, 1, 2, 2, 2]
    assert (ours.features[0].channels, ours.features[0].stride, len(ours.stages())) == (512, 32, 4)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(images)[0], theirs(images))
    for stages, frozen in ((1, 2), (2, 3), (3, 4), (4, 5)):  # the first two blocks work at strides 1 and 2
        ours.freeze(stages)
        free = [any(p.requires_grad for p in block.parameters()) for block in ours.blocks]
        assert free == [False] * frozen + [True] * (5 - frozen)


def test_the_answer_is_that_of_torchs_layers():
    """Even sides: torch's pooling and unpooling modules between the same convolutions."""
    model = small("segnet", backbone="basic", width=4).eval()
    pool, unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
    x, places = torch.randn(2, 3, 32, 48), []
    with torch.no_grad():
        found = model.segment(x)
        for block in model.backbone.blocks:
            x, indices = pool(block(x))
            places.append(indices)
        for block, indices in zip(model.decoder, places[::-1], strict=True):
            x = block(unpool(x, indices))
        torch.testing.assert_close(found, model.scores(x))


def test_segnet_basic_is_the_papers():
    """Four blocks of 7 x 7 to 64 channels without biases, a decoder without ReLU."""
    model = segnet.build(segnet.SegNetConfig(11, backbone="basic"))
    layers = [c for part in (model.backbone, model.decoder) for c in part.modules() if isinstance(c, nn.Conv2d)]
    assert [c.kernel_size for c in layers] == [(7, 7)] * 8
    assert [(c.in_channels, c.out_channels) for c in layers] == [(3, 64), *[(64, 64)] * 7]
    assert all(c.bias is None for c in layers)
    assert sum(isinstance(m, nn.ReLU) for m in model.backbone.modules()) == 4
    assert not any(isinstance(m, nn.ReLU) for m in model.decoder.modules())


def test_it_keeps_the_contract():
    model = small("segnet", backbone="basic", width=4)
    images = torch.randn(1, 3, 65, 97)
    assert model.backbone(images)[0].shape[2:] == (5, 7)  # 65 / 16 and 97 / 16, rounded up: no row is lost
    assert model.answer(images).shape == (1, CLASSES, 65, 97)
    expect_the_contract(model, "segnet")


def test_other_backbones_are_refused():
    with pytest.raises(BackboneError, match="SegNet mirrors a VGG"):
        segnet.build(segnet.SegNetConfig(2, backbone="resnet18"))
    with pytest.raises(BackboneError, match="SegNet-Basic has no ImageNet weights"):
        segnet.build(segnet.SegNetConfig(2, backbone="basic"), backbone_weights="imagenet")
