"""Darknet networks against a numpy pass of their own, the sizes of published weight files, and hand-computed losses."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detseg import catalog
from detseg.annotations.sample import write_sample
from detseg.checkpoints import darknet_plan, load, load_into, save
from detseg.checkpoints.darknet_cfg import parse_cfg
from detseg.detectors import darknet
from detseg.detectors.contract import Target
from detseg.errors import DetsegError, WeightsError
from detseg.parts import darknet_layers
from detseg.parts.darknet_heads import BatchTruth, Head, assign
from detseg.runtimes import open_runtime
from detseg.runtimes.export import export_onnx
from detseg.training.config import TrainConfig
from detseg.training.setup import prepare
from tests import darknet_numpy as plain
from tests.darknet_cfgs import NETWORKS

# Bytes of the weight files that their authors published for COCO, and of the header before the numbers.
PUBLISHED = {
    "yolov2-tiny": (44_948_600, 20),
    "yolov2": (203_934_260, 16),
    "yolov3-tiny": (35_434_956, 20),
    "yolov3": (248_007_048, 20),
    "yolov3-spp": (252_209_544, 20),
    "yolov4-tiny": (24_251_276, 20),
    "yolov4": (257_717_640, 20),
}
EVERY_LAYER = """
[net]
width=32
height=48
[convolutional]
filters=8
size=3
stride_x=2
stride_y=1
pad=1
batch_normalize=1
activation=swish
[conv]
filters=8
size=3
padding=1
dilation=2
groups=4
activation=mish
[maxpool]
size=2
stride=1
[shortcut]
from=-2, 0
activation=relu6
[maxpool]
size=3
stride_x=2
stride_y=3
[local_avgpool]
size=3
stride=1
[convolutional]
filters=6
size=1
activation=hard-swish
[shortcut]
from=-2
[dropout]
probability=.3
[route]
layers=-1, 4
[route]
layers=9
groups=2
group_id=1
[avgpool]
[convolutional]
filters=7
size=1
activation=logistic
[scale_channels]
from=10
activation=leaky
[convolutional]
filters=7
size=1
pad=1
activation=logistic
[sam]
from=13
[cost]
[convolutional]
filters=16
size=3
stride=1
pad=1
batch_normalize=1
activation=elu
[reorg]
stride=2
[route]
layers=-2
[reorg3d]
stride=2
[route]
layers=-1,-3
[upsample]
stride=2
scale=.5
[convolutional]
filters=24
size=1
activation=linear
[yolo]
mask=0,2
anchors=8,9, 10,4, 20,30
classes=7
num=3
scale_x_y=1.1
"""


def imported(cfg: str, folder: Path, seed: int = 0) -> tuple[darknet.Darknet, darknet.Imported, bytes]:
    """The network of `cfg` with a random weight file, by way of the two files."""
    content = plain.random_file(cfg, np.random.default_rng(seed))
    (folder / "net.cfg").write_text(cfg)
    (folder / "net.weights").write_bytes(content)
    found = darknet.import_network(folder / "net.cfg", folder / "net.weights")
    model = catalog.build(found.card.model, found.card.config, len(found.card.categories)).eval()
    load_into(model, found.state, "net")
    assert isinstance(model, darknet.Darknet)
    return model, found, content


@torch.no_grad()
def outputs(model: darknet.Darknet, images: Tensor) -> dict[int, Tensor]:
    """What every layer made, predictions included, by its number in the cfg."""
    made: dict[int, Tensor] = {}
    heads = [layer.inputs[0] for layer, _ in darknet_plan.plan(model.config.sections).heads]
    watched = [(int(name), module) for name, module in model.backbone.layers.items()]
    watched += [(index, own.predictor) for index, own in zip(heads, model.heads, strict=True)]
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, index=index: made.__setitem__(index, out.clone()))
        for index, module in watched
    ]
    model.detect(images)
    for hook in hooks:
        hook.remove()
    for index, own in zip(heads, model.heads, strict=True):
        if own.new_coords:  # its sigmoid is left to the head, which learns better from what is before it
            made[index] = made[index].sigmoid()
    return made


def assert_every_layer_agrees(model: darknet.Darknet, cfg: str, content: bytes, picture: np.ndarray) -> None:
    wanted = plain.forward(cfg, content, picture)
    made = outputs(model, torch.from_numpy(picture[None]).float())
    names = [name for name, _ in plain.sections(cfg)[1:]]
    assert sorted(made) == [i for i, name in enumerate(names) if name not in ("yolo", "region")]
    for i, own in made.items():
        np.testing.assert_allclose(own[0].numpy(), wanted[i], rtol=1e-4, atol=1e-4, err_msg=f"layer {i} [{names[i]}]")


def test_every_kind_of_layer_computes_as_darknet_does(tmp_path):
    model, _, content = imported(EVERY_LAYER, tmp_path)
    picture = np.random.default_rng(1).random((3, 48, 32))
    assert_every_layer_agrees(model, EVERY_LAYER, content, picture)


@pytest.mark.data
def test_a_known_network_layer_by_layer(data_dir):
    files = [data_dir / "darknet" / f"yolo-fastest-1.1-xl.{ending}" for ending in ("cfg", "weights")]
    found = darknet.import_network(*files)
    model = catalog.build("darknet", found.card.config, 80).eval()
    load_into(model, found.state, "net")
    picture = np.random.default_rng(2).random((3, 3, 3)).repeat(32, axis=1).repeat(32, axis=2)
    assert_every_layer_agrees(model, files[0].read_text(), files[1].read_bytes(), picture)


@pytest.mark.parametrize("activation", darknet_plan.ACTIVATIONS)
def test_activations(activation):
    x = torch.linspace(-7, 7, 281)
    wanted = plain.ACTIVATIONS[activation](x.double().numpy())
    np.testing.assert_allclose(
        darknet_layers.ACTIVATIONS[activation]()(x.clone()).numpy(), wanted, atol=1e-4
    )  # Darknet rounds SELU's constants


def test_darknets_reorg_is_not_space_to_depth_but_its_inverse_undoes_it():
    x = torch.arange(2 * 4 * 4 * 4.0).reshape(2, 4, 4, 4)
    own = darknet_layers.Reorg(2)(x)
    assert own.shape == (2, 16, 2, 2)
    assert own[0, 0].flatten().tolist() == [0, 2, 4, 6]  # every other number of the flat memory, not of a row
    np.testing.assert_array_equal(own[1].numpy(), plain.reorg(x[1].numpy(), 2))
    assert sorted(own[0].flatten().tolist()) == list(range(64))


@pytest.mark.parametrize("name", PUBLISHED)
def test_as_many_numbers_as_in_the_published_file(name):
    size, header = PUBLISHED[name]
    assert header + 4 * darknet_plan.plan(parse_cfg(NETWORKS[name](416))).numbers == size


def test_yolov7_tiny_has_the_parameters_of_its_paper():
    # 6.2 M, counted with batch norms folded into a bias: one number a filter instead of four
    made = darknet_plan.plan(parse_cfg(NETWORKS["yolov7-tiny"](416)))
    assert sum(math.prod(c.kernel_shape) + c.filters for _, c in made.convolutions) == 6_219_709


@pytest.mark.parametrize("name", NETWORKS)
def test_published_networks_compute_as_darknet_does(name, tmp_path):
    """All layers, boxes and scores of thin ones: an eighth of the filters, so that numpy is quick."""
    cfg = NETWORKS[name](64, thin=8).replace("classes = 80", "classes = 3")
    for anchors in (3, 5):
        cfg = cfg.replace(f"filters = {anchors * 85}", f"filters = {anchors * 8}")
    model, found, content = imported(cfg, tmp_path)
    picture = np.random.default_rng(3).random((3, 64, 64))
    assert_every_layer_agrees(model, cfg, content, picture)
    boxes, scores, _ = model.detect(torch.from_numpy(picture[None]).float())
    outs, layers = plain.forward(cfg, content, picture), plain.sections(cfg)[1:]
    wanted = [
        pair
        for x, (kind, o) in zip(outs, layers, strict=True)
        if kind in ("yolo", "region")
        for pair in plain.boxes_and_scores(x, kind, o, (64, 64))
    ]
    np.testing.assert_allclose(boxes[0].detach().numpy(), [box for box, _ in wanted], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(scores[0].detach().numpy(), [score for _, score in wanted], atol=1e-4)
    assert found.plan.heads[0][1].classes == 3


def test_frames_of_another_size_and_shape(tmp_path):
    model, _, content = imported(NETWORKS["yolov3-tiny"](64, thin=8), tmp_path)
    cfg = (tmp_path / "net.cfg").read_text()
    picture = np.random.default_rng(4).random((3, 96, 160))
    boxes, _, _ = model.detect(torch.from_numpy(picture[None]).float())
    outs = plain.forward(cfg, content, picture)
    last = [(x, o) for x, (kind, o) in zip(outs, plain.sections(cfg)[1:], strict=True) if kind == "yolo"]
    wanted = [box for x, o in last for box, _ in plain.boxes_and_scores(x, "yolo", o, (96, 160))]
    np.testing.assert_allclose(boxes[0].detach().numpy(), wanted, rtol=1e-3, atol=1e-3)


def test_a_file_of_an_old_version_has_a_shorter_header(tmp_path):
    cfg = NETWORKS["yolov2-tiny"](32, thin=16)
    content = plain.random_file(cfg, np.random.default_rng(0), version=(0, 1, 0))
    (tmp_path / "net.cfg").write_text(cfg)
    (tmp_path / "net.weights").write_bytes(content)
    found = darknet.import_network(tmp_path / "net.cfg", tmp_path / "net.weights")
    assert (found.header.bytes, found.header.seen, found.header.version) == (16, 7, "0.1.0")
    first = np.frombuffer(content, "<f4", offset=16)
    np.testing.assert_array_equal(found.state["backbone.layers.0.norm.bias"].numpy(), first[:1])


@pytest.mark.slow
def test_the_checkpoint_stands_alone_and_exports(tmp_path):
    model, found, _ = imported(NETWORKS["yolov4-tiny"](64, thin=8), tmp_path)
    save(tmp_path / "net.safetensors", found.card, found.state)
    (tmp_path / "net.cfg").unlink()
    (tmp_path / "net.weights").unlink()
    frames = np.random.default_rng(5).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        wanted = model.detect(torch.from_numpy(frames).permute(0, 3, 1, 2) / 255)
    report = export_onnx(tmp_path / "net.safetensors", tmp_path / "net.onnx", half=False)
    assert report.graph.score < 1e-4
    for kind in ("safetensors", "onnx"):
        runtime = open_runtime(tmp_path / f"net.{kind}", device="cpu")
        assert runtime.card.preprocess.fit == "stretch"
        found_boxes, found_scores, masks = runtime.predict(frames)
        assert masks is None
        np.testing.assert_allclose(found_scores, wanted.scores.numpy(), atol=1e-4)
        np.testing.assert_allclose(found_boxes, wanted.boxes.numpy(), rtol=1e-3, atol=1e-2)


def head(**options: object) -> Head:
    """One prior of 16 x 16 pixels in 2 x 2 cells of a frame of 32 x 32; what it predicts is what it is given."""
    classes = options.pop("classes", 2)
    return Head(nn.Identity(), ((16, 16),), classes, **options)  # type: ignore[arg-type]


def truth_of(boxes: list[list[float]], labels: list[int], ignored: list[list[float]] | None = None) -> BatchTruth:
    zone = torch.tensor(ignored or []).reshape(-1, 4)
    image = torch.zeros(len(boxes), dtype=torch.int64)
    return BatchTruth(
        image,
        torch.tensor(boxes).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        image.new_zeros(len(zone)),
        zone,
    )


def losses_of(own: Head, raw: Tensor, truth: BatchTruth) -> list[float]:
    positives = assign(truth.boxes, [own.anchors], [(2, 2)], (32, 32), [1.0])[0]
    return [float(part) for part in own.losses(raw, truth, positives, (32, 32))]


def test_losses_by_hand():
    ln2 = math.log(2)
    raw = torch.zeros(1, 1, 2, 2, 7)  # every cell: a box as large as the cell, all probabilities 0.5
    # the truth is the first cell: its box is right; 4 cells, 2 classes, each at -ln 0.5
    assert losses_of(head(), raw, truth_of([[0, 0, 16, 16]], [1])) == pytest.approx([0, 4 * ln2, 2 * ln2], abs=1e-5)
    assert losses_of(head(softmax=True), raw, truth_of([[0, 0, 16, 16]], [1])) == pytest.approx(
        [0, 4 * ln2, ln2], abs=1e-5
    )
    # a wider truth centred in the first cell: IoU 3/4; the cell to the right covers a third of it, less than 0.5
    assert losses_of(head(box_loss="iou"), raw, truth_of([[2, 0, 14, 16]], [0]))[0] == pytest.approx(0.25, abs=1e-5)
    # without objects all cells are background; a crowd over the left half takes two of them out
    assert losses_of(head(), raw, truth_of([], [])) == pytest.approx([0, 4 * ln2, 0])
    assert losses_of(head(), raw, truth_of([], [], [[0, 0, 16, 32]])) == pytest.approx([0, 2 * ln2, 0])
    # boxes twice as wide: that of the second cell covers 23 of the 40 pixels that it and the truth of the first span
    wide = raw.clone()
    wide[..., 2] = ln2
    truth = truth_of([[0, 0, 31, 16]], [0])
    assert losses_of(head(ignore_iou=0.5), wide, truth)[1] == pytest.approx(3 * ln2)
    assert losses_of(head(ignore_iou=0.6), wide, truth)[1] == pytest.approx(4 * ln2)


def test_who_answers_for_a_truth():
    priors = [torch.tensor([[10.0, 10.0], [20.0, 20.0]]), torch.tensor([[40.0, 40.0], [22.0, 22.0]])]
    boxes = torch.tensor([[0.0, 0.0, 21.0, 21.0], [40.5, 51.0, 53.5, 63.0]])  # centres (10.5, 10.5) and (47, 57)
    fine, coarse = assign(boxes, priors, [(8, 8), (4, 4)], (64, 64), [1.0, 1.0])
    # 21 x 21 against 22 x 22: 441 / 484 = 0.911; against 20 x 20: 400 / 441 = 0.907
    assert [column.tolist() for column in coarse] == [[0], [1], [0], [0]]
    assert [column.tolist() for column in fine] == [[1], [0], [7], [5]]  # 13 x 12: 100 / 156 with 10 x 10
    fine, _ = assign(boxes, priors, [(8, 8), (4, 4)], (64, 64), [0.9, 1.0])
    # v4: every prior over the threshold
    assert [column.tolist() for column in fine] == [[0, 1], [1, 0], [1, 7], [1, 5]]


def test_new_coordinates_reach_over_the_cell_and_to_four_priors():
    own = head(new_coords=True, scale_xy=2.0)
    far = torch.tensor([50.0, -50.0, 50.0, 0.0]).expand(1, 1, 2, 2, 4)
    # first cell: centre (1.5, -0.5) cells of 16, sides 4 and 1 priors of 16
    assert own.decode(far, (32, 32))[0, 0, 0, 0].tolist() == pytest.approx([24 - 32, -8 - 8, 24 + 32, -8 + 8])


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    return write_sample(tmp_path_factory.mktemp("shapes"), format="coco", images=8, seed=1, hw=(64, 64))


def test_fine_tuning_keeps_every_layer_that_fits(tmp_path, shapes):
    _, found, _ = imported(NETWORKS["yolov3-tiny"](64, thin=8), tmp_path)
    save(tmp_path / "net.safetensors", found.card, found.state)
    config = TrainConfig(data=str(shapes), model="darknet", weights=str(tmp_path / "net.safetensors"), imgsz=64)
    prepared = prepare(config, "x")
    own, old = prepared.model.state_dict(), found.state
    classes = len(prepared.truth.categories)
    assert classes != 80
    for name, value in own.items():
        if "predictor" not in name:
            assert torch.equal(value, old[name]), name
            continue
        new, was = (t.reshape(3, -1, *t.shape[1:]) for t in (value, old[name]))
        assert new.shape[1] == 5 + classes
        assert torch.equal(new[:, :5], was[:, :5])  # where a box is, and whether, is kept
    assert prepared.inherited.anew == ()
    assert prepared.card.preprocess.fit == "stretch"
    again = catalog.build("darknet", prepared.card.config, classes)
    load_into(again, own, "again")


def test_four_pictures_are_learnt_by_heart(shapes):
    torch.manual_seed(0)
    config = darknet.configure(
        2, {"sections": [[s.name, dict(s.options)] for s in parse_cfg(NETWORKS["yolov4-tiny"](64, thin=4))]}, None
    )
    model = darknet.build(config)
    images = torch.rand(2, 3, 64, 64)
    images[0, :, 10:40, 5:30] = 1
    images[1, :, 20:60, 30:60] = 0
    targets = [
        Target(torch.tensor([box]), torch.tensor([label]), torch.tensor([False]))
        for box, label in (([5.0, 10, 30, 40], 0), ([30.0, 20, 60, 60], 1))
    ]
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    first = None
    for _ in range(60):
        losses = model.losses(images, targets)
        assert set(losses) == {"box", "objectness", "class"}
        total = torch.stack(list(losses.values())).sum()
        first = first or float(total.detach())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert float(total.detach()) < 0.1 * first
    boxes, scores, _ = model.eval().detect(images)
    for i, target in enumerate(targets):
        best = scores[i].amax(dim=1).argmax()
        assert int(scores[i, best].argmax()) == int(target.labels)
        assert torch.allclose(boxes[i, best], target.boxes[0], atol=6)


def test_a_new_network_from_a_cfg_takes_priors_from_the_data(tmp_path):
    (tmp_path / "net.cfg").write_text(NETWORKS["yolov2-tiny"](64, thin=8))
    sizes = np.array([[8.0, 16], [16, 8], [32, 32], [48, 32], [64, 64]])
    config = darknet.configure(2, {"cfg": str(tmp_path / "net.cfg")}, lambda count: sizes[:count])
    ((_, found),) = darknet_plan.plan(config.sections).heads
    # cells of 32 pixels (five halvings: the sixth pool keeps the size)
    np.testing.assert_allclose(found.anchors, sizes / 32)
    assert found.classes == 2
    assert darknet.build(config).detect(torch.zeros(1, 3, 64, 64)).scores.shape == (1, 20, 2)


def test_it_is_yolov3_tiny_when_nothing_is_named():
    config = darknet.configure(80, {"backbone": "its own"}, None)
    assert darknet_plan.plan(config.sections).numbers * 4 + 20 == PUBLISHED["yolov3-tiny"][0]
    assert [section.name for section in config.sections] == [s.name for s in parse_cfg(NETWORKS["yolov3-tiny"](416))]
    again = darknet.config_from_json(json.loads(json.dumps(darknet.config_to_json(config))))
    assert darknet.config_to_json(again) == darknet.config_to_json(config)


@pytest.mark.parametrize(
    "options",
    [{"backbone": "resnet18"}, {"boxweight": 1}, {"sections": 7}, {"sections": [["net", 3]]}, {"box_weight": "x"}],
)
def test_options_that_make_no_sense(options: Mapping[str, object]):
    with pytest.raises(DetsegError):
        darknet.configure(2, options, None)


def test_freezing_goes_by_stride():
    model = darknet.Darknet(config := darknet.configure(2, {}, None), darknet_plan.plan(config.sections))
    assert [len(stage) for stage in model.backbone.stages()][:2] == [3, 2]  # conv pool conv; pool conv; ...
    assert len(model.backbone.stages()) == 5
    model.backbone.freeze(1)
    fixed = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert {name.split(".")[2] for name in fixed} == {"0", "2"}


def test_a_checkpoint_of_other_classes_than_its_cfg_is_refused(tmp_path):
    _, found, _ = imported(NETWORKS["yolov3-tiny"](64, thin=8), tmp_path)
    with pytest.raises(WeightsError, match="80 classes"):
        catalog.build("darknet", found.card.config, 3)
    save(tmp_path / "net.safetensors", found.card, found.state)
    card, state = load(tmp_path / "net.safetensors")
    assert card.training["imported"]["weights"] == "net.weights"
    assert len(state) == len(found.state)
