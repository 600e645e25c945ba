"""Fast R-CNN: what it pools, what it learns from, its compressed head, and that it learns four pictures by heart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import roi_align, roi_pool

from detseg.annotations.formats import load as load_truth
from detseg.annotations.sample import write_sample
from detseg.checkpoints import read_card
from detseg.checkpoints import save as save_checkpoint
from detseg.cli.main import main
from detseg.detectors import fast_rcnn
from detseg.detectors.contract import Target
from detseg.detectors.fast_rcnn import FastRCNNConfig, LowRank, compressed, factors
from detseg.errors import DetsegError
from detseg.evaluation import evaluate
from detseg.parts.box_heads import BoxConfig
from detseg.parts.roi_features import PoolConfig, RoIFeatures
from detseg.training.config import TrainConfig
from detseg.training.setup import prepare
from tests.by_heart import Learnt, learn


def tiny(**changes) -> FastRCNNConfig:
    settings = {"strides": (8, 16), "width": 16, "box": BoxConfig(fcs=(24, 12), samples=64), **changes}
    return FastRCNNConfig(3, **settings)


def boxes_in(count: int, side: int = 96) -> torch.Tensor:
    torch.manual_seed(count)
    corner = torch.rand(count, 2) * side * 0.6
    return torch.cat([corner, corner + 8 + torch.rand(count, 2) * side * 0.3], dim=1)


def test_regions_are_pooled_as_torchvision_pools_them():
    config = FastRCNNConfig(3, strides=(16,))  # as in the paper: one map
    model = fast_rcnn.build(config).eval()
    images, boxes = torch.randn(2, 3, 96, 128), [boxes_in(5), boxes_in(3)]
    with torch.no_grad():
        (features,) = model(images)
        pooled = model.pool([features], boxes)
    rois = torch.cat([torch.cat([torch.full((len(b), 1), float(i)), b], dim=1) for i, b in enumerate(boxes)])
    torch.testing.assert_close(pooled, roi_pool(features, rois, 7, 1 / 16))
    aligned = RoIFeatures((16,), PoolConfig(kind="align"))([features], boxes)
    torch.testing.assert_close(aligned, roi_align(features, rois, 7, 1 / 16, 2))


def test_pooling_takes_the_largest_value_of_each_rounded_cell():
    features = torch.arange(16.0).view(1, 1, 4, 4)
    # 9 .. 41 pixels are cells 0.56 .. 2.56 of a map of stride 16, rounded 1 .. 3, and these are cells 1 to 3 inclusive
    pooled = RoIFeatures((16,), PoolConfig(size=3, kind="pool"))([features], [torch.tensor([[9.0, 9, 41, 41]])])
    assert pooled[0, 0].tolist() == [[5, 6, 7], [9, 10, 11], [13, 14, 15]]


def test_a_quarter_of_what_is_learnt_are_objects_and_background_is_near_them():
    model = fast_rcnn.build(tiny(background_iou=0.1))
    truth = torch.tensor([[10.0, 10, 50, 50]])
    inside = truth + torch.rand(200, 4) * 4  # IoU of at least 0.5
    near = torch.tensor([[10.0, 10, 25, 50]]).repeat(200, 1)  # 0.375
    far = torch.tensor([[60.0, 60, 90, 90]]).repeat(200, 1)  # 0
    target = Target(truth, torch.tensor([2]), torch.tensor([False]), proposals=torch.cat([inside, near, far]))
    seen = []
    model.sampler, sampler = lambda *words: seen.append(sampler(*words)) or seen[-1], model.sampler
    losses = model.losses(torch.randn(1, 3, 96, 96), [target])
    assert set(losses) == {"class", "box"}
    (sample,) = seen
    assert len(sample.boxes) == 64
    assert int((sample.classes == 3).sum()) == 16
    assert (sample.boxes[sample.classes == 0] == near[0]).all()


def test_pictures_without_objects_or_without_proposals_have_finite_losses():
    model = fast_rcnn.build(tiny())
    images = torch.randn(2, 3, 64, 64)
    empty = Target.empty()
    alone = Target(torch.tensor([[5.0, 5, 40, 40]]), torch.tensor([0]), torch.tensor([False]))
    for targets in ([empty, empty], [alone, empty]):
        total = sum(model.losses(images, targets).values())
        total.backward()
        assert torch.isfinite(total)


def test_each_picture_has_its_own_answers_and_what_is_missing_has_none():
    model = fast_rcnn.build(tiny()).eval()
    images, boxes = torch.randn(2, 3, 96, 96), [boxes_in(4), boxes_in(2)]
    with torch.no_grad():
        both, second = model.detect(images, boxes), model.detect(images[1:], boxes[1:])
    assert both.boxes.shape == (2, 4, 3, 4)
    torch.testing.assert_close(both.scores[1, :2], second.scores[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both.boxes[1, :2], second.boxes[0], rtol=1e-4, atol=1e-3)
    assert (both.scores[1, 2:] == 0).all()


def test_svd_of_full_rank_answers_as_before_and_of_low_rank_is_the_best_of_its_rank():
    config = tiny()
    model = fast_rcnn.build(config).eval()
    images, boxes = torch.randn(1, 3, 64, 64), [boxes_in(5, 64)]
    settings, state = compressed(config, model.state_dict(), (24, 12))
    twin = fast_rcnn.build(settings).eval()
    twin.load_state_dict(state)
    with torch.no_grad():
        for mine, theirs in zip(model.detect(images, boxes)[:2], twin.detect(images, boxes)[:2], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)

    weight, bias = torch.randn(20, 30), torch.randn(20)
    parts = factors(weight, bias, 6)
    lost = torch.linalg.svdvals(weight)[6:].square().sum().sqrt()  # Eckart, Young 1936
    torch.testing.assert_close((weight - parts["1.weight"] @ parts["0.weight"]).norm(), lost, rtol=1e-4, atol=1e-4)
    layer = LowRank(30, 20, 6)
    layer.load_state_dict(parts)
    x = torch.randn(3, 30)
    torch.testing.assert_close(layer(x), x @ (parts["1.weight"] @ parts["0.weight"]).T + bias, rtol=1e-4, atol=1e-4)


def test_a_compressed_checkpoint_costs_less_and_is_one_like_any_other(tmp_path, capsys):
    data = write_sample(tmp_path / "data", format="coco", images=5, seed=5, hw=(64, 96))
    truth = load_truth(data)
    config = TrainConfig(
        data=str(data), model="fast-rcnn", imgsz=64, backbone_weights=None,
        options={"width": 16, "box.fcs": (64, 64), "proposals.count": 30},
    )  # fmt: skip
    prepared = prepare(config, "x")
    whole = tmp_path / "whole.safetensors"
    save_checkpoint(whole, prepared.card, prepared.model.state_dict())
    out = tmp_path / "small.safetensors"
    assert main(["weights", "compress", str(whole), "--ranks", "8,8", "-o", str(out)]) == 0
    assert "64x784 and 64x64" in capsys.readouterr().err
    card = read_card(out)
    assert card.config["svd"] == [8, 8]
    assert card.categories == truth.categories

    from detseg.runtimes.network import read_network

    images, boxes = torch.zeros(1, 3, 64, 64), [boxes_in(50, 64)]
    costs = []
    for file in (whole, out):
        detector = read_network(file)[1].model
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            detector.head(torch.zeros(50, 16, 7, 7))
            detector.detect(images, boxes)
        costs.append(counter.get_flop_counts()["Global"][torch.ops.aten.addmm])
    assert costs[1] < costs[0] / 5
    assert out.stat().st_size < whole.stat().st_size - 4 * 40_000
    assert main(["weights", "compress", str(out), "--ranks", "4,4"]) == 1
    assert "compressed already" in capsys.readouterr().err
    assert main(["weights", "compress", str(whole), "--ranks", "8"]) == 1
    assert "2 layers need as many ranks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"svd": [3]}, "2 layers need as many ranks"),
        ({"strides": [8, 16], "width": 0}, "pyramid"),
        ({"proposals.count": 0}, "at least 1"),
        ({"proposals.mode": "slow"}, "proposals"),
        ({"rpn.kept": 3}, "no option rpn.kept"),
    ],
)
def test_options_that_make_no_model_are_told(options, told):
    with pytest.raises(DetsegError, match=told):
        fast_rcnn.configure(3, options, None)


def test_four_pictures_are_learnt_by_heart(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    learn(
        tmp_path / "data", "fast-rcnn", until=expect_most_boxes, steps=70, imgsz=128, lr=3e-3, backbone_lr=1.0,
        freeze_stages=2,
        options={"strides": (4, 8), "width": 32, "box.fcs": (64,), "proposals.count": 200},  # objects of 10 pixels
    )  # fmt: skip


def expect_most_boxes(learnt: Learnt) -> None:
    metrics = evaluate(learnt.truth, learnt.found())
    assert metrics.ap50 > 0.95
    assert metrics.ap > 0.6


def test_what_keeps_it_from_being_trained_or_exported_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = write_sample(tmp_path / "data", format="coco", images=5, seed=5, hw=(64, 96))
    words = ["train", str(data), "--backbone-weights", "none", "--epochs", "1", "--out", str(tmp_path / "run")]
    some = tmp_path / "some.json"
    truth = load_truth(data)
    some.write_text(json.dumps({"pictures": [{"file": truth.image_files[0], "boxes": [[0, 0, 9, 9]]}]}))
    assert main([*words, "-m", "fast-rcnn", "--proposals", str(some)]) == 3
    told = capsys.readouterr().err
    assert "has nothing of" in told
    assert "detseg data proposals DATA --out FILE" in told
    assert main([*words, "-m", "yolo", "--proposals", str(some)]) == 1
    assert "looks at no proposals of others" in capsys.readouterr().err
    assert not Path(tmp_path / "run").exists()

    boxless = write_sample(tmp_path / "boxless", format="yolo", images=5, seed=5, hw=(64, 96))
    for text in (boxless / "labels").rglob("*.txt"):
        text.write_text("")
    assert main(["train", str(boxless), *words[2:], "-m", "fast-rcnn"]) == 3
    assert "no object to learn from" in capsys.readouterr().err

    prepared = prepare(TrainConfig(data=str(data), model="fast-rcnn", backbone_weights=None), "x")
    weights = tmp_path / "fast.safetensors"
    save_checkpoint(weights, prepared.card, prepared.model.state_dict())
    assert main(["export", str(weights)]) == 1
    assert "looks at proposals that are made beside the network" in capsys.readouterr().err
