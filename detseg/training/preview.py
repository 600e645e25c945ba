"""Training frames to look at: what a run with these settings would show its network, without a run or a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from detseg import catalog
from detseg.annotations import AnnotationSet, load, load_label_maps, splits
from detseg.annotations.semantic import IGNORE
from detseg.annotations.split_names import canonical
from detseg.augment.sample import Sample
from detseg.preprocess import Preprocess
from detseg.training.config import TrainConfig
from detseg.training.data import EpochBatches, FrameSet, MapSet, Ticket, TrainingSet
from detseg.writers.truth_scene import Ring, Scene, Thing


def frame_set(config: TrainConfig) -> FrameSet[Any]:
    """The frames of a run; objects have masks where the data set has any. Raises DataError."""
    preprocess = Preprocess(config.frame_hw, config.fit)
    split = config.split or next((name for name in splits(config.data) if canonical(name) == "train"), None)
    if catalog.entry(config.model).task == "segment":
        return MapSet(load_label_maps(config.data, split), config, preprocess)
    truth = load(config.data, split)
    return TrainingSet(truth, config, preprocess, masks=truth.outlines.any)


def tickets(frames: FrameSet[Any], epoch: int) -> dict[int, Ticket]:
    """Picture -> what an epoch (from 0) orders of it; a last short batch may leave some out."""
    batches = EpochBatches(len(frames), frames.config, frames.truth.image_hw, draw=frames.draw)
    batches.epoch = epoch
    return {ticket.picture: ticket for batch in batches for ticket in batch}


def scene(frames: FrameSet[Any], sample: Sample, files: Sequence[str], side: int) -> Scene:
    """A frame with its truth, the longer side at most `side`, named after the pictures in it."""
    h, w = sample.image.shape[:2]
    factor = min(1.0, side / max(h, w))
    size = max(1, round(w * factor)), max(1, round(h * factor))
    image = sample.image
    if factor < 1:
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    name = files[0] + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    if not isinstance(frames.truth, AnnotationSet):
        assert sample.label_map is not None
        labels = tuple(value for value in np.unique(sample.label_map).tolist() if value != IGNORE)
        small = cv2.resize(sample.label_map, size, interpolation=cv2.INTER_NEAREST)
        return Scene(name, image, (h, w), (), np.asarray(small, np.uint8), labels)
    scale_xy = np.array([size[0] / w, size[1] / h])
    things = tuple(_thing(sample, row, scale_xy) for row in range(len(sample.boxes)))
    return Scene(name, image, (h, w), things, None, tuple(sorted({thing.label for thing in things})))


def _thing(sample: Sample, row: int, scale_xy: np.ndarray) -> Thing:
    rings: list[Ring] = []
    if sample.masks is not None:
        found, _ = cv2.findContours(sample.masks.parts[row], cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        # contours run through the middle of the outermost pixels
        rings = [(ring[:, 0] + sample.masks.corners[row] + 0.5) * scale_xy for ring in found if len(ring) > 2]
    box = sample.boxes[row] * np.tile(scale_xy, 2)
    return Thing(int(sample.labels[row]), box, tuple(rings), bool(sample.ignored[row]))
