"""Whole small runs: the same numbers whatever the workers and however often interrupted; faults are named."""

from __future__ import annotations

import csv
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest
import torch

from detseg.annotations.formats import load as load_truth
from detseg.annotations.sample import write_sample
from detseg.checkpoints import load, read_card
from detseg.errors import DataError, DetsegError
from detseg.training.config import TrainConfig
from detseg.training.data import EpochBatches, Ticket, TrainingSet, collate, loader
from detseg.training.loop import NonFiniteLoss
from detseg.training.setup import prepare
from tests.short_runs import run


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    return write_sample(tmp_path_factory.mktemp("shapes"), format="voc", images=20, seed=1, hw=(96, 128))


def small(data: Path, **changes) -> TrainConfig:
    values = {
        "data": str(data), "imgsz": 64, "epochs": 3, "batch": 8, "workers": 0, "eval_every": 1, "warmup_epochs": 0.5,
        "options": {"neck_channels": 16}, "backbone_weights": None, "freeze_stages": 0, "freeze_bn": False,
    }  # fmt: skip
    return TrainConfig(**{**values, **changes})


def test_a_resumed_run_gives_the_weights_of_an_uninterrupted_one(shapes, tmp_path):
    whole = run(small(shapes), tmp_path / "whole")
    run(small(shapes), tmp_path / "parts", stop_after=1)
    (tmp_path / "parts" / "results.csv").unlink()  # as a run killed between its state and its table leaves it
    parts = run(small(shapes), tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    averages = [load(tmp_path / which / "weights" / "last.safetensors")[1] for which in ("whole", "parts")]
    assert all(torch.equal(averages[0][name], averages[1][name]) for name in averages[0])
    assert any(not torch.equal(averages[0][name], whole[name]) for name in whole)
    for which in ("whole", "parts"):
        with open(tmp_path / which / "results.csv", newline="") as file:
            assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]
        assert (tmp_path / which / "curves.png").stat().st_size > 1000


def test_weights_do_not_depend_on_the_number_of_workers(shapes, tmp_path):
    changes = {"epochs": 2, "mosaic": 0.5, "mixup": 0.5, "turns": True, "plain_epochs": 0.5, "eval_every": 2}
    alone, *others = (run(small(shapes, workers=n, **changes), tmp_path / str(n)) for n in (0, 1, 3))
    for shared in others:
        assert all(torch.equal(alone[name], shared[name]) for name in alone)


def test_workers_are_forked_where_all_they_need_is_imported(shapes):
    forkserver._forkserver._stop()  # of other tests; nobody can tell a running one what to import
    asked = {}
    for augment in ("none", "standard"):
        prepared = prepare(small(shapes, augment=augment), "x")
        batches = EpochBatches(len(prepared.data), prepared.config)
        context = loader(prepared.data, batches, 1).multiprocessing_context
        asked[augment] = forkserver._forkserver._preload_modules
    with context.Pool(1) as pool:
        loaded = pool.apply(eval, ("list(__import__('sys').modules)",))
    assert {"albumentations", "torch", "detseg.training.data"} <= set(loaded)
    assert set(asked["standard"]) - set(asked["none"]) == {"albumentations"}  # seconds that some runs do not need


def test_every_picture_comes_once_an_epoch_and_epochs_differ():
    config = TrainConfig(data="x", batch=4)
    batches = EpochBatches(17, config)
    seen = [[t.picture for batch in batches for t in batch]]
    batches.epoch = 1
    seen.append([t.picture for batch in batches for t in batch])
    assert len(set(seen[0])) == len(seen[0]) == 16  # one left over is less than half a batch
    assert seen[0] != seen[1]


def test_the_best_weights_are_kept_with_their_numbers(shapes, tmp_path):
    scores = iter([0.1, 0.4, 0.3])
    run(small(shapes), tmp_path, validate=lambda model: {"ap": next(scores)})
    best, last = (read_card(tmp_path / "weights" / f"{which}.safetensors") for which in ("best", "last"))
    assert (best.training["epoch"], best.training["metrics"]) == (2, {"ap": 0.4})
    assert (last.training["epoch"], last.training["metrics"]) == (3, {"ap": 0.3})
    assert best.training["data"]["pictures"] == 16
    _, state = load(tmp_path / "weights" / "best.safetensors")
    assert all(torch.isfinite(value).all() for value in state.values())


