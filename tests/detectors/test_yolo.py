"""Hand-computed cells, priors and losses; contract cases every detector must stand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from detseg import catalog
from detseg.detectors.contract import Target
from detseg.detectors.yolo import (
    Truths,
    YOLOConfig,
    assign_best,
    assign_neighbours,
    build,
    cell_corners,
    cheapest_of,
    config_from_json,
    config_to_json,
    configure,
    decode,
)
from detseg.errors import DetsegError
from tests.targets import target

SMALL = (((10.0, 14.0),), ((40.0, 30.0),), ((90.0, 120.0),))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build(YOLOConfig(num_classes=3, anchors=SMALL, neck_channels=16))


def test_decoding_as_in_figure_3_of_yolo9000():
    # cell (3, 2) at stride 16; sigmoid(0) = 0.5 puts the centre mid-cell; e^ln 2 doubles the prior's width
    t = torch.tensor([[0.0, 0.0, math.log(2), 0.0]])
    box = decode(t, torch.tensor([[3.0, 2.0]]), torch.tensor([[20.0, 10.0]]), 16, "exp")
    assert box.tolist() == [pytest.approx([56 - 20, 40 - 5, 56 + 20, 40 + 5])]


def test_bounded_decoding_reaches_half_a_cell_over_and_four_times_the_prior():
    corner, prior = torch.tensor([[3.0, 2.0]]), torch.tensor([[20.0, 10.0]])
    zero = decode(torch.zeros(1, 4), corner, prior, 16, "bounded")
    assert zero.tolist() == [pytest.approx([56 - 10, 40 - 5, 56 + 10, 40 + 5])]
    most = decode(torch.full((1, 4), 50.0), corner, prior, 16, "bounded")
    centre_x, width = (most[0, 0] + most[0, 2]) / 2, most[0, 2] - most[0, 0]
    assert float(centre_x) == pytest.approx((3 + 1.5) * 16)
    assert float(width) == pytest.approx(80)


def test_cells_come_row_by_row_as_col_row():
    assert cell_corners(2, 3).tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]


def test_best_assignment_takes_one_prior_over_all_scales():
    anchors = [torch.tensor([[10.0, 10.0], [16.0, 30.0]]), torch.tensor([[60.0, 60.0], [100.0, 50.0]])]
    xywh = torch.tensor([[37.0, 20.0, 15.0, 28.0], [50.0, 70.0, 90.0, 55.0]])
    fine, coarse = assign_best(xywh, anchors, (8, 16), [(16, 16), (8, 8)])
    assert [x.tolist() for x in fine] == [[0], [1], [2], [4]]  # truth 0: prior 1, row 20 // 8, col 37 // 8
    assert [x.tolist() for x in coarse] == [
        [1],
        [1],
        [4],
        [3],
    ]  # truth 1: prior 1, row 70 // 16, col 50 // 16


def test_neighbours_are_the_nearest_and_stay_in_the_grid():
    # centre (37, 20) at stride 16 is cell col 2 (offset 0.31: left neighbour), row 1 (offset 0.25: upper one)
    match = assign_neighbours(
        torch.tensor([[37.0, 20.0, 30.0, 30.0]]), torch.tensor([[20.0, 20.0], [200.0, 200.0]]), 16, (8, 8)
    )
    assert sorted(zip(match.col.tolist(), match.row.tolist(), strict=True)) == [(1, 1), (2, 0), (2, 1)]
    assert match.anchor.tolist() == [0, 0, 0]  # the second prior is 6.7 times too large
    corner = assign_neighbours(torch.tensor([[3.0, 127.0, 30.0, 30.0]]), torch.tensor([[20.0, 20.0]]), 16, (8, 8))
    assert sorted(zip(corner.col.tolist(), corner.row.tolist(), strict=True)) == [(0, 7)]


def test_the_cheapest_candidates_stay_as_many_as_their_ious_add_up_to():
    truth = torch.tensor([0, 0, 1, 0, 0, 1])
    cell = torch.tensor([7, 3, 3, 4, 5, 9])
    overlap = torch.tensor([0.9, 0.8, 0.3, 0.5, 0.1, 0.2])
    cost = torch.tensor([1.0, 0.5, 0.7, 0.2, 3.0, 2.0])
    # truth 0: 2.3 -> two, those of cost 0.2 and 0.5; truth 1: 0.5 -> one, of cost 0.7, in a cell truth 0 has for 0.5
    assert cheapest_of(truth, cell, overlap, cost).tolist() == [False, True, False, True, False, False]
    # were it cheaper for truth 1, truth 0 would lose that cell
    cost[2] = 0.4
    assert cheapest_of(truth, cell, overlap, cost).tolist() == [False, False, True, True, False, False]
    # only the two best IoUs are added up: 1.7 -> one
    assert cheapest_of(truth[:2], cell[:2], overlap[:2], cost[:2], most=2).tolist() == [False, True]
    nothing = torch.zeros(0)
    assert cheapest_of(nothing.long(), nothing.long(), nothing, nothing).tolist() == []


def test_dynamic_assignment_lets_one_answer_for_a_truth_nothing_fits_yet(model):
    dynamic = build(replace(model.config, assignment="dynamic"))
    raws = [torch.zeros(1, 1, 128 // s, 128 // s, 8) for s in (8, 16, 32)]
    truths = Truths.of([target([[0.0, 0, 39, 29], [40, 40, 128, 128]], [0, 1])])
    all_of_them = dynamic._assign(truths, [(r.shape[2], r.shape[3]) for r in raws])
    raws[1][0, 0, 0, 1, 5] = 3  # of the three priors of truth 0 at stride 16 this one is surest of its class
    kept = dynamic._cheapest(raws, truths, all_of_them)
    assert sum(len(m.truth) for m in kept) < sum(len(m.truth) for m in all_of_them)
    assert {int(t) for m in kept for t in m.truth} == {0, 1}


def test_ignored_truths_are_kept_apart():
    truths = Truths.of([target([[0, 0, 8, 8], [4, 4, 20, 20]], [1, 2], [False, True]), target([], [])])
    assert truths.boxes.tolist() == [[0, 0, 8, 8]]
    assert truths.ignored_boxes.tolist() == [[4, 4, 20, 20]]
    assert truths.image.tolist() == truths.ignored_image.tolist() == [0]


def test_losses_of_a_perfect_answer_are_nearly_zero_and_of_a_wrong_class_are_not(model):
    """One truth, one prior of its very size: the raw numbers that mean it exactly are written in by hand."""
    wanted = target([[36.0, 41, 76, 71]], [2])  # centre (56, 56) in the middle of cell (3, 3) at stride 16; 40 x 30
    raws = [torch.full((1, 1, 128 // s, 128 // s, 8), 0.0) for s in (8, 16, 32)]
    for raw in raws:
        raw[..., 4] = -20
        raw[..., 5:] = torch.tensor([-20.0, -20, 20])
    truths = Truths.of([wanted])
    sizes = [(r.shape[2], r.shape[3]) for r in raws]
    matches = model._assign(truths, sizes)
    # at stride 16 the prior of the same size answers, in the cell of the centre and its two neighbours
    middle = matches[1]
    assert len(middle.truth) == 3
    only = middle._replace(**{name: getattr(middle, name)[:1] for name in middle._fields})
    raws[1][0, 0, 3, 3, 4] = 20
    box, objectness, classes = model._losses_at(raws[1], model.anchors[1], 16, truths, only)
    assert float(box) == pytest.approx(0, abs=1e-5)
    assert float(objectness) == pytest.approx(0, abs=1e-4)
    assert float(classes) == pytest.approx(0, abs=1e-4)
    wrong = truths._replace(labels=torch.tensor([0]))
    assert float(model._losses_at(raws[1], model.anchors[1], 16, wrong, only)[2]) == pytest.approx(40, abs=1e-3)


def test_boxes_in_an_ignored_region_are_not_called_background(model):
    raw = torch.zeros(1, 1, 8, 8, 8)  # every prior claims half an object, at 40 x 30 in every cell
    nothing = model._assign(Truths.of([target([], [])]), [(16, 16), (8, 8), (4, 4)])[1]
    counted = [
        float(model._losses_at(raw, model.anchors[1], 16, Truths.of([t]), nothing)[1]) / math.log(2)
        for t in (
            target([], []),
            target([[0.0, 0, 128, 128]], [0], [True]),
            target([[0.0, 0, 64, 128]], [0], [True]),
        )
    ]
    # all 64 cells; none; those whose box lies at most half inside the left half: columns 4 to 7 (the box of column 4
    # spans 52 to 92, 30 % of it inside; column 3 spans 36 to 76, 70 %)
    assert counted == pytest.approx([64, 0, 32], abs=1e-3)


@pytest.mark.parametrize("assignment", ["best", "neighbours", "dynamic"])
def test_losses_are_finite_without_objects_and_reach_every_parameter_with_them(assignment):
    torch.manual_seed(0)
    decoding = "exp" if assignment == "best" else "bounded"
    net = build(YOLOConfig(3, anchors=SMALL, neck_channels=16, assignment=assignment, decoding=decoding)).train()
    images = torch.randn(2, 3, 96, 128)
    empty = net.losses(images, [Target.empty(), Target.empty()])
    assert set(empty) == {"box", "objectness", "class"}
    assert all(torch.isfinite(v) for v in empty.values())
    assert empty["box"].item() == empty["class"].item() == 0
    boxes = target([[10.0, 10, 22, 26], [30, 20, 80, 60], [2, 2, 100, 94]], [0, 1, 2])
    sum(net.losses(images, [boxes, Target.empty()]).values()).backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_detect_gives_every_prior_of_every_cell_whatever_the_mode(model):
    images = torch.randn(2, 3, 64, 96)
    model.eval()
    boxes, scores, _ = model.detect(images)
    assert boxes.shape == (2, 8 * 12 + 4 * 6 + 2 * 3, 4)
    assert scores.shape == (2, 126, 3)
    assert 0 <= scores.min().item() <= scores.max().item() <= 1
    alone = model.detect(images[1:])
    torch.testing.assert_close(alone.boxes[0], boxes[1], atol=1e-3, rtol=1e-4)


def test_detect_and_losses_speak_of_the_same_boxes(model):
    """The box at the flat position that the assignment trains is the one `detect` reports for that cell and prior."""
    model.eval()
    images = torch.randn(1, 3, 64, 96)
    raw = model(images)[1]
    expected = decode(raw[0, 0, 2, 5, :4], torch.tensor([5.0, 2.0]), model.anchors[1][0], 16, "bounded")
    position = 8 * 12 + 2 * 6 + 5
    torch.testing.assert_close(model.detect(images).boxes[0, position], expected)


def test_config_survives_json_and_the_catalog_builds_from_it():
    config = configure(
        4,
        {"neck_channels": 16, "box_loss": "giou"},
        lambda k: torch.arange(1, 2 * k + 1).reshape(k, 2).numpy(),
    )
    again = config_from_json(config_to_json(config))
    assert again == config
    assert config.anchors[2][2] == (17.0, 18.0)
    assert catalog.build("yolo", config_to_json(config), 4).config == config


def test_version_2_has_one_scale_with_five_priors():
    config = configure(2, catalog.entry("yolov2").options, lambda k: torch.ones(k, 2).numpy())
    assert (config.strides, len(config.anchors[0]), config.assignment) == ((32,), 5, "best")
    without_data = configure(2, catalog.entry("yolov2").options, None)
    assert without_data.anchors[0][4] == (359.6, 320.2)


def test_unknown_options_and_models_are_named():
    with pytest.raises(DetsegError, match="no option boxloss"):
        configure(2, {"boxloss": "ciou"}, None)
    with pytest.raises(DetsegError, match="did you mean yolov3"):
        catalog.entry("yolv3")


def test_smoothed_classes_and_focal_loss_by_hand():
    """One positive, raw scores 0 everywhere: every sigmoid is 1/2, every cross entropy ln 2 whatever the truth."""
    truths = Truths.of([target([[36.0, 41, 76, 71]], [2])])
    raw = torch.zeros(1, 1, 8, 8, 8)
    for smooth, gamma, factors in (
        (0.0, 0.0, (1, 1, 1)),
        (0.0, 2.0, (1 / 4, 1 / 4, 1 / 4)),  # |truth - 1/2|^2
        (0.2, 2.0, (0.16, 0.16, 0.16)),  # truths 0.1, 0.1, 0.9: (0.4)^2
    ):
        net = build(YOLOConfig(3, anchors=SMALL, neck_channels=16, label_smoothing=smooth, focal_gamma=gamma))
        only = net._assign(truths, [(16, 16), (8, 8), (4, 4)])[1]
        only = only._replace(**{name: getattr(only, name)[:1] for name in only._fields})
        _, objectness, classes = net._losses_at(raw, net.anchors[1], 16, truths, only)
        assert float(classes) == pytest.approx(sum(factors) * math.log(2), rel=1e-5)
        # 63 cells of background and one whose box is the truth's: |1/2|^gamma ln 2 each
        assert float(objectness) == pytest.approx(64 * 0.5**gamma * math.log(2), rel=1e-4)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"box_loss": "eiou"}, "box_loss must be one of iou, giou, diou, ciou, got 'eiou'"),
        ({"assignment": "first"}, "assignment must be one of best, neighbours, dynamic"),
        ({"focal_gamma": -1}, "focal_gamma must not be negative"),
        ({"label_smoothing": 1.5}, r"label_smoothing must lie in \[0, 1\)"),
    ],
)
def test_options_out_of_range_are_named(wrong, told):
    with pytest.raises(DetsegError, match=told):
        configure(2, wrong, None)
