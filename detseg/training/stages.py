"""What is learnt once training by gradient is over: a model's later stages, one by one, each going on where it stopped.

stages/fine-tuned.safetensors   the best weights of training by gradient, from which the stages start
stages/work/                    what the stages find out on their way
stages/finished.json            the numbers of the finished model; written last
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from detseg import checkpoints, files
from detseg.detectors.contract import Detector, Target
from detseg.errors import DetsegError, ImageError
from detseg.preprocess.recipe import lay_in
from detseg.training.data import FrameSet, target_of
from detseg.training.folder import RunFolder


@dataclass(frozen=True)
class StageStep:
    """Told on the way through a later stage."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True, eq=False)
class PicturesInUse:
    """The training pictures laid in as the finished model will see them. See `detectors.contract.Lessons`."""

    data: FrameSet[Any]
    device: torch.device

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Target] | None:
        """One picture and its truth, on the device; None where it cannot be read."""
        recipe = self.data.preprocess
        try:
            sample = self.data.read(index)
        except ImageError:
            return None  # named when training by gradient came to it
        placement = recipe.placement((sample.image.shape[0], sample.image.shape[1]))
        frame = lay_in(sample.image, placement, recipe.fill)
        target = target_of(replace(sample, image=frame, boxes=placement.to_frame(sample.boxes)))
        return torch.from_numpy(recipe.normalise(frame[None])).to(self.device), target.to(self.device)


def finish(
    model: Detector,
    data: FrameSet[Any],
    folder: RunFolder,
    epoch: int,
    validate: Callable[[Detector], dict[str, float]],
    report: Callable[[StageStep], None],
) -> dict[str, float]:
    """Does what is left of the stages, and keeps the finished model as weights/best and last; returns its numbers."""
    place = folder.path / "stages"
    finished = place / "finished.json"
    if finished.exists():
        shutil.rmtree(place / "work", ignore_errors=True)
        return _numbers(finished)
    tuned = place / "fine-tuned.safetensors"
    if not tuned.exists():  # the finished model will take the place of the best one
        files.write_bytes(tuned, folder.weights_file("best").read_bytes())
    checkpoints.load_into(model, checkpoints.load(tuned)[1], tuned)
    lessons = PicturesInUse(data, next(model.parameters()).device)
    model.eval()
    with torch.no_grad():
        for stage in model.later_stages:
            for done, total in model.learn_stage(stage, lessons, place / "work"):
                report(StageStep(stage, done, total))
    metrics = validate(model)
    folder.save_weights(model, metrics, epoch, best=True)
    files.write_text(finished, json.dumps(metrics, indent=2) + "\n")
    shutil.rmtree(place / "work", ignore_errors=True)
    return metrics


def _numbers(finished: Any) -> dict[str, float]:
    try:
        return {str(name): float(value) for name, value in json.loads(finished.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DetsegError(f"{finished}: cannot be read: {error}; delete it to measure the model again") from error