def test_a_run_stops_when_it_does_not_get_better(shapes, tmp_path):
    calls = []
    run(
        small(shapes, epochs=10, patience=2),
        tmp_path,
        validate=lambda m: calls.append(1) or {"ap": 0.5 - 0.1 * len(calls)},
    )
    assert len(calls) == 3  # the first is the best, two without gain


def test_a_loss_that_is_not_finite_names_its_pictures_and_leaves_the_last_state(tmp_path, monkeypatch):
    import cv2

    from detseg.detectors.yolo import YOLO

    data = write_sample(tmp_path / "data", format="coco", images=8, seed=1, hw=(64, 64))
    truth = load_truth(data, "train")
    cv2.imwrite(str(truth.image_path(4)), np.full((64, 64, 3), 255, np.uint8))
    config = small(data, augment="none", mosaic=0.0, multi_scale=0.0, batch=2, epochs=2, checkpoint_every=1)
    whole = run(config, tmp_path / "whole")

    losses = YOLO.losses

    def infinite_for_one(self, images, targets):
        white = images.flatten(1).amin(dim=1) > 0.9  # after normalisation; other pictures have darker pixels
        return {**losses(self, images, targets), "planted": torch.tensor(float("inf") if white.any() else 0.0)}

    with monkeypatch.context() as planted:
        planted.setattr(YOLO, "losses", infinite_for_one)
        with pytest.raises(NonFiniteLoss, match="planted = inf; pictures of the batch: ") as told:
            run(config, tmp_path / "parts")
    ids = truth.ids[truth.rows(4)].tolist()
    assert f"{truth.image_files[4]} (annotations {', '.join(map(str, ids))})" in str(told.value)
    assert str(told.value).count("(annotations ") == 2  # the batch has two pictures
    resumed = run(config, tmp_path / "parts")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_frozen_stages_stay_and_the_rest_learns(shapes, tmp_path):
    config = small(shapes, epochs=1, freeze_stages=2, freeze_bn=True)
    before = {name: value.clone() for name, value in prepare(config, "x").model.state_dict().items()}
    after = run(config, tmp_path)
    model = prepare(config, "x").model
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen
    for name, p in model.named_parameters():
        assert torch.equal(before[name], after[name]) != p.requires_grad, name


def test_a_picture_that_cannot_be_read_is_left_out_and_named(shapes, tmp_path):
    import shutil

    data = tmp_path / "data"
    shutil.copytree(shapes, data)
    truth = load_truth(data, "train")
    truth.image_path(3).write_bytes(b"no picture")
    config = small(data, mosaic=0.0)
    batch_list = list(EpochBatches(len(truth), config))
    dataset = TrainingSet(truth, config, prepare(config, "x").card.preprocess)
    batches = [collate([dataset[ticket] for ticket in tickets]) for tickets in batch_list]
    errors = [e for b in batches for e in b.unreadable]
    assert [e.path for e in errors] == [truth.image_path(3)]
    assert sum(len(b.frames) for b in batches) == len(truth) - 1
    assert all(len(b.frames) == len(b.targets) for b in batches)


def test_ignored_truth_reaches_the_model_as_ignored(shapes):
    from dataclasses import replace

    truth = load_truth(shapes, "train")
    truth = replace(truth, difficult=np.ones(len(truth.boxes), bool))
    config = small(shapes, augment="none", mosaic=0.0)
    dataset = TrainingSet(truth, config, prepare(config, "x").card.preprocess)
    tickets = next(iter(EpochBatches(len(truth), config)))
    batch = collate([dataset[t] for t in tickets])
    flags = torch.cat([t.ignored for t in batch.targets])
    assert len(flags)
    assert flags.all()


