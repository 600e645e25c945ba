"""`detseg eval WEIGHTS DATA`: the weights' detections on every picture. Imported for a network only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from detseg.annotations import AnnotationSet
from detseg.errors import DataError, ImageError
from detseg.evaluation import result_outlines, result_rows
from detseg.images import ImageFile
from detseg.pipeline import detect_files
from detseg.postprocess import Selection
from detseg.results import Detections

from . import chosen_weights, tta
from .chosen_weights import Model
from .eval_request import Found, Request, class_notes, classes_in_common, pictures_of
from .progress import Progress

TOP_K = 3000  # scores of a picture that enter suppression: more than that change no number noticeably


def detect(request: Request, truth: AnnotationSet) -> Found:
    """What the weights find on every picture."""
    model = chosen_weights.choose(request, several_sizes=tta.wants_scales(request))
    weights, card = model.weights, model.card
    match = classes_in_common(request, model, truth.categories)
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
    views, note = tta.views(request, model.kind)
    proposer, another = chosen_weights.proposer(card, request.proposals, truth)
    looks = {"views": views, "proposals": proposer}
    detections, faults = _detections(request, truth, selection, looks, model)
    if len(faults) == len(truth):
        raise DataError(f"{request.data}: none of its pictures can be read; the first: {faults[0][1]}")
    ours = [replace(found, labels=match.to_data(found.labels)) for found in detections]
    origin = {"weights": str(weights), "model": card.model, "frame_hw": list(model.recipe(request).frame_hw)}
    settings = {"nms": selection.nms, "iou": selection.iou}
    notes = (*class_notes(match, "with AP 0"), *filter(None, [note, another]))
    outlines = result_outlines(truth, ours) if request.task != "boxes" and truth.outlines.any else None
    return Found(result_rows(truth, ours), origin, notes, faults, outlines, settings=settings)


def _detections(
    request: Request,
    truth: AnnotationSet,
    selection: Selection,
    looks: dict[str, Any],
    model: Model,
) -> tuple[list[Detections], list[tuple[ImageFile, ImageError]]]:
    """One `Detections` for each picture, nothing in those that cannot be read, and the faults of these."""
    pictures = pictures_of(truth)
    found: list[Detections] = []
    faults: list[tuple[ImageFile, ImageError]] = []
    with Progress("evaluating", len(pictures), quiet=request.quiet) as progress:
        how = {**looks, **model.stream(request)}  # as `detseg detect` does it
        for outcome in detect_files(pictures, model.open(request), selection, **how):
            if outcome.fault is not None:
                faults.append((outcome.file, outcome.fault))
            h, w = truth.image_hw[len(found)].tolist()
            found.append(Detections((h, w)) if outcome.found is None else outcome.found)
            progress.advance()
    return found, faults
