"""An SSD learns four pictures by heart: its boxes come back."""

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

STEPS = 160


@pytest.mark.slow
def test_four_pictures_are_learnt_by_heart(tmp_path):
    data = write_sample(tmp_path, format="coco", images=5, seed=5, hw=(96, 128))
    config = TrainConfig(
        data=str(data), model="ssd", imgsz=96, batch=4, augment="none", lr=1e-3, backbone_lr=1.0, freeze_stages=2,
        weight_decay=0, options={"clusters": 4},
    )  # fmt: skip
    prepared = prepare(config, "x")
    assert prepared.card.preprocess.fit == "stretch"
    truth = load_truth(data, "train")
    dataset = TrainingSet(truth, config, prepared.card.preprocess)
    batch = collate([dataset[ticket] for ticket in next(iter(EpochBatches(len(truth), config)))])
    model = prepared.model.train()
    optimizer = make_optimizer(model, config)
    images = normalised(batch.frames, prepared.card.preprocess)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * min(1.0, (STEPS - step) / (STEPS / 2))
        loss = torch.stack(list(model.losses(images, batch.targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    files = [ImageFile(truth.image_path(i), PurePosixPath(n)) for i, n in enumerate(truth.image_files)]
    found = [o.detections for o in detect_files(files, LiveRuntime(prepared.card, model), Selection(conf=0.05))]
    metrics = evaluate(truth, found)
    assert metrics.ap == pytest.approx(1.0)
