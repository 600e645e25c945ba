"""A detector learns four pictures by heart: its boxes come back."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
import torch

from detseg.annotations.formats import load as load_truth
from detseg.annotations.sample import write_sample
from detseg.evaluation import evaluate
from detseg.images import ImageFile
from detseg.pipeline import detect_files
from detseg.postprocess import Selection
from detseg.runtimes.live import LiveRuntime
from detseg.training.config import TrainConfig
from detseg.training.data import EpochBatches, TrainingSet, collate
from detseg.training.loop import make_optimizer, normalised
from detseg.training.setup import prepare


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolo", "yolov3"])
def test_four_pictures_are_learnt_by_heart(tmp_path, name):
    data = write_sample(tmp_path, format="coco", images=5, seed=5, hw=(96, 128))
    config = TrainConfig(
        data=str(data), model=name, imgsz=96, batch=4, augment="none", mosaic=0, multi_scale=0, lr=3e-3,
        backbone_lr=1.0, freeze_stages=0, freeze_bn=True, options={"neck_channels": 32}, weight_decay=0,
    )  # fmt: skip
    prepared = prepare(config, "x")
    truth = load_truth(data, "train")
    dataset = TrainingSet(truth, config, prepared.card.preprocess)
    tickets = next(iter(EpochBatches(len(truth), config)))
    batch = collate([dataset[t] for t in tickets])
    model = prepared.model.train()
    optimizer = make_optimizer(model, config)
    images = normalised(batch.frames, prepared.card.preprocess)
    for step in range(200):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * min(1.0, (200 - step) / 100)
        loss = torch.stack(list(model.losses(images, batch.targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    files = [ImageFile(truth.image_path(i), PurePosixPath(n)) for i, n in enumerate(truth.image_files)]
    runtime = LiveRuntime(prepared.card, model)
    found = [outcome.detections for outcome in detect_files(files, runtime, Selection(conf=0.05))]
    metrics = evaluate(truth, found)
    assert metrics.ap50 == pytest.approx(1.0)
    assert metrics.ap == pytest.approx(1.0)  # every box to within 95 % of its area
