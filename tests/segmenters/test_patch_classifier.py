"""The patch classifier: one pass gives what windows give one by one, the paper's sizes, who is drawn, the two doors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detseg.errors import DetsegError
from detseg.parts.label_maps import IGNORE, LabelMaps
from detseg.postprocess.label_maps import shares
from detseg.postprocess.tiles import Tiling, segment_tiled
from detseg.segmenters import patch_classifier
from detseg.segmenters.patch_classifier import balanced_pixels
from tests.segmenter_contract import (
    expect_a_trace_to_answer_alike,
    expect_lessons_to_reach_every_parameter,
    expect_one_answer_a_pixel_alone_and_in_company,
    lively,
    made,
    pictures,
)

THIN = {"side": 31, "kernels": [4, 3, 3], "maps": 4, "hidden": [6], "windows": 8}


@pytest.mark.parametrize("stride", [1, 4])
def test_it_answers_for_frames_of_odd_size(stride):
    expect_one_answer_a_pixel_alone_and_in_company(made("patch-classifier", **THIN, stride=stride), (33, 47))


def test_lessons_reach_every_parameter():
    expect_lessons_to_reach_every_parameter(made("patch-classifier", **THIN), (40, 32))


def test_it_can_be_exported():
    expect_a_trace_to_answer_alike(made("patch-classifier", **THIN), (17, 22))


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2, 4, 8])
@pytest.mark.parametrize("norm", [True, False])
def test_one_pass_gives_every_pixel_what_its_window_gives(stride, norm):
    net = lively(made("patch-classifier", **THIN, stride=stride, norm=norm), (40, 40))
    images = pictures(2, (23, 30))
    found = net.dense(net.beyond(images))
    assert found.shape == (2, 3, -(-23 // stride), -(-30 // stride))
    torch.testing.assert_close(found, net.window_by_window(images), atol=1e-4, rtol=0)
    assert found.std() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("side", [31, 38])  # the middle of 38 pixels is the 20th: 19 above and left, 18 below and right
def test_the_answer_at_a_pixel_is_that_of_the_window_about_it(side):
    """Windows cut by hand from the picture as numpy mirrors it, at its corners, too."""
    kernels = {31: [4, 3, 3], 38: [3, 3]}[side]
    net = lively(made("patch-classifier", **{**THIN, "side": side, "kernels": kernels}, stride=1), (40, 40))
    image = pictures(1, (23, 30))
    before = side // 2
    beyond = np.pad(image[0].numpy(), ((0, 0), (before, side), (before, side)), mode="reflect")
    answer = net.segment(image)[0]
    for y, x in [(0, 0), (22, 29), (0, 29), (11, 7), (12, 7)]:
        window = torch.from_numpy(beyond[:, y : y + side, x : x + side])
        torch.testing.assert_close(answer[:, y, x], net.of_windows(window[None])[0], atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("stride", [2, 4])
def test_with_a_stride_the_middles_of_blocks_are_asked_about(stride):
    net = lively(made("patch-classifier", **THIN, stride=1), (40, 40))
    sparse = made("patch-classifier", **THIN, stride=stride).eval()
    sparse.load_state_dict(net.state_dict())
    image, middle = pictures(1, (24, 32)), (stride - 1) // 2
    torch.testing.assert_close(
        sparse.dense(sparse.beyond(image)), net.segment(image)[:, :, middle::stride, middle::stride], atol=1e-4, rtol=0
    )
    assert sparse.segment(image[:, :, :23, :29]).shape == (1, 3, 23, 29)


def test_the_papers_network_has_the_papers_sizes():
    """Of a window of 95 pixels 92, 42, 18 and 6 are left after each convolution, 3 in the end."""
    config = patch_classifier.PatchClassifierConfig(2)
    seen: list[int] = []
    with torch.device("meta"):
        net = patch_classifier.build(config)
        for norm in net.backbone.norms:
            norm.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[2]))
        assert net.of_windows(torch.zeros(5, 3, 95, 95)).shape == (5, 2)
    assert (seen, config.cells) == ([92, 42, 18, 6], 3)
    assert [tuple(layer.weight.shape) for layer in net.layers] == [(200, 48, 3, 3), (2, 200, 1, 1)]
    assert patch_classifier.config_to_json(config)["context"] == 47


def test_pixels_are_drawn_alike_from_each_class_that_is_there():
    torch.manual_seed(0)
    labels = torch.full((40, 50), 2)
    labels[:3, :4], labels[20:, 10:20] = 0, IGNORE
    drawn = labels.flatten()[balanced_pixels(labels, 4000)]
    assert drawn.unique().tolist() == [0, 2]
    assert float((drawn == 0).float().mean()) == pytest.approx(0.5, abs=0.03)
    rare = balanced_pixels(labels, 4000)
    assert len(rare[labels.flatten()[rare] == 0].unique()) == 12  # each of its pixels, not one of them
    plain = labels.flatten()[balanced_pixels(labels, 4000, balanced=False)]
    assert float((plain == 0).float().mean()) == pytest.approx(12 / 1800, abs=0.006)
    assert (plain != IGNORE).all()
    assert len(balanced_pixels(torch.full((4, 4), IGNORE), 5)) == 0


def test_lessons_are_the_windows_about_the_drawn_pixels(monkeypatch):
    """Three pixels by hand: the loss is that of the answers there, with the weights of these pixels."""
    net = lively(made("patch-classifier", **THIN, stride=1), (40, 40))
    images = pictures(2, (23, 30))
    labels = torch.arange(23 * 30).reshape(1, 23, 30).repeat(2, 1, 1) % 3
    weights = torch.rand(2, 23, 30, generator=torch.Generator().manual_seed(1))
    places = [torch.tensor([0, 31]), torch.tensor([689])]
    given = iter(places)
    monkeypatch.setattr(patch_classifier, "balanced_pixels", lambda *_: next(given))
    found = net.losses(images, LabelMaps(labels, weights))["cross_entropy"]
    answer = net.segment(images).log_softmax(dim=1)
    at = [(0, 0, 0), (0, 1, 1), (1, 22, 29)]
    shares = torch.stack([weights[i, y, x] for i, y, x in at])
    each = torch.stack([-answer[i, labels[i, y, x], y, x] for i, y, x in at])
    torch.testing.assert_close(found, (each * shares).sum() / shares.sum(), atol=1e-5, rtol=1e-4)


def test_a_picture_without_labels_among_others_gives_no_windows():
    net = made("patch-classifier", **THIN).train()
    labels = torch.zeros(2, 32, 32, dtype=torch.int64)
    labels[1] = IGNORE
    loss = sum(net.losses(pictures(2, (32, 32)), LabelMaps(labels)).values())
    assert loss.isfinite()
    assert loss > 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"no_such": 1}, "there is no option no_such"),
        ({"backbone": "resnet18"}, "cannot change it"),
        ({"side": 96}, "side 96: 93 rows after a convolution of 4 cannot be halved"),
        ({"side": 47}, "side 47: nothing is left of a window after 4 poolings"),
        ({"stride": 3}, "power of two up to 16"),
        ({"stride": 32}, "power of two up to 16"),
        ({"windows": 0}, "at least 1"),
        ({"context": 3}, "no option context"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_words(options, told):
    with pytest.raises(DetsegError, match=told):
        patch_classifier.configure(3, options, None)


def test_it_has_no_weights_to_start_from():
    with pytest.raises(DetsegError, match="no weights to start from"):
        patch_classifier.build(patch_classifier.PatchClassifierConfig(2), backbone_weights="imagenet")


@pytest.mark.parametrize("stride", [1, 2])
def test_tiles_cut_with_their_context_answer_as_the_whole_picture(stride):
    """But for its border, beyond which a tile has windows about mirrored pixels, too, to tell what is between."""
    options = {"side": 65, "kernels": [4], "maps": 4, "hidden": [8], "stride": stride}
    model = made("patch-classifier", **options).eval()
    image = np.random.default_rng(0).integers(0, 256, (128, 256, 3), dtype=np.uint8)

    @torch.inference_mode()
    def ask(frames: np.ndarray) -> np.ndarray:
        return shares(model.segment(torch.from_numpy(frames).permute(0, 3, 1, 2) / 60 - 2).numpy())

    whole = ask(image[None])[0]
    tiling = Tiling.usual((192, 192), None, model.config.context)
    labels, sure = segment_tiled(image, tiling, ask)
    assert tiling.count(image.shape[:2]) > 1
    inside = (slice(stride, -stride),) * 2 if stride > 1 else (slice(None),) * 2
    np.testing.assert_allclose(sure[inside], whole.max(axis=0)[inside], atol=1e-5)
    assert (labels == whole.argmax(axis=0))[inside].mean() > 0.999
