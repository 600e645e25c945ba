"""Four small pictures learnt by heart: what every detector must be able to do, along the way that training takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from detseg.annotations import AnnotationSet
from detseg.annotations.formats import load as load_truth
from detseg.annotations.sample import write_sample
from detseg.detectors.contract import Detector
from detseg.images import ImageFile
from detseg.pipeline import detect_files
from detseg.postprocess import Selection
from detseg.results import Detections
from detseg.runtimes.live import LiveRuntime
from detseg.training.config import TrainConfig
from detseg.training.data import Batch, EpochBatches, FrameSet, collate
from detseg.training.loop import normalised
from detseg.training.optimizer import make_optimizer
from detseg.training.setup import Prepared, prepare

LOOK_EVERY = 10  # steps


@dataclass(frozen=True)
class Learnt:
    """A model after its lessons, and what it learnt from: one batch of four pictures."""

    prepared: Prepared
    truth: AnnotationSet
    dataset: FrameSet[Any]
    batch: Batch
    images: Tensor  # of the batch, normalised

    @property
    def model(self) -> Detector:
        return self.prepared.model

    def found(self, selection: Selection = Selection(conf=0.05)) -> list[Detections]:  # noqa: B008
        """What is found on the four pictures, read from their files."""
        files = [ImageFile(self.truth.image_path(i), PurePosixPath(n)) for i, n in enumerate(self.truth.image_files)]
        runtime = LiveRuntime(self.prepared.card, self.model)
        return [outcome.found for outcome in detect_files(files, runtime, selection)]


Expectation = Callable[[Learnt], None]  # raises AssertionError where it is not met


def learn(
    folder: Path,
    model: str,
    *,
    steps: int,
    until: Expectation | None = None,
    seed: int = 5,
    **settings: Any,
) -> Learnt:
    """`steps` of training on the same four sample pictures, nothing changed in them; fewer where `until` is met before.

    Raises AssertionError where it is not met at the end either. The rate falls in the second half of the steps.
    `settings` are those of `TrainConfig`.
    """
    data = write_sample(folder, format="coco", images=5, seed=seed, hw=(96, 128))
    config = TrainConfig(data=str(data), model=model, batch=4, augment="none", weight_decay=0, **settings)
    prepared = prepare(config, "x")
    truth, dataset = load_truth(data, "train"), prepared.data
    batch = collate([dataset[ticket] for ticket in next(iter(EpochBatches(len(truth), config)))])
    images = normalised(batch.frames, prepared.card.preprocess)
    optimizer = make_optimizer(prepared.model.train(), config)
    learnt = Learnt(prepared, truth, dataset, batch, images)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * min(1.0, 2 * (steps - step) / steps)
        loss = torch.stack(list(prepared.model.losses(images, batch.targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if until is not None and (step + 1) % LOOK_EVERY == 0 and _is_met(until, learnt):
            return learnt
    if until is not None:
        until(learnt)
    return learnt


def _is_met(expectation: Expectation, learnt: Learnt) -> bool:
    """Whether it is, asked between two steps."""
    try:
        expectation(learnt)
    except AssertionError:
        return False
    finally:
        learnt.model.train()
    return True
