"""U-Net: the paper's sizes, tiles that agree with the whole, mirrors as numpy has them, any backbone, the two doors."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from detseg import catalog
from detseg.errors import DetsegError
from detseg.parts.mirrored import mirrored
from detseg.postprocess.label_maps import shares
from detseg.postprocess.tiles import Tiling, segment_tiled
from detseg.segmenters import unet
from detseg.segmenters.contract import Segmenter
from tests.segmenter_contract import (
    CLASSES,
    expect_a_trace_to_answer_alike,
    expect_lessons_to_reach_every_parameter,
    expect_one_answer_a_pixel_alone_and_in_company,
    lively,
    made,
    pictures,
)

LIGHT = {"backbone": "mobilenet_v3_small", "widths": [8, 8, 12, 16]}
FORMS = {
    "paper": ("unet-valid", {"width": 4, "steps": 2, "dropout": 0.0}),
    "light": ("unet", LIGHT),
    "stem": ("unet", {**LIGHT, "stem": 4, "upsampling": "shuffle", "separable": False, "strides": [2, 4, 8]}),
}


def model_of(form: str) -> Segmenter:
    name, options = FORMS[form]
    return made(name, **options)


@pytest.mark.parametrize("form", FORMS)
def test_it_answers_for_frames_of_odd_size(form):
    expect_one_answer_a_pixel_alone_and_in_company(model_of(form))


@pytest.mark.parametrize("form", FORMS)
def test_lessons_reach_every_parameter(form):
    expect_lessons_to_reach_every_parameter(model_of(form), (32, 48))


@pytest.mark.parametrize("form", ["paper", "stem"])
def test_it_can_be_exported(form):
    expect_a_trace_to_answer_alike(model_of(form))


def test_the_papers_network_has_the_papers_sizes():
    """Fig. 1: of 572 x 572 the maps are 568, 280, 136, 64 and 28 wide, the answer 388; 31 million parameters."""
    with torch.device("meta"):
        net = made("unet-valid", classes=2).eval()
        images = torch.zeros(1, 3, 572, 572)
        maps = net.backbone(images)
        answer = net.tile(images)
    assert [tuple(x.shape[1:3]) for x in maps] == [(64, 568), (128, 280), (256, 136), (512, 64), (1024, 28)]
    assert answer.shape == (1, 2, 388, 388)
    assert (net.config.context, unet.least_tile(388, 4), unet.least_tile(389, 4)) == (92, 388, 404)
    assert 572 == 388 + 2 * 92
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(31.03e6, rel=1e-3)
    assert net.backbone.dropout.p == 0.5


def test_weights_start_with_a_deviation_of_the_root_of_2_over_the_incoming_nodes():
    net = made("unet-valid", width=32, steps=2)
    weight = net.backbone.levels[1][2].weight
    assert float(weight.detach().std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


@torch.no_grad()
def test_tiles_agree_with_the_whole_picture():
    """Cut with their context at multiples of 16 from the picture, mirrored by numpy, they are what the whole says."""
    net = lively(made("unet-valid", width=4), (64, 64))
    image = pictures(1, (300, 220))
    whole = net.segment(image)
    context, size = net.config.context, unet.least_tile(112, 4)
    beyond = context + 2 * size
    picture = np.pad(image[0].numpy(), ((0, 0), (context, beyond), (context, beyond)), mode="reflect")
    joined = torch.full_like(whole, torch.nan)
    for y in range(0, 300, 112):
        for x in range(0, 220, 112):
            part = torch.from_numpy(picture[:, y : y + size + 2 * context, x : x + size + 2 * context])
            tile = net.tile(part[None])[:, :, : 300 - y, : 220 - x]
            joined[:, :, y : y + size, x : x + size] = tile
    assert size % 16 == 4  # so that neighbours overlap, by 4 pixels
    assert (joined - whole).abs().max() < 1e-4 * whole.abs().max()


@torch.no_grad()
def test_a_large_picture_in_tiles_of_the_route_is_the_picture_in_one_piece():
    net = lively(made("unet-valid", width=4), (64, 64))
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (46, 62, 3), dtype=np.uint8)
    noise = rng.integers(0, 8, (1100, 1500, 3), np.uint8)
    image = cv2.resize(coarse, (1500, 1100), interpolation=cv2.INTER_CUBIC) ^ noise

    def logits(frames):
        images = (torch.from_numpy(frames).permute(0, 3, 1, 2).float() - 127) / 64
        return net.segment(images).numpy()

    in_one_piece = logits(image[None])
    middle, spread = (of(in_one_piece, axis=(0, 2, 3), keepdims=True) for of in (np.mean, np.std))

    def ask(frames):  # random weights would prefer one class everywhere
        return shares(3 * (logits(frames) - middle) / spread)

    whole = shares(3 * (in_one_piece - middle) / spread)[0]
    labels, sure = segment_tiled(image, Tiling((512, 512), 64, -(-net.config.context // 32) * 32), ask)
    assert np.abs(sure - whole.max(axis=0)).max() < 1e-3
    there = np.take_along_axis(whole, labels[None].astype(np.int64), axis=0)[0]
    assert (whole.max(axis=0) - there).max() < 1e-3
    assert (np.bincount(labels.ravel(), minlength=CLASSES) > 10_000).sum() > 1


@torch.no_grad()
def test_a_tile_rests_on_its_context_and_no_more():
    """With one step down tiles are 2, 4, 6 .. pixels wide and start at even ones; the context is 8."""
    net = lively(made("unet-valid", width=8, steps=1), (32, 32))
    image = pictures(1, (40, 44)).requires_grad_()
    with torch.enable_grad():
        tile = net.segment(image)[0, :, 16:20, 18:20]
        seen = torch.autograd.grad(tile.sum(), image)[0].abs().sum(dim=(0, 1)).nonzero()
    assert net.config.context == 8
    assert seen.amin(dim=0).tolist() == [16 - 8, 18 - 8]
    assert seen.amax(dim=0).tolist() == [19 + 8, 19 + 8]


@torch.no_grad()
@pytest.mark.parametrize("axis", [2, 3])
def test_skips_are_cropped_to_where_the_map_beside_them_lies(axis):
    """What is about the middle knows no left: with every kernel turned round a turned tile gives the turned answer."""
    net = lively(made("unet-valid", width=4, steps=3), (32, 32))
    side = unet.least_tile(20, 3) + 2 * net.config.context
    tile = pictures(1, (side, side))
    wanted = net.tile(tile).flip(axis)
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            layer.weight.copy_(layer.weight.flip(axis))
    torch.testing.assert_close(net.tile(tile.flip(axis)), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("hw", [(9, 7), (5, 2), (1, 3), (30, 1)])
def test_mirrors_are_numpys_also_for_frames_smaller_than_their_margin(hw):
    images = pictures(2, hw)
    wanted = np.pad(images.numpy(), ((0, 0), (0, 0), (20, 3), (0, 41)), mode="reflect")
    assert np.array_equal(mirrored(images, (20, 3), (0, 41)).numpy(), wanted)


@torch.no_grad()
def test_a_frame_may_be_smaller_than_the_margin():
    net = lively(made("unet-valid", width=4), (32, 32))
    assert net.segment(pictures(1, (10, 3))).isfinite().all()


@pytest.mark.parametrize(("backbone", "strides"), [("resnet18", [2, 4, 8, 16, 32]), ("convnext_tiny", [4, 8, 16, 32])])
def test_skips_are_what_the_backbone_has(backbone, strides):
    with torch.device("meta"):
        net = made("unet", backbone=backbone).eval()
        assert [spec.stride for spec in net.backbone.features] == strides
        assert net.segment(torch.zeros(1, 3, 65, 97)).shape == (1, 3, 65, 97)


def test_what_is_frozen_stays_as_it_is():
    net = made("unet-valid", width=4)
    net.backbone.freeze(2)
    frozen = [name for name, p in net.named_parameters() if not p.requires_grad]
    assert {name.split(".")[2] for name in frozen} == {"0", "1", "2"}  # full resolution, stride 2 and stride 4
    net.backbone.freeze(len(net.backbone.stages()))
    assert not any(p.requires_grad for p in net.backbone.parameters())


def test_the_context_stands_in_the_checkpoint():
    config = unet.configure(2, {"steps": 3}, None)
    assert unet.config_to_json(config)["context"] == 44 == 6 * 8 - 4
    assert unet.config_to_json(made("unet", **LIGHT).config)["context"] == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"no_such": 1}, "there is no option no_such; there are: .*loss.terms"),
        ({"backbone": "resnet18"}, "cannot change it"),
        ({"padding": "same"}, "wants a backbone"),
        ({"context": 5}, "no option context"),
        ({"loss.terms": "dise"}, "no loss dise"),
        ({"padding": "same", "backbone": "resnet18", "widths": [8]}, "a width for each"),
        ({"steps": 0}, "at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_words(options, told):
    with pytest.raises(DetsegError, match=f"(?s)U-Net cannot be built so.*{told}"):
        unet.configure(3, options, None)


def test_the_papers_network_has_no_weights_to_start_from():
    with pytest.raises(DetsegError, match="no weights to start from"):
        unet.build(unet.configure(2, {"width": 4}, None), backbone_weights="imagenet")


def test_the_catalog_names_both():
    assert catalog.entry("unet-valid").backbone == unet.ITS_OWN
    assert catalog.entry("unet").task == "segment"