def test_a_configuration_goes_out_and_comes_in_and_mistakes_are_named(tmp_path):
    config = TrainConfig(data="d", imgsz=96, options={"box_loss": "giou"})
    config.save(tmp_path / "config.yaml")
    assert TrainConfig.load(tmp_path / "config.yaml") == config
    assert TrainConfig.load(tmp_path / "config.yaml", epochs=2).epochs == 2
    (tmp_path / "bad.yaml").write_text("data: d\nepochs: none\nlrr: 1\n")
    with pytest.raises(DetsegError, match=r"epochs: .*; lrr: "):
        TrainConfig.load(tmp_path / "bad.yaml")


def test_data_without_any_object_is_refused(tmp_path):
    import json

    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg")
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 64}],
        "annotations": [],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(coco))
    with pytest.raises(DataError, match="no object to learn from"):
        prepare(small(tmp_path / "train.json"), "x")


def test_a_broken_training_split_is_never_replaced_by_another(tmp_path):
    data = write_sample(tmp_path / "shapes", format="coco", images=6, seed=1, hw=(64, 64))
    (train,) = data.rglob("*train*.json")
    train.write_text('{"images": [')
    with pytest.raises(DataError, match=train.name):
        prepare(small(data), "x")


def test_tickets_are_mixed_as_often_as_asked_but_not_in_the_plain_epochs():
    config = TrainConfig(data="x", batch=50, epochs=10, mixup=0.3, plain_epochs=0.2, multi_scale=0.5, imgsz=128)
    batches = EpochBatches(2000, config)
    tickets = [t for batch in batches for t in batch]
    assert sum(t.mixup for t in tickets) / len(tickets) == pytest.approx(0.3, abs=0.04)
    assert {t.frame_hw for t in tickets} == {(side, side) for side in (64, 96, 128, 160, 192)}
    batches.epoch = 8
    assert {(t.mixup, t.mosaic, t.frame_hw) for batch in batches for t in batch} == {(False, False, (128, 128))}


def test_a_blended_frame_has_the_objects_of_two_pictures(shapes):
    config = small(shapes, mosaic=0.0, hsv=0.0, jitter=0.0, flip_horizontal=False)
    truth = load_truth(shapes, "train")
    dataset = TrainingSet(truth, config, prepare(config, "x").card.preprocess)
    seen = []
    for picture in range(len(truth)):
        sample, files, errors = dataset[Ticket(0, picture, (96, 128), False, True)]
        other = truth.image_files.index(files[1])
        assert not errors
        assert files[0] == truth.image_files[picture]
        assert len(sample.boxes) == sum(len(truth.boxes[truth.rows(i)]) for i in (picture, other))
        seen.append(other)
    assert len(set(seen)) > 3


def test_pictures_are_turned_when_asked_and_their_boxes_with_them(shapes):
    config = small(shapes, mosaic=0.0, hsv=0.0, jitter=0.0, flip_horizontal=False, turns=True)
    truth = load_truth(shapes, "train")
    dataset = TrainingSet(truth, config, prepare(config, "x").card.preprocess)
    shapes_seen = set()
    for picture in range(len(truth)):
        sample, _, _ = dataset[Ticket(0, picture, (128, 128), False)]
        filled = (sample.image != 114).any(axis=2)
        rows, cols = np.flatnonzero(filled.any(axis=1)), np.flatnonzero(filled.any(axis=0))
        shapes_seen.add((len(rows) > 120, len(cols) > 120))
        # the areas stay those of the truth, laid into the frame at scale 1 whichever way it is turned
        sides = truth.boxes[truth.rows(picture)]
        areas = (sides[:, 2] - sides[:, 0]) * (sides[:, 3] - sides[:, 1])
        mine = (sample.boxes[:, 2] - sample.boxes[:, 0]) * (sample.boxes[:, 3] - sample.boxes[:, 1])
        np.testing.assert_allclose(mine, areas, rtol=1e-3)
    assert {(True, False), (False, True)} <= shapes_seen
