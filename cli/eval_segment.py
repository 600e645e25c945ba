"""`detseg eval WEIGHTS DATA` of a segmenter: its label maps are written, and then measured like anybody's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from detseg.annotations import ClassMatch
from detseg.annotations.mask_files import voc_palette, write_mask
from detseg.annotations.mask_write import pixel_categories
from detseg.annotations.semantic import IGNORE, SemanticSet
from detseg.checkpoints import Card
from detseg.errors import DataError, ImageError
from detseg.images import ImageFile
from detseg.pipeline import segment_files
from detseg.runtimes import open_runtime

from . import chosen_weights
from .eval_request import Request, Segmented, class_notes, named
from .progress import Progress

MASKS = "masks"


def segment(request: Request, truth: SemanticSet, folder: Path) -> Segmented:
    """Writes folder/masks: a label map for each picture that can be read, in the data set's own values."""
    weights, kind, card = chosen_weights.choose(
        request.weights, runtime=request.runtime, device=request.device, imgsz=request.imgsz, task="segment"
    )
    match = ClassMatch.of(card.categories, truth.categories)
    if not match.pairs:
        raise DataError(
            f"{weights} and {request.data} have no class in common: {named(card.categories.names)} against "
            f"{named(truth.categories.names)}; measure on data with the same class names"
        )
    recipe = replace(card.preprocess, frame_hw=request.imgsz) if request.imgsz else card.preprocess
    faults = _write_all(request, truth, folder / MASKS, (weights, kind, card), match)
    if len(faults) == len(truth):
        raise DataError(f"{request.data}: none of its pictures can be read; the first: {faults[0][1]}")
    origin = {"weights": str(weights), "model": card.model, "frame_hw": list(recipe.frame_hw)}
    return Segmented(folder / MASKS, origin, class_notes(match, "with IoU 0"), faults)


def _write_all(
    request: Request, truth: SemanticSet, place: Path, model: tuple[Path, str, Card], match: ClassMatch
) -> list[tuple[ImageFile, ImageError]]:
    weights, kind, card = model
    side_by_side = kind == "onnx" and request.device in ("auto", "cpu")
    runtime = open_runtime(weights, runtime=request.runtime, device=request.device, threads=1 if side_by_side else None)
    pictures = [ImageFile(truth.image_path(i), PurePosixPath(name)) for i, name in enumerate(truth.image_files)]
    values, colours = _values(match, truth), voc_palette()
    faults: list[tuple[ImageFile, ImageError]] = []
    with Progress("evaluating", len(pictures), quiet=request.quiet) as progress:
        for outcome in segment_files(
            pictures,
            runtime,
            batch=request.batch,
            workers=request.workers,
            network_threads=request.workers if side_by_side else 1,
            recipe=replace(card.preprocess, frame_hw=request.imgsz) if request.imgsz else card.preprocess,
        ):
            if outcome.fault is not None:
                faults.append((outcome.file, outcome.fault))
            elif outcome.found is not None:
                write_mask(place / f"{outcome.file.output}.png", values[outcome.found.labels], colours)
            progress.advance()
    return faults


def _values(match: ClassMatch, truth: SemanticSet) -> NDArray[np.uint8]:
    """(256,) the model's class index -> the data set's value; IGNORE, which is no class, for what it lacks."""
    values = np.full(256, IGNORE, np.uint8)
    ids = pixel_categories(truth.categories).ids
    for ours, theirs in match.pairs:
        values[ours] = ids[theirs]
    return values
