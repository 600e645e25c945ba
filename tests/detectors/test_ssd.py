"""Contract cases, hand-computed truths, and what makes an SSD of which name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from detseg import catalog
from detseg.annotations import Categories
from detseg.checkpoints import Card, save
from detseg.detectors import ssd
from detseg.detectors.contract import Target
from detseg.errors import DetsegError
from detseg.parts.matcher import UNDECIDED
from detseg.preprocess import Preprocess
from detseg.runtimes.export import export_onnx
from tests.targets import target

NAMES = ["ssd", "ssdlite", "ssd300", "ssd512"]


def small(**changes) -> ssd.SSD:
    torch.manual_seed(0)
    sizes = (((16.0, 16.0), (24.0, 12.0)), ((40.0, 30.0),), ())
    values = {"strides": (8, 16), "extras": (ssd.Extra(16, 32),), "sizes": sizes}
    return ssd.build(ssd.SSDConfig(3, **{**values, **changes}))


@pytest.fixture(scope="module")
def model() -> ssd.SSD:
    return small().eval()


def on_meta(name: str, classes: int = 20) -> ssd.SSD:
    entry = catalog.entry(name)
    with torch.device("meta"):
        return ssd.build(ssd.configure(classes, {"backbone": entry.backbone, **entry.options}, None)).eval()


@pytest.mark.parametrize(
    ("name", "grids", "boxes"),
    [
        ("ssd300", [38, 19, 10, 5, 3, 1], 8732),  # section 2.2 of the paper; 24564: its table 4 onwards, SSD512
        ("ssd512", [64, 32, 16, 8, 4, 2, 1], 24564),
        ("ssdlite", [20, 10, 5, 3, 2, 1], 3234),
    ],
)
def test_maps_and_default_boxes_are_as_many_as_published(name, grids, boxes):
    network, side = on_meta(name), catalog.entry(name).imgsz
    images = torch.zeros(1, 3, side, side, device="meta")
    assert [(x.shape[2], x.shape[3]) for x in network.maps(images)] == [(g, g) for g in grids]
    raw = network.detect(images)
    assert raw.boxes.shape == (1, boxes, 4)
    assert raw.scores.shape == (1, boxes, 20)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2", "efficientnet_lite0"])
@pytest.mark.parametrize("name", ["ssd", "ssdlite"])
def test_any_backbone_serves(name, backbone):
    with torch.device("meta"):
        network = ssd.build(ssd.configure(2, {**catalog.entry(name).options, "backbone": backbone}, None)).eval()
    raw = network.detect(torch.zeros(1, 3, 320, 320, device="meta"))
    assert raw.scores.shape[1] == raw.boxes.shape[1] > 3000


def test_conv4_is_brought_to_length_20_at_each_place():
    tail = ssd.VGGTail(8, 4)
    first, second = tail([torch.rand(1, 8, 5, 5), torch.rand(1, 4, 3, 3)])
    torch.testing.assert_close(first.norm(dim=1), torch.full((1, 5, 5), 20.0))
    assert second.shape == (1, 1024, 3, 3)


def test_what_each_default_box_should_say(model):
    """One box a cell, 4 x 4 cells of 16: a truth on cell (1, 1), a crowd over the right half, a truth in it."""
    x, y = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="xy")
    priors = torch.stack([16 * x, 16 * y, 16 * x + 16, 16 * y + 16], dim=-1).reshape(-1, 4)
    truth = target([[17, 17, 33, 33], [32, 0, 64, 64], [48, 32, 64, 46]], [2, 0, 0], [False, True, False])
    classes, deltas = model._wanted(priors, truth)
    u = UNDECIDED
    assert classes.reshape(4, 4).tolist() == [[0, 0, u, u], [0, 3, u, u], [0, 0, u, 1], [0, 0, u, u]]
    assert deltas[0].tolist() == pytest.approx([10 / 16, 10 / 16, 0, 0])  # shifted by 1 of 16, over the variance 0.1
    # 14 high instead of 16, so centred 1 higher
    assert deltas[1].tolist() == pytest.approx([0, -10 / 16, 0, 5 * np.log(14 / 16)], abs=1e-5)


def test_what_is_in_a_crowd_changes_no_loss(model):
    """Logits that cry wolf inside the crowd cost nothing; the same outside do."""
    images = torch.randn(1, 3, 64, 64)
    objects = [[2.0, 2, 18, 18]]
    with torch.no_grad():
        deltas, logits, priors = model(images)
        logits = torch.zeros_like(logits)
        logits[..., 0] = 5
        right = priors[:, 0] >= 32
        logits[0, right, 2] = 50
        model.forward = lambda _: (deltas, logits, priors)
        try:
            crowd = target([*objects, [30.0, -30, 100, 100]], [0, 0], [False, True])
            quiet, loud = (model.losses(images, [t])["class"].item() for t in (crowd, target(objects, [0])))
        finally:
            del model.forward
    assert quiet < 10 < loud


def test_losses_are_finite_without_objects_and_reach_every_parameter_with_them():
    net = small(sizes=(((16.0, 16.0),), ((40.0, 30.0),), ((80.0, 80.0),))).train()
    images = torch.randn(2, 3, 96, 128)
    empty = net.losses(images, [Target.empty(), Target.empty()])
    assert {name: loss.item() for name, loss in empty.items()} == {"box": 0, "class": 0}
    sum(empty.values()).backward()
    boxes = target([[10.0, 10, 26, 26], [30, 20, 72, 52], [2, 2, 90, 84]], [0, 1, 2])
    sum(net.losses(images, [boxes, Target.empty()]).values()).backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_a_batch_of_one_trains_down_to_maps_of_one_pixel():
    for lite in (False, True):
        net = small(
            lite=lite, extras=(ssd.Extra(8, 8), ssd.Extra(8, 8)), sizes=((), (), ((9.0, 9.0),), ((30.0, 30.0),))
        )
        losses = net.train().losses(torch.randn(1, 3, 32, 32), [target([[2.0, 2, 30, 30]], [1])])
        assert all(torch.isfinite(loss) for loss in losses.values())


def test_detect_gives_boxes_in_the_frame_whatever_the_mode_and_company(model):
    images = torch.randn(2, 3, 64, 96)
    boxes, scores, _ = model.detect(images)
    assert boxes.shape == (2, 8 * 12 * 2 + 4 * 6, 4)  # the third map has no boxes
    assert scores.shape == (2, 216, 3)
    assert 0 <= scores.min().item() <= scores.max().item() <= 1
    assert boxes.min().item() >= 0
    assert boxes[..., 0::2].max().item() <= 96
    assert boxes[..., 1::2].max().item() <= 64
    torch.testing.assert_close(model.detect(images[1:]).boxes[0], boxes[1], atol=1e-3, rtol=1e-4)


def test_clusters_go_to_the_map_that_suits_their_size():
    # cells are a fourth of the side of what they hold: 32 px at stride 8, 64 at 16, 128 at 32, 256 at 64
    sizes = np.float64([[20, 30], [36, 30], [60, 70], [100, 150], [90, 160], [250, 260]])
    asked = []
    config = ssd.configure(3, {"clusters": 6}, lambda count: asked.append(count) or sizes)
    assert asked == [6]
    assert [len(boxes) for boxes in config.sizes] == [2, 1, 2, 1]
    assert len(config.extras) == 1  # what lies deeper has no boxes and is left out
    assert ssd.config_from_json(json.loads(json.dumps(ssd.config_to_json(config)))) == config
    network = catalog.build("ssd", ssd.config_to_json(config), 3)
    assert network.detect(torch.zeros(1, 3, 64, 64)).boxes.shape[1] == 2 * 64 + 16 + 2 * 4 + 1
    few = ssd.configure(3, {"clusters": 6}, lambda count: None)  # too few boxes for clusters
    assert few.sizes is None
    assert len(few.extras) == 3
    deep = ssd.configure(
        3, {**catalog.entry("ssd300").options, "backbone": "vgg16", "clusters": 2}, lambda k: sizes[:k]
    )
    assert (deep.extras, deep.steps) == ((), (8, 16))


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("ssd", {"neck": 3}, "no option neck; there are: clusters, "),
        ("ssd", {"scales": (0.1, 0.2)}, "6 maps need 7 scales, got 2"),
        ("ssd300", {"backbone": "resnet18"}, "stand on two maps of a VGG, not on resnet18"),
        ("ssd300", {"backbone": "vgg16", "width": 64}, "width must be 0"),
        ("ssd", {"width": 0}, "maps can only be added when"),
        ("ssd", {"reduced_tail": True}, "only SSDLite on MobileNetV3"),
        ("ssd300", {"backbone": "vgg16", "steps": (8, 16)}, "6 maps need as many steps, got 2"),
    ],
)
def test_what_cannot_be_built_is_told(name, options, told):
    with pytest.raises(DetsegError, match=told):
        ssd.configure(2, {**catalog.entry(name).options, **options}, None)


def test_a_reduced_tail_has_no_imagenet_weights():
    options = {**catalog.entry("ssdlite").options, "backbone": "mobilenet_v3_large", "reduced_tail": True}
    with pytest.raises(DetsegError, match="reduced tail has no ImageNet weights"):
        ssd.build(ssd.configure(2, options, None), backbone_weights="imagenet")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssd", "ssdlite"])
def test_the_exported_model_answers_like_torch(name, tmp_path):
    entry = catalog.entry(name)
    config = ssd.configure(
        3, {"backbone": entry.backbone, **entry.options}, lambda k: np.linspace(12, 60, 2 * k).reshape(k, 2)
    )
    torch.manual_seed(0)
    card = Card(
        model=name,
        config=ssd.config_to_json(config),
        categories=Categories.from_names(["p", "q", "r"]),
        preprocess=Preprocess((96, 128), "stretch"),
    )
    save(tmp_path / "net.safetensors", card, ssd.build(config).state_dict())
    report = export_onnx(tmp_path / "net.safetensors", tmp_path / "net.onnx", half=False)
    assert report.graph.box_px < 1e-2
    assert report.graph.score < 1e-4
