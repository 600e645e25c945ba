"""`detseg data show --augment`: the frames of training. Oracle: the batches of a prepared run of the same settings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from detseg.annotations.sample import write_sample
from detseg.cli.data import command
from detseg.errors import DetsegError
from detseg.training.config import TrainConfig
from detseg.training.data import EpochBatches, collate
from detseg.training.setup import prepare


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    return write_sample(tmp_path_factory.mktemp("shapes"), format="coco", images=15, seed=1, hw=(96, 128))


def shown(monkeypatch, tmp_path: Path, data: Path, *words: str) -> list:
    """The scenes that the page and the sheet are made of."""
    scenes = []
    from detseg.reports import truth

    real = truth.truth_page
    monkeypatch.setattr(truth, "truth_page", lambda *args: scenes.extend(args[0]) or real(*args))
    args = ["show", str(data), "--out", str(tmp_path / "out"), "--count", "20", "-q", *words]
    result = CliRunner().invoke(command, args, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "truth.jpg").is_file()
    return scenes


def trained_on(config: TrainConfig, epoch: int) -> dict[str, tuple[np.ndarray, list, object]]:
    """First file -> frame, boxes and label map, as training batches them."""
    prepared = prepare(config, "x")
    batches = EpochBatches(len(prepared.data), prepared.config, prepared.truth.image_hw)
    batches.epoch = epoch
    seen = {}
    for tickets in batches:
        batch = collate([prepared.data[ticket] for ticket in tickets])
        assert not batch.unreadable
        for i, ticket in enumerate(tickets):
            map_ = None if batch.label_maps is None else batch.label_maps[i].numpy()
            boxes = batch.targets[i].boxes.numpy()
            seen[prepared.truth.image_files[ticket.picture]] = batch.frames[i].numpy(), boxes, map_
    return seen


SETTINGS = [
    ({"augment": "strong", "mosaic": 0.5, "mixup": 0.5, "turns": True, "flip_vertical": True},
     ["--augment", "strong", "--mosaic", "0.5", "--mixup", "0.5", "--turns", "--flip-vertical"]),
    ({"augment": "none", "fit": "stretch"}, ["--augment", "none", "--fit", "stretch"]),
    ({"layout": "patches", "mosaic": 0.0}, ["--layout", "patches", "--mosaic", "0"]),
    ({"rotate": 20, "copy_paste": 1.0, "augment": "light"},
     ["--rotate", "20", "--copy-paste", "1", "--augment", "light"]),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "words"), SETTINGS)
def test_the_frames_are_those_of_training(monkeypatch, tmp_path, shapes, settings, words):
    common = {"data": str(shapes), "imgsz": 96, "seed": 5, "backbone_weights": None, "anchors": "model"}
    wanted = trained_on(TrainConfig(**common, backbone="mobilenet_v3_small", **settings), 1)
    scenes = shown(monkeypatch, tmp_path, shapes, "--imgsz", "96", "--seed", "5", "--epoch", "2", *words)
    assert len(scenes) == len(wanted) == 12
    for scene in scenes:
        frame, boxes, _ = wanted[scene.name.split(" and ")[0]]
        np.testing.assert_array_equal(scene.image, frame)
        assert len(scene.things) == len(boxes)
        for thing, box in zip(scene.things, boxes, strict=True):
            np.testing.assert_allclose(thing.box, box)


def test_the_frames_of_segmenters_are_those_of_training_by_a_runs_configuration(monkeypatch, tmp_path, shapes):
    config = TrainConfig(
        data="elsewhere",
        model="fcn",
        imgsz=64,
        backbone="mobilenet_v3_small",
        backbone_weights=None,
        seed=3,
        turns=True,
    )
    config.save(tmp_path / "run.yaml")
    wanted = trained_on(config.model_copy(update={"data": str(shapes)}), 0)
    scenes = shown(monkeypatch, tmp_path, shapes, "--config", str(tmp_path / "run.yaml"))
    assert len(scenes) == len(wanted) == 12
    for scene in scenes:
        frame, _, label_map = wanted[scene.name]
        np.testing.assert_array_equal(scene.image, frame)
        np.testing.assert_array_equal(scene.label_map, label_map)
    other = shown(monkeypatch, tmp_path, shapes, "--config", str(tmp_path / "run.yaml"), "--seed", "4", "--exist-ok")
    assert any((scene.image != wanted[scene.name][0]).any() for scene in other)


def test_settings_that_do_not_fit_are_told(tmp_path, shapes):
    run = CliRunner().invoke
    told = run(command, ["show", str(shapes), "--maps", "--model", "yolo", "--out", str(tmp_path / "a")]).exception
    assert isinstance(told, DetsegError)
    assert "leave --maps out" in str(told)
    (tmp_path / "bad.yaml").write_text("mosaic: 7\n")
    told = run(command, ["show", str(shapes), "--config", str(tmp_path / "bad.yaml")]).exception
    assert isinstance(told, DetsegError)
    assert "bad.yaml: mosaic" in str(told)


def test_what_is_shown_is_said(tmp_path, shapes):
    out = tmp_path / "out"
    args = ["show", str(shapes), "--augment", "light", "--imgsz", "64", "--count", "2", "--out", str(out), "--json"]
    result = CliRunner().invoke(command, args, catch_exceptions=False)
    assert len(json.loads(result.stdout)["pictures"]) == 2
    text = (out / "truth.html").read_text()
    assert "frames of epoch 1 of training yolo; augment light; imgsz 64" in text
