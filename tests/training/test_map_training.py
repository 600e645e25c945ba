"""Segmenters in training: what they are shown, what they learn, what becomes of faults.

Oracle: pictures whose classes are known, and runs that must not differ.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from PIL import Image

from detseg.annotations import load_label_maps
from detseg.annotations.map_summary import pixel_counts
from detseg.annotations.sample import write_sample
from detseg.annotations.semantic import IGNORE, Painted
from detseg.checkpoints import load
from detseg.cli.main import main
from detseg.errors import DataError, DetsegError
from detseg.evaluation.label_maps import evaluate_label_maps
from detseg.images import ImageFile
from detseg.pipeline import segment_files
from detseg.runtimes.live import LiveRuntime
from detseg.training.config import TrainConfig
from detseg.training.data import EpochBatches, Ticket, collate, loader
from detseg.training.loop import normalised
from detseg.training.optimizer import make_optimizer
from detseg.training.setup import prepare
from tests.training.test_training import run

MODEL = "fcn"


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    return write_sample(tmp_path_factory.mktemp("shapes"), format="coco", images=15, seed=1, hw=(96, 128))


def small(data: Path, **changes) -> TrainConfig:
    values = {
        "data": str(data), "model": MODEL, "imgsz": 64, "epochs": 2, "batch": 4, "workers": 0, "eval_every": 1,
        "warmup_epochs": 0.5, "backbone_weights": None, "freeze_stages": 0, "freeze_bn": False,
    }  # fmt: skip
    return TrainConfig(**{**values, **changes})


def test_frames_are_square_crops_and_their_maps(shapes):
    prepared = prepare(small(shapes), "x")
    assert prepared.card.task == "segment"
    assert prepared.card.categories.names[0] == "background"
    batches = EpochBatches(len(prepared.data), prepared.config, prepared.truth.image_hw)
    batch = collate([prepared.data[ticket] for ticket in next(iter(batches))])
    assert batch.frames.shape == (4, 64, 64, 3)
    assert batch.label_maps.shape == (4, 64, 64)
    truth = batch.truth("cpu")
    assert truth.labels.dtype == torch.int64
    values = set(truth.labels.unique().tolist())
    assert values <= {*range(len(prepared.card.categories)), IGNORE}
    assert len(values) > 2


def test_unaltered_frames_have_their_pictures_shape(shapes):
    prepared = prepare(small(shapes, augment="none"), "x")
    batches = EpochBatches(len(prepared.data), prepared.config, prepared.truth.image_hw)
    (ticket, *_) = next(iter(batches))
    sample, _, errors = prepared.data[ticket]
    assert not errors
    assert sample.image.shape == (64, 96, 3)  # 96 x 128 at 64 pixels: 64 x 85, filled up to a multiple of 32
    assert (sample.label_map[:, 85:] == IGNORE).all()
    wanted = Image.fromarray(prepared.truth.label_map(ticket.picture)).resize((85, 64), Image.Resampling.NEAREST)
    same = sample.label_map[:, :85] == np.asarray(wanted)
    assert same.mean() > 0.97  # but for the pixels between two classes


def test_the_same_frames_whatever_the_workers(shapes):
    config, found = small(shapes, mosaic=0.5), []
    for workers in (0, 2):
        prepared = prepare(config, "x")
        batches = EpochBatches(len(prepared.data), config, prepared.truth.image_hw)
        found.append(list(loader(prepared.data, batches, workers)))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one.frames, other.frames)
        assert torch.equal(one.label_maps, other.label_maps)


def test_an_interrupted_run_ends_with_the_same_weights(shapes, tmp_path):
    config = small(shapes, epochs=3)
    run(config, tmp_path / "whole", lambda model: {"miou": 0.5})
    run(config, tmp_path / "parts", lambda model: {"miou": 0.5}, stop_after=1)
    run(config, tmp_path / "parts", lambda model: {"miou": 0.5})
    whole, parts = (load(tmp_path / name / "weights" / "last.safetensors")[1] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.slow
def test_four_pictures_are_learnt_by_heart(tmp_path):
    data = write_sample(tmp_path, format="coco", images=5, seed=5, hw=(96, 128))
    config = small(data, imgsz=96, augment="none", lr=5e-3, backbone_lr=1.0, weight_decay=0, freeze_bn=True)
    prepared = prepare(config, "x")
    ticketed = next(iter(EpochBatches(len(prepared.data), config, prepared.truth.image_hw)))
    batch = collate([prepared.data[ticket] for ticket in ticketed])
    images, truth = normalised(batch.frames, prepared.card.preprocess), batch.truth("cpu")
    optimizer = make_optimizer(prepared.model.train(), config)
    for _ in range(150):
        loss = torch.stack(list(prepared.model.losses(images, truth).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    maps = prepared.truth
    files = [ImageFile(maps.image_path(i), PurePosixPath(name)) for i, name in enumerate(maps.image_files)]
    found = [outcome.found.labels for outcome in segment_files(files, LiveRuntime(prepared.card, prepared.model))]
    metrics = evaluate_label_maps(maps, found)
    assert metrics.pixel_accuracy > 0.97
    assert metrics.miou > 0.85  # the small shapes are mostly edge at stride 8


@pytest.mark.parametrize(
    ("changes", "told"), [({"mixup": 0.5}, "cannot be blended"), ({"options": {"colour": 3}}, "no option colour")]
)
def test_what_cannot_be_is_refused(shapes, changes, told):
    with pytest.raises(DetsegError, match=told):
        prepare(small(shapes, **changes), "x")


def test_boxes_alone_are_no_label_maps(tmp_path):
    data = write_sample(tmp_path / "data", format="coco", images=5, seed=1, hw=(64, 64))
    for file in data.rglob("*.json"):
        content = json.loads(file.read_text())
        for row in content["annotations"]:
            row.pop("segmentation", None)
        file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="boxes and no outlines"):
        prepare(small(data), "x")


@pytest.fixture
def masks(tmp_path) -> Path:
    """A mask folder: the left half is sky, the right one road, a column between them void."""
    root = tmp_path / "masks-set"
    for part, count in (("train", 6), ("val", 2)):
        for kind in ("images", "masks"):
            (root / kind / part).mkdir(parents=True)
        for i in range(count):
            middle = 20 + 3 * i
            values = np.zeros((48, 64), np.uint8)
            values[:, middle:] = 1
            picture = np.where(values[..., None] == 0, np.uint8([90, 140, 250]), np.uint8([90, 90, 80]))
            values[:, middle] = 255
            Image.fromarray(picture.astype(np.uint8)).save(root / "images" / part / f"{i}.png")
            Image.fromarray(values).save(root / "masks" / part / f"{i}.png")
    (root / "classes.txt").write_text("0 sky\n1 road\n255 void\n")
    return root


def test_a_mask_that_cannot_be_used_is_named_and_left_out(masks):
    prepared = prepare(small(masks, imgsz=32), "x")
    Image.fromarray(np.full((48, 64), 7, np.uint8)).save(masks / "masks" / "train" / "2.png")
    answers = [prepared.data[Ticket(0, i, (32, 32), False)] for i in range(6)]
    batch = collate(answers)
    assert len(batch.frames) == 5
    (error,) = batch.unreadable
    assert "2.png" in str(error)
    assert "stand for no class" in str(error)


def test_pixels_are_counted(masks):
    maps = load_label_maps(masks, "val")  # 20 and 23 columns of sky, one void, the rest road
    pixels, in_pictures = pixel_counts(maps)
    assert pixels.tolist() == [48 * (20 + 23), 48 * (43 + 40)]
    assert in_pictures.tolist() == [2 * 48 * 63] * 2


@pytest.fixture
def cells(tmp_path) -> Path:
    """A COCO file with one picture of three squares, of which two touch."""
    squares = [[2, 2, 6, 8], [8, 2, 6, 8], [20, 2, 4, 4]]  # x y w h; the first two touch
    image = {"id": 1, "file_name": "a.png", "width": 32, "height": 16}
    rows = []
    for i, (x, y, w, h) in enumerate(squares):
        ring = [x, y, x + w, y, x + w, y + h, x, y + h]
        rows.append(
            {"id": i + 1, "image_id": 1, "category_id": 4, "iscrowd": 0, "segmentation": [ring]}
            | {"bbox": [x, y, w, h], "area": w * h}
        )
    Image.new("RGB", (32, 16)).save(tmp_path / "a.png")
    text = {"images": [image], "annotations": rows, "categories": [{"id": 4, "name": "cell"}]}
    (tmp_path / "cells.json").write_text(json.dumps(text))
    return tmp_path / "cells.json"


def test_pixels_between_near_objects_count_more(cells):
    config = small(cells, border_weight=10, augment="none", imgsz=32, longest=2.0)
    prepared = prepare(config, "x")
    (ticket,) = next(iter(EpochBatches(1, config, prepared.truth.image_hw)))
    batch = collate([prepared.data[ticket]])
    weights, labels = batch.truth("cpu").weights[0], batch.truth("cpu").labels[0]
    # the picture is enlarged twofold: the two columns that part the squares are four wide there
    gap = (labels[10] == 0).nonzero()[:, 0]
    gap = gap[(gap > 10) & (gap < 20)]
    assert len(gap) == 4
    # d1 + d2 = 5 all over a gap of four pixels: 1 + 10 exp(-25 / 50)
    assert weights[10, gap].tolist() == pytest.approx([1 + 10 * np.exp(-0.5)] * 4, rel=1e-4)
    assert (weights[labels == 1] == 1).all()
    assert weights[30, 60] < 1.1  # far from everything


def test_border_weights_want_a_background(masks):
    with pytest.raises(DataError, match="no class is called so: sky, road"):
        prepare(small(masks, border_weight=10), "x")


def test_touching_objects_are_drawn_apart(cells):
    maps = load_label_maps(cells)
    whole = maps.label_map(0)
    assert (whole == 1).sum() == 48 + 48 + 16
    apart = Painted(maps.source.truth, apart=True).read(0)
    wanted = whole.copy()
    wanted[2:10, 7:9] = 0  # a column of each
    np.testing.assert_array_equal(apart, wanted)


def test_from_training_to_label_maps(masks, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["-m", "unet-valid", "--option", "width=8", "--option", "steps=2", "--imgsz", "32", "--epochs", "25",
             "--batch", "3", "--eval-every", "25", "--workers", "0", "--lr", "1e-2"]  # fmt: skip
    assert main(["train", str(masks), *words, "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert "6 pictures, label maps of 2 classes; validated on 2" in told.err
    assert "best mean IoU" in told.out
    best = out / "weights" / "best.safetensors"
    assert main(["eval", str(best), str(masks), "-o", str(tmp_path / "measured")]) == 0
    assert "miou" in (tmp_path / "measured" / "metrics.json").read_text()
    assert main(["export", str(best), "--out", str(tmp_path / "best.onnx"), "--imgsz", "32x64"]) == 0
    pictures = str(masks / "images" / "val")
    for weights, name in ((best, "torch"), (tmp_path / "best.onnx", "onnx")):
        command = ["segment", pictures, "-w", str(weights), "-o", str(tmp_path / name), "--save", "index,image"]
        assert main(command) == 0
        found = np.asarray(Image.open(tmp_path / name / "index" / "0.png"))
        assert found.shape == (48, 64)
        assert (found[:, 40:] == 1).mean() > 0.8
        assert (found[:, :10] == 0).mean() > 0.8
