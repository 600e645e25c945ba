"""R-FCN: the formula of the paper cell by cell, votes by hand, what is learnt, and the routes every model goes."""

from __future__ import annotations

import json
from math import ceil, floor

import pytest
import torch
from torch import Tensor
from torchvision.ops import ps_roi_pool, roi_align

from detseg import catalog
from detseg.annotations import Categories
from detseg.annotations.sample import write_sample
from detseg.backbones.spec import BackboneError
from detseg.checkpoints import Card, save
from detseg.detectors import rfcn
from detseg.detectors.contract import Target
from detseg.errors import DataError, DetsegError
from detseg.evaluation import evaluate
from detseg.parts.ground_truth import Truth
from detseg.parts.matcher import UNDECIDED
from detseg.preprocess import Preprocess
from detseg.runtimes import cost
from detseg.runtimes.network import read_network
from detseg.training.config import TrainConfig
from detseg.training.setup import prepare
from tests.by_heart import Learnt, learn
from tests.targets import target


def small(**changes) -> rfcn.RFCN:
    torch.manual_seed(0)
    options = {**catalog.entry("rfcn").options, "backbone": "mobilenet_v3_small", "rpn.sizes": [[16, 32, 64]]}
    return rfcn.build(rfcn.configure(3, {**options, **changes}, None))


@pytest.fixture(scope="module")
def model() -> rfcn.RFCN:
    return small().eval()


