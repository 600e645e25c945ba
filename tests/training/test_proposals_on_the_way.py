"""Proposals on their way: to the frame and back in use, and through everything that training does to pictures."""

from __future__ import annotations

from pathlib import PurePosixPath

import cv2
import numpy as np
import pytest

from detseg.annotations import AnnotationSet, Categories
from detseg.checkpoints import Card
from detseg.images import ImageFile
from detseg.pipeline import Pace, detect_files
from detseg.postprocess import Selection, Views
from detseg.preprocess import Preprocess
from detseg.results import RawDetections
from detseg.training.config import TrainConfig
from detseg.training.data import EpochBatches, TrainingSet, collate

SHAPES = [(60, 90), (90, 60), (64, 80), (100, 50), (70, 70), (48, 96)]
ELSEWHERE = np.array([[1.0, 2, 30, 20], [0, 0, 50, 48]], np.float32)


@pytest.fixture
def truth(tmp_path) -> AnnotationSet:
    """A box in each picture, in its own place."""
    for i, (h, w) in enumerate(SHAPES):
        assert cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((h, w, 3), 40 * i, np.uint8))
    boxes = [(w * 0.2 + i, h * 0.25, w * 0.7 + i, h * 0.8) for i, (h, w) in enumerate(SHAPES)]
    return AnnotationSet.from_columns(
        root=tmp_path, format="test", categories=Categories.from_names(["a", "b"]),
        image_files=[f"{i}.png" for i in range(len(SHAPES))], image_hw=SHAPES, image_index=np.arange(len(SHAPES)),
        boxes=boxes, labels=np.arange(len(SHAPES)) % 2,
    )  # fmt: skip


def own_boxes_and_others(truth: AnnotationSet):
    """A proposer that knows the truth, and two boxes besides."""

    def propose(file: ImageFile, image_hw: tuple[int, int]) -> np.ndarray:
        index = truth.image_files.index(file.name.as_posix())
        assert image_hw == SHAPES[index]
        return np.concatenate([truth.boxes[truth.rows(index)].astype(np.float32), ELSEWHERE])

    return propose


@pytest.mark.parametrize(
    "changes",
    [
        {"augment": "none"},
        {"augment": "none", "fit": "stretch"},
        {"augment": "none", "fit": "shorter"},
        {"mosaic": 0.0},
        {"mosaic": 1.0, "plain_epochs": 0},
        {"mosaic": 0.5, "mixup": 1.0, "plain_epochs": 0, "turns": True, "flip_vertical": True},
        {"layout": "patches", "mosaic": 0.0},
    ],
    ids=str,
)
def test_they_move_as_objects_do(truth, changes):
    config = TrainConfig(**{"data": "x", "model": "yolo", "imgsz": 96, "batch": 3, "multi_scale": 0, **changes})
    recipe = Preprocess(config.frame_hw, config.fit)
    with_them = TrainingSet(truth, config, recipe, proposer=own_boxes_and_others(truth))
    without = TrainingSet(truth, config, recipe)
    seen = 0
    for tickets in EpochBatches(len(truth), config, truth.image_hw):
        batch, plain = (collate([data[ticket] for ticket in tickets]) for data in (with_them, without))
        assert (batch.frames == plain.frames).all()
        for target, wanted in zip(batch.targets, plain.targets, strict=True):
            # the truth is what it would be without proposals, and is among them
            assert target.boxes.tolist() == wanted.boxes.tolist()
            assert target.labels.tolist() == wanted.labels.tolist()
            assert target.ignored.tolist() == wanted.ignored.tolist()
            assert (target.labels >= 0).all()
            proposals = target.proposals.numpy()
            for box in target.boxes.numpy():
                assert np.abs(proposals - box).max(axis=1).min() < 1e-3
                seen += 1
            assert len(proposals) > len(target.boxes)
    assert seen


class Echo:
    """Answers with the proposals that it is given."""

    name, device = "fake", "cpu"

    def __init__(self, fit: str) -> None:
        self.card = Card(
            model="echo", config={"proposals.mode": "fast", "proposals.count": 9},
            categories=Categories.from_names(["a"]), preprocess=Preprocess((96, 160), fit),
        )  # fmt: skip

    def predict(self, frames, sizes_hw=None, proposals=None):
        most = max(map(len, proposals))
        boxes = np.zeros((len(frames), most, 4), np.float32)
        scores = np.zeros((len(frames), most, 1), np.float32)
        for i, some in enumerate(proposals):
            boxes[i, : len(some)], scores[i, : len(some)] = some, np.linspace(0.9, 0.5, len(some))[:, None]
        return RawDetections(boxes, scores)


@pytest.mark.parametrize("fit", ["letterbox", "stretch", "shorter"])
@pytest.mark.parametrize("views", [Views(), Views.of((1.0, 0.7), "all")], ids=["plain", "views"])
def test_in_use_they_are_laid_into_the_frame_as_the_picture_is(truth, fit, views):
    files = [ImageFile(truth.image_path(i), PurePosixPath(n)) for i, n in enumerate(truth.image_files)]
    propose = own_boxes_and_others(truth)
    selection = Selection(iou=0.97, conf=0.1)
    outcomes = detect_files(files, Echo(fit), selection, pace=Pace(4), views=views, proposals=propose)
    for file, shape, outcome in zip(files, SHAPES, outcomes, strict=True):
        assert outcome.fault is None
        wanted = propose(file, shape)
        wanted = np.minimum(wanted, np.array(shape[::-1] * 2))
        np.testing.assert_allclose(outcome.found.boxes, wanted, atol=0.01)


def test_without_a_word_they_are_searched_for(truth, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = [ImageFile(truth.image_path(0), PurePosixPath("0.png"))]
    (outcome,) = detect_files(files, Echo("letterbox"), Selection(conf=0.1))
    assert outcome.found.boxes.tolist() == [[0, 0, 90, 60]]  # one colour: the picture is all there is
    assert list((tmp_path / "cache").rglob("*.npz"))


def test_a_picture_without_proposals_is_named(truth):
    from detseg.errors import ImageError

    def nothing(file: ImageFile, image_hw: tuple[int, int]) -> np.ndarray:
        raise ImageError(file.path, "no entry")

    files = [ImageFile(truth.image_path(0), PurePosixPath("0.png"))]
    (outcome,) = detect_files(files, Echo("letterbox"), Selection(), proposals=nothing)
    assert outcome.fault.cause == "no entry"
