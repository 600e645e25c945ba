"""Faster and Mask R-CNN learn four pictures by heart: boxes and masks come back."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
import torch

from detseg.annotations.formats import load as load_truth
from detseg.annotations.sample import write_sample
from detseg.evaluation import evaluate, evaluate_rows, result_outlines, result_rows
from detseg.images import ImageFile
from detseg.pipeline import detect_files
from detseg.postprocess import Selection
from detseg.runtimes.live import LiveRuntime
from detseg.training.config import TrainConfig
from detseg.training.data import EpochBatches, TrainingSet, collate
from detseg.training.loop import make_optimizer, normalised
from detseg.training.setup import prepare

STEPS = 140
# few regions, so that this takes seconds
FEW = {
    "rpn.samples": 32,
    "rpn.train_candidates": 100,
    "rpn.train_kept": 60,
    "rpn.candidates": 60,
    "rpn.kept": 30,
    "box.samples": 32,
}
MASKS = {"mask.convs": (32, 32), "mask.width": 32}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("faster-rcnn", FEW), ("mask-rcnn", {**FEW, **MASKS})])
def test_four_pictures_are_learnt_by_heart(tmp_path, name, options):
    data = write_sample(tmp_path, format="coco", images=5, seed=1, hw=(96, 128))
    config = TrainConfig(
        data=str(data), model=name, imgsz=128, batch=4, augment="none", multi_scale=0, lr=2e-3, backbone_lr=1.0,
        weight_decay=0, options=options,
    )  # fmt: skip
    prepared = prepare(config, "x")
    truth = load_truth(data, "train")
    dataset = TrainingSet(truth, config, prepared.card.preprocess, masks=prepared.masks)
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
    found = [o.detections for o in detect_files(files, LiveRuntime(prepared.card, model.eval()), Selection(conf=0.05))]
    assert evaluate(truth, found).ap > 0.95
    if prepared.masks:
        masks = evaluate_rows(truth, result_rows(truth, found), kind="segm", outlines=result_outlines(truth, found))
        assert masks.ap75 == pytest.approx(1.0)
        assert masks.ap > 0.75  # the smallest is 14 pixels wide: half a pixel all around is an IoU of 0.87
