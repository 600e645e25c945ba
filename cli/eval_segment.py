"""`detseg eval WEIGHTS DATA` of a segmenter: its label maps are written, and then measured like anybody's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detseg.annotations import ClassMatch
from detseg.annotations.mask_files import voc_palette, write_mask
from detseg.annotations.mask_write import pixel_categories
from detseg.annotations.semantic import IGNORE, SemanticSet
from detseg.errors import DataError, ImageError
from detseg.images import ImageFile
from detseg.pipeline import Member, segment_together
from detseg.postprocess import Views

from . import chosen_weights, tta
from .chosen_weights import Chosen
from .eval_request import Request, Segmented, class_notes, classes_in_common, pictures_of
from .progress import Progress

MASKS = "masks"


def segment(request: Request, truth: SemanticSet, folder: Path) -> Segmented:
    """Writes folder/masks: a label map for each picture that can be read, in the data set's own values."""
    chosen = chosen_weights.choose(request, several_sizes=tta.wants_scales(request), tasks=["segment"])
    match = classes_in_common(request, chosen, truth.categories)
    views, told = tta.views(request, chosen.models)
    faults = _write_all(request, truth, folder / MASKS, chosen, views, match)
    if len(faults) == len(truth):
        raise DataError(f"{request.data}: none of its pictures can be read; the first: {faults[0][1]}")
    origin = chosen.origin(request) | ({"views": str(views[0])} if request.tta else {})
    return Segmented(folder / MASKS, origin, (*class_notes(match, "with IoU 0"), *told), faults)


def _write_all(
    request: Request, truth: SemanticSet, place: Path, chosen: Chosen, views: list[Views], match: ClassMatch
) -> list[tuple[ImageFile, ImageError]]:
    pictures = pictures_of(truth)
    values, colours = _values(match, truth), voc_palette()
    faults: list[tuple[ImageFile, ImageError]] = []
    with Progress("evaluating", len(pictures), quiet=request.quiet) as progress:
        each = zip(chosen.open(request), views, chosen.each(request), strict=True)
        members = [Member(runtime, views=looks, **how) for runtime, looks, how in each]
        for outcome in segment_together(pictures, members, pace=chosen.pace(request)):
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
