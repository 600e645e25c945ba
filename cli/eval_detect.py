"""`detseg eval WEIGHTS DATA`: the weights' detections on every picture. Imported for a network only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from detseg.annotations import AnnotationSet, ClassMatch
from detseg.checkpoints import Card
from detseg.errors import DataError, ImageError
from detseg.evaluation import result_outlines, result_rows
from detseg.images import ImageFile
from detseg.pipeline import detect_files
from detseg.postprocess import Selection
from detseg.results import Detections
from detseg.runtimes import open_runtime

from . import chosen_weights, tta
from .eval_request import Found, Request, class_notes, named
from .progress import Progress

TOP_K = 3000  # scores of a picture that enter suppression: more than that change no number noticeably


def detect(request: Request, truth: AnnotationSet) -> Found:
    """What the weights find on every picture."""
    weights, kind, card = chosen_weights.choose(
        request.weights,
        runtime=request.runtime,
        device=request.device,
        imgsz=request.imgsz,
        several_sizes=tta.wants_scales(request),
    )
    match = ClassMatch.of(card.categories, truth.categories)
    if not match.pairs:
        raise DataError(
            f"{weights} and {request.data} have no class in common: {named(card.categories.names)} against "
            f"{named(truth.categories.names)}; measure on data with the same class names"
        )
    nms = tta.suppression(request, card)
    selection = Selection(
        request.conf,
        tta.measuring_overlap(request, nms),
        request.max_det,
        TOP_K,
        agnostic=request.agnostic,
        classes=tuple(i for i, _ in match.pairs),
        nms=nms,
    )
    views, note = tta.views(request, kind)
    proposer, another = chosen_weights.proposer(card, request.proposals, truth)
    looks = {"views": views, "proposals": proposer}
    detections, faults = _detections(request, truth, selection, looks, weights, kind, card)
    if len(faults) == len(truth):
        raise DataError(f"{request.data}: none of its pictures can be read; the first: {faults[0][1]}")
    ours = [replace(found, labels=match.to_data(found.labels)) for found in detections]
    origin = {"weights": str(weights), "model": card.model, "frame_hw": list(_recipe(request, card).frame_hw)}
    settings = {"nms": selection.nms, "iou": selection.iou}
    notes = (*class_notes(match, "with AP 0"), *filter(None, [note, another]))
    outlines = result_outlines(truth, ours) if request.task != "boxes" and truth.outlines.any else None
    return Found(result_rows(truth, ours), origin, notes, faults, outlines, settings=settings)


def _recipe(request: Request, card: Card) -> Any:
    return replace(card.preprocess, frame_hw=request.imgsz) if request.imgsz else card.preprocess


def _detections(
    request: Request,
    truth: AnnotationSet,
    selection: Selection,
    looks: dict[str, Any],
    weights: Path,
    kind: str,
    card: Card,
) -> tuple[list[Detections], list[tuple[ImageFile, ImageError]]]:
    """One `Detections` for each picture, nothing in those that cannot be read, and the faults of these."""
    # as `detseg detect` does it: on a CPU several calls of the network run at once, one core each
    side_by_side = kind == "onnx" and request.device in ("auto", "cpu")
    runtime = open_runtime(weights, runtime=request.runtime, device=request.device, threads=1 if side_by_side else None)
    pictures = [ImageFile(truth.image_path(i), PurePosixPath(name)) for i, name in enumerate(truth.image_files)]
    found: list[Detections] = []
    faults: list[tuple[ImageFile, ImageError]] = []
    with Progress("evaluating", len(pictures), quiet=request.quiet) as progress:
        for outcome in detect_files(
            pictures,
            runtime,
            selection,
            batch=request.batch,
            workers=request.workers,
            network_threads=request.workers if side_by_side else 1,
            recipe=_recipe(request, card),
            **looks,
        ):
            if outcome.fault is not None:
                faults.append((outcome.file, outcome.fault))
            h, w = truth.image_hw[len(found)].tolist()
            found.append(Detections((h, w)) if outcome.found is None else outcome.found)
            progress.advance()
    return found, faults
