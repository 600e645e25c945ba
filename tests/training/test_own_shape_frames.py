"""Training where frames have their pictures' shape: of what size batches are, who is in them, where boxes lie."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg.annotations import AnnotationSet, Categories
from detseg.preprocess import Placement, Preprocess
from detseg.training.config import TrainConfig
from detseg.training.data import EpochBatches, TrainingSet, collate

SHAPES = [(60, 90), (90, 60), (64, 80), (100, 50), (70, 70), (48, 96), (96, 48), (50, 60), (61, 59)]
LIMITS = (64, 107)


def settings(**changes) -> TrainConfig:
    values = {"data": "x", "model": "yolo", "fit": "shorter", "imgsz": 64, "batch": 3, "multi_scale": 0}
    return TrainConfig(**{**values, **changes})


@pytest.fixture
def truth(tmp_path: Path) -> AnnotationSet:
    """A white box on black in each picture."""
    boxes = []
    for i, (h, w) in enumerate(SHAPES):
        box = (w // 4, h // 3, w // 4 + w // 2, h // 3 + h // 2)
        image = np.zeros((h, w, 3), np.uint8)
        image[box[1] : box[3], box[0] : box[2]] = 255
        assert cv2.imwrite(str(tmp_path / f"{i}.png"), image)
        boxes.append(box)
    return AnnotationSet.from_columns(
        root=tmp_path, format="test", categories=Categories.from_names(["white"]),
        image_files=[f"{i}.png" for i in range(len(SHAPES))], image_hw=SHAPES, image_index=np.arange(len(SHAPES)),
        boxes=boxes, labels=np.zeros(len(SHAPES)),
    )  # fmt: skip


def test_a_batch_is_as_large_as_its_largest_picture_in_use_and_boxes_lie_where_they_would(truth):
    config = settings(augment="none")
    recipe = Preprocess(config.frame_hw, config.fit, fill=0)
    assert recipe.frame_hw == LIMITS
    dataset = TrainingSet(truth, config, recipe)
    for tickets in EpochBatches(len(truth), config, truth.image_hw):
        batch = collate([dataset[ticket] for ticket in tickets])
        placed = [Placement.shorter(SHAPES[ticket.picture], LIMITS) for ticket in tickets]
        assert batch.frames.shape[1:3] == tuple(max(p.frame_hw[axis] for p in placed) for axis in (0, 1))
        for frame, target, placement, ticket in zip(batch.frames, batch.targets, placed, tickets, strict=True):
            box = truth.boxes[truth.rows(ticket.picture)].astype(np.float32)
            np.testing.assert_allclose(target.boxes.numpy(), placement.to_frame(box), rtol=1e-6)
            rows, columns = np.nonzero(frame[..., 0].numpy() > 128)
            seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(seen, target.boxes[0].numpy(), atol=1)


def test_upright_pictures_and_others_share_one_batch_at_most_and_every_picture_comes_once(truth):
    for seed in range(20):
        orders = [list(EpochBatches(len(truth), settings(seed=seed), truth.image_hw)) for _ in range(2)]
        assert orders[0] == orders[1]
        assert sorted(t.picture for batch in orders[0] for t in batch) == list(range(len(SHAPES)))
        kinds = [{SHAPES[t.picture][0] > SHAPES[t.picture][1] for t in batch} for batch in orders[0]]
        assert sum(len(kind) == 2 for kind in kinds) <= 1


@pytest.mark.parametrize("layout", ["jitter", "patches"])
def test_every_way_of_laying_fills_the_batchs_frame(truth, layout):
    config = settings(layout=layout, multi_scale=0.3, mixup=0.5, mosaic=0.5, plain_epochs=0)
    dataset = TrainingSet(truth, config, Preprocess(config.frame_hw, config.fit))
    for tickets in EpochBatches(len(truth), config, truth.image_hw):
        batch = collate([dataset[ticket] for ticket in tickets])
        assert tuple(batch.frames.shape[1:3]) == tickets[0].frame_hw
        assert all(side % 32 == 0 for side in tickets[0].frame_hw)


def test_a_picture_larger_than_its_annotation_says_still_fits(truth, tmp_path):
    config = settings(augment="none", batch=1)
    assert cv2.imwrite(str(tmp_path / "0.png"), np.zeros((90, 60, 3), np.uint8))  # said to be 60 x 90
    dataset = TrainingSet(truth, config, Preprocess(config.frame_hw, config.fit))
    tickets = {t.picture: t for (t,) in EpochBatches(len(truth), config, truth.image_hw)}
    sample, _, errors = dataset[tickets[0]]
    assert not errors
    assert sample.image.shape[:2] == tickets[0].frame_hw
