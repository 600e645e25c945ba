"""`detseg eval WEIGHTS DATA`: the weights' detections on every picture. Imported for a network only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from detseg.annotations import AnnotationSet
from detseg.errors import DataError, ImageError
from detseg.evaluation import result_outlines, result_rows
from detseg.images import ImageFile
from detseg.pipeline import Member, detect_together
from detseg.postprocess import Selection
from detseg.results import Detections

from . import chosen_weights, tta
from .chosen_weights import Chosen, Model
from .eval_request import Found, Request, class_notes, classes_in_common, pictures_of
from .progress import Progress

TOP_K = 3000  # scores of a picture that enter suppression: more than that change no number noticeably


def detect(request: Request, truth: AnnotationSet) -> Found:
    """What the weights find on every picture."""
    chosen = chosen_weights.choose(request, several_sizes=tta.wants_scales(request))
    match = classes_in_common(request, chosen, truth.categories)
    shared = [i for i, _ in match.pairs]
    selections = [
        _selection(request, model, np.flatnonzero(np.isin(own, shared)).tolist())
        for model, own in zip(chosen.models, chosen.classes, strict=True)
    ]
    views, notes_of_views = tta.views(request, chosen.models)
    proposers, more = chosen_weights.proposers(chosen, request.proposals, truth)
    looks = [{"views": v, "proposals": p, "selection": s} for v, p, s in zip(views, proposers, selections, strict=True)]
    detections, faults = _detections(request, truth, looks, chosen)
    if len(faults) == len(truth):
        raise DataError(f"{request.data}: none of its pictures can be read; the first: {faults[0][1]}")
    ours = [replace(found, labels=match.to_data(found.labels)) for found in detections]
    several = len(selections) > 1
    settings = {
        name: [getattr(s, name) for s in selections] if several else getattr(selections[0], name)
        for name in ("nms", "iou")
    }
    notes = (*class_notes(match, "with AP 0"), *notes_of_views, *more)
    outlines = result_outlines(truth, ours) if request.task != "boxes" and truth.outlines.any else None
    return Found(result_rows(truth, ours), chosen.origin(request), notes, faults, outlines, settings=settings)


def _selection(request: Request, model: Model, classes: list[int]) -> Selection:
    """What is kept of one model's candidates, of these of its classes."""
    nms = tta.suppression(request, model.card)
    return Selection(
        request.conf,
        tta.measuring_overlap(request, nms),
        request.max_det,
        TOP_K,
        agnostic=request.agnostic,
        classes=tuple(classes),
        nms=nms,
    )


def _detections(
    request: Request,
    truth: AnnotationSet,
    looks: list[dict[str, Any]],
    chosen: Chosen,
) -> tuple[list[Detections], list[tuple[ImageFile, ImageError]]]:
    """One `Detections` for each picture, nothing in those that cannot be read, and the faults of these."""
    pictures = pictures_of(truth)
    found: list[Detections] = []
    faults: list[tuple[ImageFile, ImageError]] = []
    with Progress("evaluating", len(pictures), quiet=request.quiet) as progress:
        each = zip(chosen.open(request), looks, chosen.each(request), strict=True)
        members = [Member(runtime, **look, **how) for runtime, look, how in each]  # as `detseg detect` does it
        selection = members[0].selection
        for outcome in detect_together(pictures, members, selection, **chosen.stream(request)):
            if outcome.fault is not None:
                faults.append((outcome.file, outcome.fault))
            h, w = truth.image_hw[len(found)].tolist()
            found.append(Detections((h, w)) if outcome.found is None else outcome.found)
            progress.advance()
    return found, faults
