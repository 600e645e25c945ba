"""Two ways to look at all windows that agree, crops that teach what they should, and four pictures learnt by heart."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_iou

from detseg import catalog
from detseg.annotations import Categories
from detseg.checkpoints import Card, save
from detseg.detectors import sliding_window
from detseg.detectors.contract import Target
from detseg.detectors.sliding_window import SlidingWindowConfig, boxes_of, is_background, jittered
from detseg.errors import DetsegError
from detseg.evaluation import evaluate
from detseg.postprocess import Selection
from detseg.preprocess import Preprocess
from detseg.runtimes.export import export_onnx
from tests.by_heart import Learnt, learn
from tests.targets import target

NAMES = ["sliding-window", "sliding-window-lenet5", "sliding-window-alexnet"]
WINDOWS = ((20.0, 20.0), (45.0, 31.0), (90.0, 80.0))


def small(**changes) -> sliding_window.SlidingWindow:
    torch.manual_seed(0)
    values = {"backbone": "lenet5", "cells": 5, "hidden": (24, 16), "windows": WINDOWS}
    return sliding_window.build(SlidingWindowConfig(**{"num_classes": 3, **values, **changes}))


@pytest.mark.parametrize(
    ("backbone", "stride", "frame_hw"),
    [
        ("lenet5", 4, (97, 131)),
        ("efficientnet_lite0", 4, (80, 75)),
        ("efficientnet_lite0", 8, (64, 50)),
        ("resnet18", 4, (48, 61)),
        ("alexnet", 16, (40, 30)),
    ],
)
def test_one_pass_and_crop_by_crop_say_the_same(backbone, stride, frame_hw):
    """Also with batch norms that do something, and for windows that reach over the frame."""
    windows = ((20.0, 20.0), (30.0, 45.0), (70.0, 60.0)) if backbone != "alexnet" else ((20.0, 20.0), (30.0, 45.0))
    model = small(backbone=backbone, stride=stride, cells=3, windows=windows, refine=True).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
    torch.nn.init.normal_(model.head.layers[-1].weight, std=0.2)
    images = torch.randn(2, 3, *frame_hw)
    with torch.no_grad():
        at_once, singly = model.detect(images), model.detect_naive(images)
        sweeping = small(backbone=backbone, stride=stride, cells=3, windows=windows, refine=True, sweep="naive").eval()
        sweeping.load_state_dict(model.state_dict())
        chosen = sweeping.detect(images)
    assert at_once.scores.std() > 1e-3
    torch.testing.assert_close(at_once.scores, singly.scores, atol=1e-4, rtol=0)
    torch.testing.assert_close(at_once.boxes, singly.boxes, atol=1e-2, rtol=0)
    assert torch.equal(chosen.scores, singly.scores)


def test_padding_would_tell_them_apart():
    """The proof that the test above can fail: with the cells that saw padding the scores differ."""
    model = small(backbone="resnet18", cells=3).eval()
    crop = torch.randn(1, 3, model.side, model.side)
    field, whole = model.field.inside(model.side), model.backbone(F.pad(crop, (8, 8, 8, 8), value=1.0))[0]
    alone = model.backbone(crop)[0]
    shift = 8 // model.field.step
    same = (whole[..., shift:, shift:][..., : alone.shape[2], : alone.shape[3]] - alone).abs().amax(dim=(0, 1)) < 1e-4
    assert same[field.start : field.stop, field.start : field.stop].all()
    assert not same[0].any()
    assert len(field) == 3


def test_windows_lie_where_they_should():
    """32 x 32 windows of a 32 x 32 crop, every 4 pixels; of one twice as wide every 8; larger than the frame: one."""
    model = small(windows=((32.0, 32.0), (64.0, 32.0), (64.0, 128.0)))
    first, wide, large = model.levels((40, 64))
    assert first.counts_rc == (3, 9)
    assert boxes_of(first, first.box_wh)[[0, 1, 9, 26]].tolist() == [
        [0, 0, 32, 32], [4, 0, 36, 32], [0, 4, 32, 36], [32, 8, 64, 40],
    ]  # fmt: skip
    assert wide.counts_rc == (3, 1)
    assert boxes_of(large, large.box_wh).tolist() == [[0, -44, 64, 84]]
    assert len(model.windows((40, 64))) == 27 + 3 + 1
    with torch.no_grad():
        raw = model.detect(torch.randn(1, 3, 40, 64))
    assert raw.boxes[0, -1].tolist() == [0, 0, 64, 40]  # cut to the frame


def test_windows_of_small_things_see_what_is_around_them():
    model = small(windows=((10.0, 20.0),), magnify=2.0)  # crops of 32 pixels show 16 at least
    (level,) = model.levels((20, 30))
    assert level.seen_wh == (16.0, 20.0)
    assert level.step_xy == (2.0, 2.5)
    seen, boxes = boxes_of(level, level.seen_wh), boxes_of(level, level.box_wh)
    torch.testing.assert_close(seen[:, 0::2], boxes[:, 0::2] + torch.tensor([-3.0, 3.0]))
    torch.testing.assert_close(seen[:, 1::2], boxes[:, 1::2])
    torch.testing.assert_close(model._seen(boxes), seen)
    assert boxes[0, 0] == 0
    assert boxes[-1, 2] == 30


@pytest.mark.parametrize("refine", [False, True])
def test_the_loss_by_hand(refine):
    """Logits 0, 1, 2 and 0 whatever is shown; 4 crops of an object of class 1, 12 of background."""
    model = small(positives=4, negatives=3.0, mined=0.25, refine=refine)
    last = model.head.layers[-1]
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([0.0, 1.0, 2.0, 0.0, *[0.0] * 4])[: len(last.bias)]
    images, truths = torch.randn(2, 3, 96, 96), [target([[30, 30, 62, 70]], [1]), Target.empty()]
    torch.manual_seed(7)
    boxes, _, goals = model._lessons(images, truths)
    torch.manual_seed(7)
    found = model.losses(images, truths)
    total = np.log(2 + np.exp(1) + np.exp(2))
    given, wanted = boxes[0][:4].numpy(), goals[0][:4].numpy()
    fit = np.clip((box_iou(boxes[0][:4], goals[0][:4]).diagonal().numpy() - 0.5) / 0.3, 0, 1).sum()
    assert 0 < fit < 4
    assert found["class"].item() == pytest.approx(total - 2 * (4 if refine else fit) / 28, rel=1e-5)
    if not refine:
        assert list(found) == ["class"]
        return
    wh, goal_wh = given[:, 2:] - given[:, :2], wanted[:, 2:] - wanted[:, :2]
    shift = ((wanted[:, :2] + wanted[:, 2:]) - (given[:, :2] + given[:, 2:])) / 2 / wh
    deltas = np.abs(np.concatenate([shift, np.log(goal_wh / wh)], axis=1))
    smooth = np.where(deltas < 0.1, deltas**2 / 0.2, deltas - 0.05)
    assert found["box"].item() == pytest.approx(smooth.sum() / 4, rel=1e-4)


def test_what_crops_are_of():
    torch.manual_seed(1)
    model = small(positives=40, mined=0.5, mined_levels=3)
    truth = target(
        [[10, 10, 32, 30], [60, 50, 110, 90], [0, 60, 50, 120], [64, 0, 128, 40]], [0, 2, 0, 1],
        [False, False, False, True],
    )  # fmt: skip
    boxes, labels, _ = (part[0] for part in model._lessons(torch.randn(1, 3, 128, 128), [truth]))
    objects = truth.boxes[~truth.ignored]
    positive, background = boxes[labels > 0], boxes[labels == 0]
    assert len(positive) == 40
    assert len(background) == 120
    overlaps, nearest = box_iou(positive, objects).max(dim=1)
    assert overlaps.min() >= 0.5
    assert torch.equal(truth.labels[~truth.ignored][nearest] + 1, labels[labels > 0])
    assert 8 <= (labels == 3).sum() <= 32  # half of them, though there is one such object among three
    overlaps = box_iou(background, objects).max(dim=1).values
    assert overlaps.max() < 0.5
    assert (overlaps == 0).any()
    ignored = truth.boxes[truth.ignored][0]
    shared = (torch.minimum(background[:, 2:], ignored[2:]) - torch.maximum(background[:, :2], ignored[:2])).clamp(0)
    inside = shared.prod(dim=1) / (background[:, 2:] - background[:, :2]).prod(dim=1)
    assert inside.max() <= 0.5


@pytest.mark.parametrize(("near", "least"), [(1.0, 120), (0.5, 60), (0.0, 0)])
def test_near_misses_touch_an_object(near, least):
    """Of windows of which hardly any touches the object, as many are drawn as the share says."""
    torch.manual_seed(1)
    model = small(positives=40, mined=0.0, near=near, windows=((10.0, 10.0),), magnify=4.0)
    boxes, labels, _ = (
        part[0] for part in model._lessons(torch.zeros(1, 3, 256, 256), [target([[9, 9, 20, 20]], [0])])
    )
    overlaps = box_iou(boxes[labels == 0], torch.tensor([[9.0, 9, 20, 20]]))[:, 0]
    assert len(overlaps) == 120
    assert overlaps.max() < 0.5
    assert least <= (overlaps >= 0.1).sum() <= least + 10


def test_the_worst_mistakes_are_mined():
    """A patch on background gets high scores: it is found, its neighbours that overlap it by half are not."""
    model = small(windows=((32.0, 32.0),), mined_levels=1)
    windows = model.windows((96, 96))
    centre = (windows[:, :2] + windows[:, 2:]) / 2
    doubt = 6 - (centre - torch.tensor([64.0, 64.0])).norm(dim=1) / 8
    on_object = (centre - 20).norm(dim=1) < 8
    said = torch.zeros(1, len(windows), 4)
    said[0, :, 2] = torch.where(on_object, 9.0, doubt)
    model.forward = lambda images, levels: said  # type: ignore[method-assign]
    (mined,) = model._mined(torch.zeros(1, 3, 96, 96), [target([[4, 4, 36, 36]], [0])], 3)
    assert mined[0].tolist() == [48, 48, 80, 80]
    assert box_iou(mined, torch.tensor([[4.0, 4, 36, 36]])).max() < 0.5
    assert (box_iou(mined, mined) - torch.eye(3)).max() <= 0.5


def test_jitter_keeps_the_overlap_and_is_not_idle():
    boxes = torch.tensor([[0.0, 0, 30, 60], [5, 5, 9, 8]]).repeat(200, 1)
    moved = jittered(boxes, 0.6)
    overlaps = box_iou(moved, boxes).diagonal()
    assert overlaps.min() >= 0.6 - 1e-5
    assert overlaps.mean() < 0.85


def test_background_by_hand():
    windows = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [8, 0, 18, 10], [30, 0, 40, 10], [34, 0, 44, 10]])
    truth = target([[0, 0, 10, 10], [20, -20, 36, 30]], [0, 0], [False, True])
    assert is_background(windows, truth, 0.3).tolist() == [False, False, True, False, True]  # IoU 1, 1/3, 1/9
    assert is_background(windows, Target.empty(), 0.3).all()


@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("frame_hw", [(96, 96), (71, 113), (30, 17)])
def test_losses_are_finite_without_objects_and_reach_every_parameter(refine, frame_hw):
    model = small(refine=refine).train()
    images = torch.randn(2, 3, *frame_hw)
    empty = model.losses(images, [Target.empty(), Target.empty()])
    assert empty["class"].item() > 0
    assert all(torch.isfinite(loss) for loss in empty.values())
    assert empty.get("box", torch.tensor(0.0)).item() == 0
    h, w = frame_hw
    sum(model.losses(images, [target([[2, 2, w - 3, h - 3]], [1]), Target.empty()]).values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert all(p.grad.abs().sum() > 0 for p in model.head.parameters())


def test_a_picture_that_is_one_crowd_teaches_nothing():
    model = small(refine=True)
    crowd = target([[-100, -100, 300, 300]], [0], [True])
    found = model.losses(torch.randn(1, 3, 96, 96), [crowd])
    assert {name: loss.item() for name, loss in found.items()} == {"class": 0, "box": 0}
    sum(found.values()).backward()


def test_mining_leaves_statistics_alone():
    torch.manual_seed(0)
    model = small(backbone="efficientnet_lite0", cells=2, positives=1, negatives=2.0, mined=1.0, near=0.0).train()
    norm = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    before = norm.num_batches_tracked.item()
    model.losses(torch.randn(1, 3, 64, 64), [Target.empty()])
    assert norm.num_batches_tracked.item() == before + 1  # the crops, not the frame
    assert model.training


@pytest.mark.parametrize("name", NAMES)
def test_the_names_build_and_their_configs_survive_json(name):
    entry = catalog.entry(name)
    asked: list[int] = []

    def anchors(count: int) -> np.ndarray:
        asked.append(count)
        return np.linspace(16, 200, 2 * count).reshape(count, 2)

    config = sliding_window.configure(2, {"backbone": entry.backbone, **entry.options}, anchors)
    assert asked == [8]
    assert len(config.shapes) == 8
    stored = json.loads(json.dumps(sliding_window.config_to_json(config)))
    assert sliding_window.config_from_json(stored) == config
    with torch.device("meta"):
        model = catalog.build(name, stored, 2).eval()
    side = {"sliding-window": 36, "sliding-window-lenet5": 32, "sliding-window-alexnet": 272}[name]
    assert model.side == side
    raw = model.detect(torch.zeros(1, 3, 320, 320, device="meta"))
    assert raw.boxes.shape == (1, raw.scores.shape[1], 4)
    assert raw.scores.shape[2] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"foo": 1}, "foo"),
        ({"sweep": "fast"}, "convolutional or naive"),
        ({"windows": 5}, "cannot be built"),
        ({"windows": [[10, 0]]}, "above 0"),
        ({"windows": []}, "must be windows"),
        ({"negative_iou": 0.7}, "negative_iou"),
        ({"near": 0.6}, "mined and near"),
        ({"full_iou": 0.5}, "full_iou"),
        ({"cells": 0}, "cells"),
        ({"cells": "many"}, "cannot be built"),
        ({"mined": 2}, "mined"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(DetsegError, match=words):
        sliding_window.configure(2, options, None)


def test_lenet5_has_no_weights_and_one_map():
    config = SlidingWindowConfig(2, backbone="lenet5", cells=5)
    assert sum(p.numel() for p in sliding_window.build(config).backbone.parameters()) == 5 * 5 * (18 + 96) + 6 + 16
    with pytest.raises(DetsegError, match="lenet5 has no weights"):
        sliding_window.build(config, backbone_weights="imagenet")
    with pytest.raises(DetsegError, match="stride 4"):
        sliding_window.build(SlidingWindowConfig(2, backbone="lenet5", stride=8))


@pytest.mark.parametrize("sweep", ["convolutional", "naive"])
def test_exported_it_says_the_same(tmp_path, sweep):
    """Whatever way it sweeps: exported there is one pass a level."""
    model = small(sweep=sweep, refine=True, windows=((30.0, 30.0), (45.0, 31.0))).eval()
    card = Card(
        model="sliding-window-lenet5",
        config=sliding_window.config_to_json(model.config),
        categories=Categories.from_names(["a", "b", "c"]),
        preprocess=Preprocess((40, 56)),
    )
    save(tmp_path / "w.safetensors", card, model.state_dict())
    report = export_onnx(tmp_path / "w.safetensors", tmp_path / "w.onnx")
    assert report.graph.score < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("refine", [False, True])
def test_four_pictures_are_learnt_by_heart(tmp_path, refine):
    """Every object has a window that overlaps it by 0.8, so all can be found; refined ones fit more closely.

    Suppression is that of the time, from 0.3 on: of two windows that overlap an object by half, one smaller and one
    larger than it, each overlaps the other less.
    """
    learnt = learn(
        tmp_path, "sliding-window-lenet5", until=expect_most_boxes, steps=250, imgsz=128, lr=3e-3,
        options={"clusters": 6, "refine": refine},
    )  # fmt: skip
    windows = learnt.model.windows((128, 128))
    assert all(box_iou(t.boxes, windows).amax(dim=1).min() > 0.8 for t in learnt.batch.targets if len(t.boxes))


def expect_most_boxes(learnt: Learnt) -> None:
    metrics = evaluate(learnt.truth, learnt.found(Selection(conf=0.05, iou=0.3)))
    assert metrics.ap50 > 0.95
    assert metrics.ap75 > 0.5
