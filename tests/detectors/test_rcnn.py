"""R-CNN: its crops, what it draws, its SVMs and regressions, and that its stages go on where they were killed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from detseg.annotations.sample import write_sample
from detseg.checkpoints import load
from detseg.detectors import rcnn, rcnn_stages
from detseg.detectors.contract import Target
from detseg.detectors.rcnn import RCNNConfig, warped
from detseg.detectors.rcnn_stages import MinedSVM, RidgeSums
from detseg.errors import DetsegError
from detseg.evaluation import evaluate
from detseg.postprocess import Selection
from detseg.training.stages import PicturesInUse
from tests.by_heart import learn
from tests.killed_runs import in_turn


def tiny(**changes) -> RCNNConfig:
    return RCNNConfig(3, **{"side": 32, "context": 2, "cells": 1, "hidden": (16,), "dropout": 0.0, **changes})


def target_of(boxes, labels, ignored=None, proposals=None) -> Target:
    truth = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    flags = torch.zeros(len(truth), dtype=torch.bool) if ignored is None else torch.tensor(ignored)
    return Target(truth, torch.tensor(labels, dtype=torch.int64), flags, proposals=proposals)


# ---- crops ----


def test_a_crop_shows_the_box_and_as_much_around_it_as_was_asked_for():
    image = torch.arange(1.0, 37).view(1, 6, 6)
    # 2 x 2 pixels in the middle of a crop of 4 x 4, at their own size: one pixel of context on every side
    crops = warped(image, torch.tensor([[2.0, 1, 4, 3]]), 4, 1)
    assert crops[0, 0].tolist() == image[0, 0:4, 1:5].tolist()


def test_beyond_the_picture_a_crop_is_of_the_mean_colour():
    image = torch.arange(1.0, 17).view(1, 4, 4)
    crops = warped(image, torch.tensor([[0.0, 0, 2, 2], [2, 2, 4, 4]]), 4, 1)
    assert crops[0, 0].tolist() == [[0, 0, 0, 0], [0, 1, 2, 3], [0, 5, 6, 7], [0, 9, 10, 11]]
    assert crops[1, 0].tolist() == [[6, 7, 8, 0], [10, 11, 12, 0], [14, 15, 16, 0], [0, 0, 0, 0]]


def test_each_axis_is_pulled_to_the_square_at_its_own_scale():
    image = torch.zeros(1, 8, 16)
    image[0, 2:4] = 1.0
    # 8 wide, 2 high become 4 x 4 within 8 x 8: a pixel of the crop is 2 wide and half a pixel high
    (crop,) = warped(image, torch.tensor([[4.0, 2, 12, 4]]), 8, 2)
    assert crop[0, :, 3].tolist() == pytest.approx([0, 0.25, 0.75, 1, 1, 0.75, 0.25, 0], abs=0.26)
    assert crop[0, 3].tolist() == [1.0] * 8  # 0 .. 16: the whole width of the picture
    assert crop[0, 2:6].mean() > 0.8 > 0.2 > crop[0, [0, 7]].mean()
    assert warped(image, torch.zeros(0, 4), 8, 2).shape == (0, 1, 8, 8)


# ---- fine-tuning ----


def test_of_128_crops_of_a_batch_32_show_objects():
    model = rcnn.build(tiny())
    inside = torch.tensor([[10.0, 10, 50, 50]]) + torch.rand(100, 4)
    beside = torch.tensor([[10.0, 10, 25, 50]]).repeat(200, 1)  # IoU 0.375: background
    targets = [
        target_of([[10, 10, 50, 50]], [2], proposals=torch.cat([inside, beside])),
        target_of([], [], proposals=beside),
        target_of([[0, 0, 64, 64]], [1], [True], proposals=beside),  # a crowd: nothing to learn
    ]
    boxes, classes = model._lessons(targets)
    assert sum(map(len, boxes)) == 128
    drawn = torch.cat(classes)
    assert int((drawn == 3).sum()) == 32
    assert int((drawn == 0).sum()) == 96
    assert len(boxes[1]) > 20
    assert len(boxes[2]) == 0
    few = model._lessons([target_of([[10, 10, 50, 50]], [0], proposals=beside[:9])])
    assert [len(part[0]) for part in few] == [10, 10]
    assert few[1][0].tolist() == [0] * 9 + [1]  # the object itself


def test_pictures_without_objects_or_without_proposals_have_finite_losses():
    model = rcnn.build(tiny())
    images = torch.randn(2, 3, 64, 64)
    for targets in ([Target.empty(), Target.empty()], [target_of([[4, 4, 40, 40]], [1]), Target.empty()]):
        loss = model.losses(images, targets)["class"]
        loss.backward()
        assert torch.isfinite(loss)


def test_each_picture_has_its_own_answers_and_what_is_missing_has_none():
    model = rcnn.build(tiny()).eval()
    boxes = [torch.tensor([[4.0, 4, 40, 40], [8, 20, 60, 64], [0, 0, 64, 64]]), torch.zeros(0, 4)]
    with torch.no_grad():
        raw = model.detect(torch.randn(2, 3, 64, 64), boxes)
    assert raw.boxes.shape == (2, 3, 3, 4)
    assert (raw.boxes[0] == boxes[0][:, None]).all()  # not moved before that is learnt
    assert (raw.scores[1] == 0).all()
    assert (raw.scores[0] > 0).all()


# ---- SVMs ----


def test_the_svm_of_a_hand_case_stands_in_the_middle():
    """Nearest points (1, 0) and (-1, 0): the widest margin has weight (1, 0) and no bias; the rest is far away."""
    rng = np.random.default_rng(0)
    far = np.stack([rng.uniform(1.5, 5, 40), rng.uniform(-4, 4, 40)], axis=1)
    positives = np.concatenate([[[1.0, 0.0]], far]).astype(np.float32)
    negatives = np.concatenate([-far, [[-1.0, 0.0]], -far * 2]).astype(np.float32)
    svm = MinedSVM(positives, c=100.0, positive_weight=1.0)
    for keys in np.array_split(np.arange(len(negatives)), 7):  # the one that matters comes late
        svm.offer(negatives[keys], keys)
    svm.learn()
    np.testing.assert_allclose(svm.weight, [1, 0], atol=0.02)
    assert svm.bias == pytest.approx(0, abs=0.02)


def test_mining_ends_where_all_negatives_at_once_would(monkeypatch):
    monkeypatch.setattr(rcnn_stages, "LEARN_AFTER", 15)
    rng = np.random.default_rng(1)
    positives = rng.normal(1.2, 1, (30, 6)).astype(np.float32)
    negatives = rng.normal(-1.2, 1, (400, 6)).astype(np.float32)
    svm = MinedSVM(positives, c=0.1, positive_weight=2.0)
    kept = []
    for _ in range(6):
        found = sum(svm.offer(negatives[i : i + 20], np.arange(i, i + 20)) for i in range(0, 400, 20))
        svm.learn()
        kept.append(len(svm._negatives))
    assert found == 0  # nothing hard is left
    assert kept[-1] < 300  # the easy ones were let go of
    weight, bias = rcnn_stages._fitted(positives, negatives, 0.1, 2.0)
    np.testing.assert_allclose(svm.weight, weight, atol=0.02)
    assert svm.bias == pytest.approx(bias, abs=0.05)


def test_a_class_without_objects_is_never_found():
    svm = MinedSVM(np.zeros((0, 3), np.float32), c=1.0, positive_weight=1.0)
    svm.offer(np.ones((5, 3), np.float32), np.arange(5))
    svm.learn()
    assert (svm.weight == 0).all()
    assert svm.bias < -5


def test_what_teaches_an_svm():
    """Of class 0: its objects; background is what overlaps these by less than 0.3, objects of others included."""
    seen = []

    class Looks:
        def features(self, image, boxes):
            seen.append(boxes)
            return boxes * 2, boxes

    near = torch.tensor([[0.0, 0, 10, 14], [0, 0, 10, 50], [50, 50, 60, 60], [70, 70, 90, 90]])
    target = target_of([[0, 0, 10, 10], [50, 50, 60, 60], [60, 60, 99, 99]], [0, 1, 0], [False, False, True], near)
    arrays = rcnn_stages._arrays(Looks(), torch.zeros(1, 3, 100, 100), target, 2, 0.6)
    assert arrays["labels"].tolist() == [0, 1]
    np.testing.assert_allclose(arrays["overlap"], [[1, 0], [0, 1], [10 / 14, 0], [0.2, 0], [0, 1], [0, 0]], atol=1e-6)
    assert arrays["ignored"].tolist() == [False, False, False, False, False, True]
    # what overlaps an object by more than 0.6 teaches its regression: the objects, the first and the third proposal
    assert arrays["classes"].tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(arrays["pooled"], 2 * seen[0][[0, 1, 2, 4]])
    # from (0, 0, 10, 14) to (0, 0, 10, 10): up by 2 of 14, its height times 10 / 14
    np.testing.assert_allclose(arrays["deltas"][2], [0, -2 / 14, 0, np.log(10 / 14)], atol=1e-6)


# ---- box regressions ----


def test_the_ridge_regression_is_that_of_least_squares():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(40, 7)), rng.normal(size=(40, 4)) + 3
    sums = RidgeSums(7)
    for part in np.array_split(np.arange(40), 3):
        sums.add(x[part], y[part])
    weight, bias = sums.solution(5.0)
    # the same as least squares with a row of its own for each weight that is held back, and none for the bias
    rows = np.block([[x, np.ones((40, 1))], [np.sqrt(5) * np.eye(7), np.zeros((7, 1))]])
    wanted = np.linalg.lstsq(rows, np.concatenate([y, np.zeros((7, 4))]), rcond=None)[0]
    np.testing.assert_allclose(np.concatenate([weight, bias[None]]), wanted, atol=1e-9)


# ---- the whole ----


def test_four_pictures_are_learnt_by_heart(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    learnt = learn(
        tmp_path / "data", "rcnn", steps=100, imgsz=128, lr=1e-3, backbone_lr=1.0,
        options={"side": 48, "context": 4, "cells": 2, "hidden": (64,), "samples": 64, "proposals.count": 150,
                 "dropout": 0.0},
    )  # fmt: skip
    selection, model = Selection(conf=0.01, iou=0.3), learnt.model
    by_softmax = evaluate(learnt.truth, learnt.found(selection))
    model.eval()
    assert model.later_stages == ("features", "SVMs", "box regressions")
    lessons = PicturesInUse(learnt.dataset, torch.device("cpu"))
    with torch.no_grad():
        for stage in model.later_stages:
            steps = list(model.learn_stage(stage, lessons, tmp_path / "work"))
            assert steps[-1][0] == steps[-1][1]
    finished = evaluate(learnt.truth, learnt.found(selection))
    assert by_softmax.ap50 > 0.8
    assert finished.ap50 > 0.8
    assert finished.ap > by_softmax.ap - 0.05


def test_the_softmax_may_stay_the_judge():
    assert rcnn.build(tiny(judge="softmax", refine=False)).later_stages == ()
    assert rcnn.build(tiny(judge="softmax")).later_stages == ("features", "box regressions")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"side": 32, "context": 16}, "hold the context"),
        ({"judge": "forest"}, "judge"),
        ({"hidden": []}, "one layer is needed"),
        ({"ridge": 0}, "above 0"),
    ],
)
def test_options_that_make_no_model_are_told(options, told):
    with pytest.raises(DetsegError, match=told):
        rcnn.configure(3, options, None)


@pytest.mark.slow
def test_killed_in_every_stage_it_goes_on_and_ends_the_same(tmp_path):
    data = write_sample(tmp_path / "data", format="coco", images=6, seed=5, hw=(48, 64))
    words = [
        *("train", str(data), "-m", "rcnn", "--imgsz", "64", "--epochs", "2", "--batch", "2", "--workers", "0", "-q"),
        *("--backbone-weights", "none", "--augment", "none", "--eval-every", "1", "--device", "cpu"),
        *("--backbone", "mobilenet_v3_small", "--option", "side=32", "--option", "context=2"),
        *("--option", "cells=1", "--option", "hidden=[16]"),
        *("--option", "samples=16", "--option", "proposals.count=20"),
    ]
    whole, killed, _ = in_turn("stages", words, tmp_path)
    for name in ("best", "last"):
        ends = [load(run / "weights" / f"{name}.safetensors")[1] for run in (whole, killed)]
        assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    assert (whole / "stages" / "finished.json").read_text() == (killed / "stages" / "finished.json").read_text()
    assert not (killed / "stages" / "work").exists()
    assert ends[1]["judges"] == ends[1]["moves"] == 1
    assert Path(killed / "results.csv").read_text().count("\n") == 3
