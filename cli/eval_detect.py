"""`detseg eval WEIGHTS DATA`: what the weights find on every picture. Imported for a network only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from detseg.annotations import AnnotationSet
from detseg.errors import DataError, ImageError
from detseg.evaluation import result_outlines, result_rows
from detseg.images import ImageFile
from detseg.pipeline import Member, Outcome, detect_together, split_together
from detseg.postprocess import Selection
from detseg.postprocess.instances import Watershed
from detseg.results import Detections

from . import chosen_weights, tta
from .chosen_weights import Chosen, Model
from .eval_request import Found, Request, class_notes, classes_in_common, pictures_of
from .progress import Progress

TOP_K = 3000  # scores of a picture that enter suppression: more than that change no number noticeably


def detect(request: Request, truth: AnnotationSet) -> Found:
    """What the weights find on every picture."""
    tasks = ["detect", "segment"] if request.task else ["detect"]
    chosen = chosen_weights.choose(request, several_sizes=tta.wants_scales(request), tasks=tasks)
    match = classes_in_common(request, chosen, truth.categories)
    find = _by_detectors if chosen.task == "detect" else _by_segmenters
    looking = find(request, truth, chosen, [i for i, _ in match.pairs])
    detections, faults = _collected(request, truth, looking.outcomes)
    if len(faults) == len(truth):
        raise DataError(f"{request.data}: none of its pictures can be read; the first: {faults[0][1]}")
    ours = [replace(found, labels=match.to_data(found.labels)) for found in detections]
    notes = (*class_notes(match, "with AP 0"), *looking.notes)
    outlines = result_outlines(truth, ours) if request.task != "boxes" and truth.outlines.any else None
    return Found(result_rows(truth, ours), chosen.origin(request), notes, faults, outlines, settings=looking.settings)


class _Looking(NamedTuple):
    """What is found on every picture, as `detseg detect` finds it; what decides that; what a user must know."""

    outcomes: Iterator[Outcome[Detections]]
    settings: dict[str, Any]
    notes: Sequence[str]


def _by_detectors(request: Request, truth: AnnotationSet, chosen: Chosen, shared: list[int]) -> _Looking:
    """`shared`: the classes, of all models', that the data have, too."""
    selections = [
        _selection(request, model, np.flatnonzero(np.isin(own, shared)).tolist())
        for model, own in zip(chosen.models, chosen.classes, strict=True)
    ]
    views, notes = tta.views(request, chosen.models)
    proposers, more = chosen_weights.proposers(chosen, request.proposals, truth)
    each = zip(chosen.open(request), selections, views, proposers, chosen.each(request), strict=True)
    members = [
        Member(runtime, selection, views=own, proposals=proposer, **how)
        for runtime, selection, own, proposer, how in each
    ]
    several = len(selections) > 1
    settings = {
        name: [getattr(s, name) for s in selections] if several else getattr(selections[0], name)
        for name in ("nms", "iou")
    }
    outcomes = detect_together(pictures_of(truth), members, selections[0], pace=chosen.pace(request))
    return _Looking(outcomes, settings, [*notes, *more])


def _by_segmenters(request: Request, truth: AnnotationSet, chosen: Chosen, shared: list[int]) -> _Looking:
    """The objects cut out of label maps."""
    views, notes = tta.views(request, chosen.models)
    each = zip(chosen.open(request), views, chosen.each(request), strict=True)
    members = [Member(runtime, views=own, **how) for runtime, own, how in each]
    selection = Selection(request.conf, max_det=request.max_det, classes=tuple(shared))
    watershed = Watershed(request.neck, min_area=request.min_area)
    outcomes = split_together(pictures_of(truth), members, selection, watershed, pace=chosen.pace(request))
    return _Looking(outcomes, {"neck": request.neck, "min_area": request.min_area}, notes)


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


def _collected(
    request: Request, truth: AnnotationSet, outcomes: Iterator[Outcome[Detections]]
) -> tuple[list[Detections], list[tuple[ImageFile, ImageError]]]:
    """One `Detections` for each picture, nothing in those that cannot be read, and the faults of these."""
    found: list[Detections] = []
    faults: list[tuple[ImageFile, ImageError]] = []
    with Progress("evaluating", len(truth), quiet=request.quiet) as progress:
        for outcome in outcomes:
            if outcome.fault is not None:
                faults.append((outcome.file, outcome.fault))
            h, w = truth.image_hw[len(found)].tolist()
            found.append(Detections((h, w)) if outcome.found is None else outcome.found)
            progress.advance()
    return found, faults