def by_formula(maps: Tensor, boxes: Tensor, k: int, scale: float) -> Tensor:
    """Eq. 1 of the paper for one picture, one cell at a time; (S, D, k, k)."""
    _, channels, rows, columns = maps.shape
    answer = maps.new_zeros(len(boxes), channels // k**2, k, k)
    for s, box in enumerate(boxes.tolist()):
        left, top, right, bottom = (floor(side * scale + 0.5) for side in box)
        height, width = max(bottom - top, 1), max(right - left, 1)
        for i in range(k):
            for j in range(k):
                ys = [y + top for y in range(floor(i * height / k), ceil((i + 1) * height / k)) if 0 <= y + top < rows]
                xs = [x + left for x in range(floor(j * width / k), ceil((j + 1) * width / k))]
                xs = [x for x in xs if 0 <= x < columns]
                cells = [maps[0, i * k + j :: k * k, y, x] for y in ys for x in xs]
                if cells:
                    answer[s, :, i, j] = torch.stack(cells).mean(dim=0)
    return answer


@pytest.mark.parametrize("k", [3, 7])
def test_pooling_is_the_papers_formula_in_value_and_gradient(k):
    torch.manual_seed(1)
    maps = torch.randn(1, 2 * k * k, 9, 11, dtype=torch.float64, requires_grad=True)
    corners = torch.rand(12, 2) * torch.tensor([120.0, 100.0])
    boxes = torch.cat([corners, corners + torch.rand(12, 2) * 90 + 1], dim=1)
    # a whole map, one less than a cell, one in the last row and column, one that ends between two cells
    edges = torch.tensor([[0.0, 0, 176, 144], [50, 50, 53, 52], [160, 128, 176, 144], [8, 8, 40, 24]])
    boxes = torch.cat([boxes, edges])
    found = rfcn.position_pool(maps, [boxes], rfcn.HeadConfig(grid=k), 1 / 16)
    wanted = by_formula(maps, boxes, k, 1 / 16)
    torch.testing.assert_close(found, wanted)
    push = torch.randn_like(wanted)
    given, expected = (torch.autograd.grad((x * push).sum(), maps)[0] for x in (found, wanted))
    assert expected[..., -1, :].abs().sum() > 0
    torch.testing.assert_close(given, expected)


def regions_of_two() -> tuple[list[Tensor], Tensor]:
    boxes = [torch.tensor([[3.0, 9, 77, 120]]), torch.tensor([[0.0, 0, 160, 160], [20, 30, 40, 50]])]
    return boxes, torch.cat([torch.tensor([[0.0], [1], [1]]), torch.cat(boxes)], dim=1)


def test_pooling_is_torchvisions_away_from_the_last_row_and_column():
    torch.manual_seed(2)
    maps = torch.randn(2, 5 * 9, 12, 12, requires_grad=True)
    boxes, rows = regions_of_two()
    push = torch.randn(3, 5, 3, 3)
    found = rfcn.position_pool(maps, boxes, rfcn.HeadConfig(grid=3), 1 / 16)
    wanted = ps_roi_pool(maps, rows, 3, 1 / 16)
    torch.testing.assert_close(found, wanted)
    given, expected = (torch.autograd.grad((x * push).sum(), maps)[0] for x in (found, wanted))
    torch.testing.assert_close(given, expected)


def test_aligning_reads_for_each_part_what_roi_align_reads_of_its_map():
    torch.manual_seed(3)
    maps = torch.randn(2, 5 * 9, 12, 12, requires_grad=True)
    boxes, rows = regions_of_two()
    push = torch.randn(3, 5, 3, 3)
    found = rfcn.position_pool(maps, boxes, rfcn.HeadConfig(grid=3, kind="align"), 1 / 16)
    of_all = roi_align(maps, rows, 3, 1 / 16, 2, aligned=True).unflatten(1, (5, 3, 3))
    wanted = torch.einsum("sdijij->sdij", of_all)
    torch.testing.assert_close(found, wanted)
    given, expected = (torch.autograd.grad((x * push).sum(), maps)[0] for x in (found, wanted))
    torch.testing.assert_close(given, expected)


def test_a_vote_by_hand():
    """Two parts a side, two answers; each map is a number, so parts are these and the vote is their mean."""
    maps = torch.tensor([1.0, 2, 3, 6, 0, 0, 0, 8]).reshape(1, 8, 1, 1).expand(1, 8, 4, 4)
    parts = rfcn.position_pool(maps, [torch.tensor([[0.0, 0, 64, 64]])], rfcn.HeadConfig(grid=2), 1 / 16)
    assert parts.tolist() == [[[[1, 2], [3, 6]], [[0, 0], [0, 8]]]]
    assert rfcn.vote(parts).tolist() == [[3, 2]]


def test_a_region_that_is_shifted_loses_votes():
    """Maps that each answer only where their part of one object lies: the object itself gets all votes."""
    maps = torch.zeros(1, 9, 12, 12)
    for part in range(9):
        y, x = 3 + 2 * (part // 3), 3 + 2 * (part % 3)
        maps[0, part, y : y + 2, x : x + 2] = 1
    boxes = torch.tensor([[48.0, 48, 144, 144], [80, 48, 176, 144], [112, 112, 176, 176]])
    config = rfcn.HeadConfig(grid=3)
    votes = rfcn.vote(rfcn.position_pool(maps, [boxes], config, 1 / 16))[:, 0]
    assert votes[0] == 1
    assert votes[1] == pytest.approx(0)  # one part further right: none is where it belongs
    assert votes[2] < 0.2


def test_what_each_region_should_say(model):
    truth = Truth.of(target([[16, 16, 48, 48], [60, 0, 200, 200]], [2, 0], [False, True]))
    proposals = torch.tensor([[16.0, 20, 48, 52], [0, 0, 16, 16], [64, 10, 96, 40]])
    lesson = model.lesson(proposals, truth)
    assert lesson.boxes.tolist() == [*proposals.tolist(), [16, 16, 48, 48]]  # the truth is a region, too
    assert lesson.classes.tolist() == [3, 0, UNDECIDED, 3]
    assert lesson.deltas[0].tolist() == pytest.approx([0, -10 * 4 / 32, 0, 0], abs=1e-5)
    assert lesson.deltas[1:].abs().sum() == 0


def lessons() -> tuple[Tensor, Tensor, list[rfcn.Lesson]]:
    """Two pictures of 4 and 2 regions: logits, deltas, lessons. Losses by class: 5, 0.1, -, 3 and 2, 0.01."""
    wanted = torch.tensor([5.0, 0.1, 9.0, 3.0, 2.0, 0.01])
    right = (-wanted).exp() / (1 - (-wanted).exp())  # of two classes with logits (log right, 0)
    classes = torch.tensor([0, 0, UNDECIDED, 1, 0, 0])
    logits = torch.stack([right.log(), torch.zeros(6)], dim=1)
    logits[3] = logits[3].flip(0)
    deltas, goals = torch.zeros(6, 4), torch.zeros(6, 4)
    goals[3] = torch.tensor([2.0, 0, 0.5, 0])
    parts = [(slice(0, 4)), (slice(4, 6))]
    boxes = torch.zeros(6, 4)
    return logits, deltas, [rfcn.Lesson(boxes[p], classes[p], goals[p]) for p in parts]


def test_losses_by_hand_of_the_hardest_alone():
    logits, deltas, regions = lessons()
    logits.requires_grad_(), deltas.requires_grad_()
    found = rfcn.region_losses(logits, deltas, regions, rfcn.LessonConfig(samples=2))
    assert found["class"].item() == pytest.approx((5 + 3 + 2 + 0.01) / 4, abs=1e-4)
    assert found["box"].item() == pytest.approx((1.5 + 0.125) / 4)
    sum(found.values()).backward()
    assert (logits.grad.abs().sum(dim=1) > 0).tolist() == [True, False, False, True, True, True]
    assert (deltas.grad.abs().sum(dim=1) > 0).tolist() == [False, False, False, True, False, False]
    every = rfcn.region_losses(logits, deltas, regions, rfcn.LessonConfig(samples=100))
    assert every["class"].item() == pytest.approx((5 + 0.1 + 3 + 2 + 0.01) / 5, abs=1e-4)  # not what is ignored
    one = rfcn.region_losses(logits, deltas, regions, rfcn.LessonConfig(samples=1))
    assert one["class"].item() == pytest.approx((5 + 2) / 2, abs=1e-4)
    assert one["box"].item() == 0


def test_the_loss_of_the_box_counts_in_the_choice():
    logits, deltas, regions = lessons()
    deltas = deltas.clone()
    deltas[3, 1] = 100
    found = rfcn.region_losses(logits, deltas, regions, rfcn.LessonConfig(samples=1))
    assert found["class"].item() == pytest.approx((3 + 2) / 2, abs=1e-4)


def test_regions_may_be_drawn_instead():
    _, _, regions = lessons()
    config = rfcn.LessonConfig(samples=4, hardest=False)
    drawn = [rfcn.learnt(torch.zeros(len(r.classes)), r.classes, config).tolist() for r in regions]
    assert drawn == [[True, True, False, True], [True, True]]


@pytest.mark.parametrize("options", [{}, {"head.kind": "pool", "head.norm": True, "regions.hardest": False}])
def test_losses_reach_every_parameter_and_are_finite_without_objects(options):
    net = small(**options).train()
    images = torch.randn(2, 3, 96, 128)
    truth = target([[10, 10, 50, 60], [60, 20, 120, 90], [0, 60, 20, 96]], [0, 2, 1], [False, False, True])
    sum(net.losses(images, [truth, Target.empty()]).values()).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    empty = net.losses(images, [Target.empty(), target([[0, 0, 128, 96]], [0], [True])])
    assert empty["box"] == empty["rpn_box"] == 0
    assert all(loss.isfinite() for loss in empty.values())
    assert empty["class"] > 0
    assert empty["objectness"] > 0


@torch.no_grad()
def test_answers_lie_in_their_picture_and_do_not_hang_on_its_company():
    model = small().eval()
    model.head.boxes.bias.fill_(4)  # boxes grow, and move to the lower right
    images = torch.randn(2, 3, 70, 90)
    images[1, :, 40:] = images[1, :, :, 50:] = 0
    sizes = torch.tensor([[70, 90], [40, 50]])
    boxes, scores, _ = model.detect(images, sizes)
    assert boxes.shape == (2, 150, 4)
    assert scores.shape == (2, 150, 3)
    assert boxes.amin() >= 0
    assert (boxes.flatten(0, 1).amax(dim=0)[2:] <= torch.tensor([90.0, 70])).all()
    assert (boxes[1].amax(dim=0)[2:] <= torch.tensor([50.0, 40])).all()
    alone = model.detect(images[1:], sizes[1:])
    torch.testing.assert_close(alone.boxes[0], boxes[1], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(alone.scores[0], scores[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("stride", "grids"), [(8, (12, 12)), (16, (6, 6)), (32, (6, 3))])
def test_stage_5_keeps_the_resolution_that_is_asked_for(stride, grids):
    with torch.device("meta"):
        net = small(backbone="resnet18", stride=stride).eval()
        seen = net(torch.zeros(1, 3, 96, 96))
    assert len(seen.answers.anchors[0]) == 9 * grids[0] ** 2
    assert seen.scores.shape == (1, (1 + 3 + 4) * 9, grids[1], grids[1])


@pytest.mark.parametrize(("stride", "side"), [(8, 12), (16, 6)])
def test_stage_4_can_judge_by_itself(stride, side):
    with torch.device("meta"):
        net = small(backbone="resnet18", stride=stride, stage=4).eval()
        seen = net(torch.zeros(1, 3, 96, 96))
    assert net.head.reduce[0].in_channels == 256  # ResNet-18's stage 4
    assert len(seen.answers.anchors[0]) == 9 * side**2
    assert seen.scores.shape == (1, (1 + 3 + 4) * 9, side, side)
    assert not any(parameter.shape[0] == 512 for parameter in net.backbone.parameters())  # stage 5 is not there


@pytest.mark.parametrize("name", ["rfcn-r50", "rfcn-r101"])
def test_the_papers_form_has_the_papers_numbers(name):
    entry = catalog.entry(name)
    config = rfcn.configure(20, {"backbone": entry.backbone, **entry.options}, None)
    with torch.device("meta"):
        net = rfcn.build(config).eval()
        seen = net(torch.zeros(1, 3, 600, 800))  # in a frame of 608 x 800
    assert seen.scores.shape == (1, 49 * 21 + 49 * 4, 38, 50)
    assert net.head.reduce[0].weight.shape == (1024, 2048, 1, 1)
    assert (config.regions.samples, config.rpn.train_kept, config.rpn.kept) == (128, 300, 300)
    assert entry.backbone == {"rfcn-r50": "resnet50", "rfcn-r101": "resnet101"}[name]
    assert cost.count(name, 20).gflops > 100


def test_one_option_leaves_the_others_of_its_group_as_they_are():
    proposals = rfcn.configure(3, {"rpn.kept": 100}, None).rpn
    assert (proposals.kept, proposals.train_kept, proposals.width) == (100, 300, 512)


def test_config_survives_json():
    found = [[10.0, 20.0], [30.04, 40.0]]
    config = rfcn.configure(3, {"clusters": 2, "head.kind": "align", "stride": 8}, lambda count: found[:count])
    assert config.rpn.shapes == (((10.0, 20.0), (30.0, 40.0)),)
    assert rfcn.config_from_json(json.loads(json.dumps(rfcn.config_to_json(config)))) == config


@pytest.mark.parametrize(
    "options",
    [
        {"head.grid": 0},
        {"stride": 4},
        {"stride": 32, "stage": 4},
        {"regions.samples": 0},
        {"regions.positive_iou": 1.5},
        {"head.kind": "max"},
        {"rpn.sizes": [[32], [64]]},
        {"no_such": 1},
    ],
)
def test_options_that_do_not_fit_are_refused_in_words(options):
    with pytest.raises(DetsegError, match="R-FCN cannot be built so"):
        rfcn.configure(3, options, None)


def test_a_backbone_that_cannot_be_dilated_is_named_with_the_way_out():
    with torch.device("meta"), pytest.raises(BackboneError, match=r"swin_t cannot be dilated.*stride=32"):
        small(backbone="swin_t")
    with torch.device("meta"):
        assert small(backbone="swin_t", stride=32).stride == 32


def test_the_checkpoint_stands_alone(tmp_path, model):
    path = tmp_path / "r.safetensors"
    settings, categories = rfcn.config_to_json(model.config), Categories.from_names(["a", "b", "c"])
    card = Card(model="rfcn", config=settings, categories=categories, preprocess=Preprocess((64, 64)))
    save(path, card, model.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for mine, other in zip(model.detect(images)[:2], read_network(path)[1].model.detect(images)[:2], strict=True):
            assert torch.equal(mine, other)


def test_a_set_without_boxes_is_refused(tmp_path):
    data = write_sample(tmp_path, format="coco", images=4, seed=5, hw=(64, 64))
    for path in data.rglob("*.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(DataError, match="no object to learn from"):
        prepare(TrainConfig(data=str(data), model="rfcn", backbone_weights=None), "x")


@pytest.mark.slow
def test_four_pictures_are_learnt_by_heart(tmp_path):
    learn(
        tmp_path, "rfcn", until=expect_all_boxes, steps=70, imgsz=128, multi_scale=0, mosaic=0, lr=2e-3,
        backbone_lr=0.2, freeze_stages=3, options={"clusters": 4, "regions.samples": 16},
    )  # fmt: skip


def expect_all_boxes(learnt: Learnt) -> None:
    assert evaluate(learnt.truth, learnt.found()).ap50 > 0.95
