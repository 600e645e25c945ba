"""One vector a picture: what it should say, what that costs by hand, and four pictures learnt by heart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from detseg import catalog
from detseg.annotations import AnnotationSet, Categories
from detseg.checkpoints import Card, save
from detseg.detectors import localiser
from detseg.detectors.contract import Target
from detseg.detectors.localiser import NOTHING, OBJECT, UNKNOWN, LocaliserConfig, boxes_of, object_of_each, shares_of
from detseg.errors import DetsegError
from detseg.preprocess import Preprocess
from detseg.runtimes.export import export_onnx
from tests.by_heart import learn
from tests.targets import target


def small(**changes) -> localiser.Localiser:
    torch.manual_seed(0)
    values = {"backbone": "resnet18", "width": 8, "hidden": 16, "pool": 2, "dropout": 0.0}
    return localiser.build(LocaliserConfig(**{"num_classes": 3, **values, **changes}))


def saying(model: localiser.Localiser, y: list[float]) -> localiser.Localiser:
    """The model answers `y` to everything."""
    torch.nn.init.zeros_(model.head[-1].weight)
    model.head[-1].bias.data = torch.tensor(y, dtype=torch.float32)
    return model


def test_the_object_of_a_picture_is_its_largest_that_counts():
    several = target([[0, 0, 10, 10], [20, 20, 60, 50], [0, 0, 90, 90]], [0, 2, 1], [False, False, True])
    crowd = target([[0, 0, 90, 90]], [1], [True])
    holds, boxes, labels = object_of_each([several, Target.empty(), crowd])
    assert holds.tolist() == [OBJECT, NOTHING, UNKNOWN]
    assert boxes[0].tolist() == [20, 20, 60, 50]
    assert labels.tolist() == [2, 0, 0]


def test_the_losses_by_hand():
    """Of three pictures one shows an object, one nothing, one a crowd; y is the same for all."""
    model = saying(small(box_loss="l2", presence_weight=2.0, box_weight=3.0, class_weight=0.5), [1.0] + [0.0] * 6 + [1])
    truths = [target([[10, 20, 50, 60]], [2]), Target.empty(), target([[0, 0, 90, 90]], [1], [True])]
    found = model.losses(torch.randn(3, 3, 80, 100), truths)
    sure, unsure = np.log1p(np.exp(-1)), np.log1p(np.exp(1))
    assert found["presence"].item() == pytest.approx(2 * (sure + unsure) / 2)
    # centre (30, 40) of 100 x 80 is (0.3, 0.5), the size (0.4, 0.5); y says one half of each
    assert found["box"].item() == pytest.approx(3 * (0.2**2 + 0.1**2), rel=1e-5)
    assert found["class"].item() == pytest.approx(0.5 * (np.log(2 + np.e) - 1), rel=1e-5)


def test_giou_and_distance_by_hand():
    """y says the middle, half as wide and high as the frame; the truth is its left half: IoU 1/5, in a hull of 0.6."""
    model = saying(small(box_weight=1.0), [0.0] * 8)
    found = model.losses(torch.randn(1, 3, 100, 100), [target([[0, 0, 50, 100]], [0])])
    shared, union, hull = 0.25 * 0.5, 0.25 + 0.5 - 0.25 * 0.5, 0.75
    giou = shared / union - (hull - union) / hull
    assert found["box"].item() == pytest.approx(1 - giou + 0.25 + 0.0 + 0.0 + 0.5, rel=1e-5)


def test_without_an_object_box_and_class_cost_nothing_and_teach_nothing():
    model = small().train()
    found = model.losses(torch.randn(2, 3, 64, 64), [Target.empty(), Target.empty()])
    assert found["box"].item() == found["class"].item() == 0
    assert found["presence"].item() > 0
    sum(found.values()).backward()
    last = model.head[-1].weight.grad
    assert last[0].abs().sum() > 0
    assert last[1:].abs().sum() == 0


def test_a_crowd_alone_teaches_nothing():
    model = small().train()
    found = model.losses(torch.randn(2, 3, 64, 64), [target([[0, 0, 9, 9]], [0], [True])] * 2)
    assert {name: loss.item() for name, loss in found.items()} == {"presence": 0, "box": 0, "class": 0}


@pytest.mark.parametrize("frame_hw", [(64, 64), (75, 131), (33, 40)])
@pytest.mark.parametrize("pool", [1, 3])
def test_any_frame_gives_one_candidate_and_gradients_everywhere(frame_hw, pool):
    model = small(pool=pool).train()
    images = torch.randn(2, 3, *frame_hw)
    sum(model.losses(images, [target([[2, 2, 30, 20]], [1]), Target.empty()]).values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    with torch.no_grad():
        boxes, scores, _ = model.eval().detect(images)
    assert boxes.shape == (2, 1, 4)
    assert scores.shape == (2, 1, 3)
    assert (scores.sum(dim=2) <= 1).all()
    assert (boxes >= 0).all()
    assert (boxes[..., 2] <= frame_hw[1]).all()
    assert (boxes[..., 3] <= frame_hw[0]).all()


def test_a_score_is_presence_times_class_and_stands_at_one_class():
    """Presence 3/4, classes 1/4, 1/4 and 1/2; at any threshold there is one answer or none."""
    model = saying(small(), [np.log(3), 0, 0, 0, 0, 0, 0, np.log(2)]).eval()
    raw = model.detect(torch.randn(1, 3, 64, 64))
    torch.testing.assert_close(raw.scores, torch.tensor([[[0, 0, 0.375]]]))
    torch.testing.assert_close(raw.boxes, torch.tensor([[[16.0, 16, 48, 48]]]))


def test_pictures_of_several_objects_are_counted_and_said():
    columns = {"root": Path(), "format": "by hand", "categories": Categories.from_names(["a"])}
    files = {"image_files": ["one.jpg", "two.jpg", "crowd.jpg", "none.jpg"], "image_hw": [(40, 40)] * 4}
    truth = AnnotationSet.from_columns(
        **columns, **files, image_index=[0, 1, 1, 2, 2], boxes=[[1, 1, 9, 9]] * 5, labels=[0] * 5,
        crowd=[False, False, False, False, True],
    )  # fmt: skip
    (said,) = localiser.remarks(truth)
    assert "1 of 4 pictures show several objects" in said
    assert "largest" in said
    assert localiser.remarks(truth.subset([0, 2, 3])) == []
    (said,) = localiser.remarks(truth.subset([0, 2]))
    assert "no picture is without objects" in said


def test_boxes_and_shares_are_each_others_inverse():
    boxes = torch.tensor([[0.0, 10, 30, 50], [5, 5, 95, 75]])
    y = torch.cat([torch.zeros(2, 1), torch.logit(shares_of(boxes, (80, 100))), torch.zeros(2, 3)], dim=1)
    torch.testing.assert_close(boxes_of(y, (80, 100)), boxes)


@pytest.mark.parametrize("options", [{"foo": 1}, {"pool": 0}, {"pool": "a"}, {"box_loss": "l3"}, {"dropout": 1.0}])
def test_options_that_do_not_fit_are_refused(options):
    with pytest.raises(DetsegError, match=next(iter(options)) if options != {"pool": "a"} else "cannot be built"):
        localiser.configure(2, options, None)


def test_its_checkpoint_exports_and_says_the_same(tmp_path):
    model = small(pool=3).eval()
    config = localiser.config_to_json(model.config)
    assert localiser.config_from_json(json.loads(json.dumps(config))) == model.config
    categories = Categories.from_names(["a", "b", "c"])
    card = Card(model="localiser", config=config, categories=categories, preprocess=Preprocess((70, 64)))
    save(tmp_path / "w.safetensors", card, model.state_dict())
    assert export_onnx(tmp_path / "w.safetensors", tmp_path / "w.onnx").graph.score < 1e-4


@pytest.mark.slow
def test_four_pictures_are_learnt_by_heart(tmp_path):
    learnt = learn(tmp_path, "localiser", steps=120, imgsz=96, lr=1e-3, backbone_lr=1.0, options={"dropout": 0.0})
    holds, boxes, labels = object_of_each(learnt.batch.targets)
    with torch.no_grad():
        raw = learnt.model.eval().detect(learnt.images)
    for i in (holds == OBJECT).nonzero().flatten().tolist():
        assert raw.scores[i, 0].argmax() == labels[i]
        assert raw.scores[i, 0].max() > 0.8
        assert box_iou(raw.boxes[i], boxes[i][None]).item() > 0.85
    assert catalog.entry("localiser").imgsz == 224
