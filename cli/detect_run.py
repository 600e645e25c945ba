"""The run behind `detseg detect`: its weights and how they are used; see `folder_run` for the rest."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from detseg.annotations.categories import Categories
from detseg.images import ImageFile
from detseg.pipeline import Member, Outcome, detect_together, split_together
from detseg.postprocess import Selection
from detseg.postprocess.instances import Watershed, object_classes
from detseg.postprocess.select import NMS
from detseg.results import Detections
from detseg.runtimes import Runtime
from detseg.writers import Writers, json_row, open_writers

from . import chosen_weights, folder_run, tta
from .chosen_weights import Chosen
from .detect_report import DetectTally, in_words
from .exits import Exit
from .folder_run import Job


@dataclass(frozen=True, kw_only=True)
class Request(folder_run.Request):
    """The command line, as it was given."""

    conf: float
    iou: float
    classes: tuple[str, ...]
    max_det: int
    agnostic: bool
    nms: NMS | None
    tta: bool
    tta_scales: tuple[float, ...]
    tta_flips: str
    tta_merge: str
    tta_parts: int
    proposals: Path | None
    neck: float
    min_area: int
    save_conf: bool


def run(request: Request) -> Exit:
    """Does the whole command."""
    return folder_run.run(request, lambda: _job(request))


def _job(request: Request) -> Job:
    """What the weights are made for."""
    chosen = chosen_weights.choose(request, several_sizes=tta.wants_scales(request), tasks=["detect", "segment"])
    return Detecting(request, chosen) if chosen.task == "detect" else Splitting(request, chosen)


class Finding(Job):
    """Objects found in each picture, by whatever finds them."""

    doing = "detecting"

    def __init__(self, request: Request, chosen: Chosen) -> None:
        super().__init__(chosen)
        self.request = request
        self.categories = chosen.categories

    def open_writers(self, folder: Path) -> Writers:
        """The formats of objects."""
        request = self.request
        return open_writers(request.formats, folder, self.categories, save_conf=request.save_conf)

    def tally(self) -> DetectTally:
        """No object yet."""
        return DetectTally(self.categories)

    def row(self, file: ImageFile, found: Detections) -> dict[str, Any]:
        """As in predictions.jsonl."""
        return json_row(file, found, self.categories)

    def words(self, file: ImageFile, found: Detections) -> str:
        """How many of each class."""
        return in_words(found, self.categories)


class Splitting(Finding):
    """Objects cut out of a segmenter's label maps."""

    def __init__(self, request: Request, chosen: Chosen) -> None:
        super().__init__(request, chosen)
        classes = _class_indices(request.classes, self.categories) or object_classes(self.categories)
        self.selection = Selection(request.conf, max_det=request.max_det, classes=classes)
        self.watershed = Watershed(request.neck, min_area=request.min_area)
        self.views, notes = tta.views(request, chosen.models)
        for told in ("a segmenter: objects are the parts of its label maps, cut where they are narrow", *notes):
            click.echo(f"note: {told}", err=True)

    def settings(self) -> dict[str, Any]:
        """What decides the results."""
        request = self.request
        chosen = {"classes": self.selection.classes, "views": [str(views) for views in self.views]}
        return chosen | {name: getattr(request, name) for name in ("conf", "max_det", "neck", "min_area", "save_conf")}

    def outcomes(
        self, files: Iterator[ImageFile], runtimes: Sequence[Runtime], keep_images: bool
    ) -> Iterator[Outcome[Detections]]:
        """The objects of each picture."""
        each = zip(runtimes, self.views, self.chosen.each(self.request), strict=True)
        members = [Member(runtime, views=views, **how) for runtime, views, how in each]
        pace = self.chosen.pace(self.request)
        return split_together(files, members, self.selection, self.watershed, keep_images=keep_images, pace=pace)


class Detecting(Finding):
    """Objects found by detectors."""

    def __init__(self, request: Request, chosen: Chosen) -> None:
        super().__init__(request, chosen)
        kinds = [tta.suppression(request, model.card) for model in self.chosen.models]
        classes = _class_indices(request.classes, self.categories)
        self.selection = Selection(
            request.conf, request.iou, request.max_det, agnostic=request.agnostic, classes=classes, nms=kinds[0]
        )
        self.selections = [
            replace(self.selection, nms=kind, classes=_own(classes, own))
            for kind, own in zip(kinds, self.chosen.classes, strict=True)
        ]
        self.views, notes = tta.views(request, self.chosen.models)
        self.proposers, more = chosen_weights.proposers(self.chosen, request.proposals)
        for told in (*notes, *more):
            click.echo(f"note: {told}", err=True)

    def settings(self) -> dict[str, Any]:
        """What decides the results."""
        request = self.request
        chosen: dict[str, Any] = {
            "classes": self.selection.classes,
            "nms": [selection.nms for selection in self.selections],
            "views": [str(views) for views in self.views],
        }
        chosen |= {"proposals": str(request.proposals)} if request.proposals else {}
        return chosen | {name: getattr(request, name) for name in ("conf", "iou", "max_det", "agnostic", "save_conf")}

    def outcomes(
        self, files: Iterator[ImageFile], runtimes: Sequence[Runtime], keep_images: bool
    ) -> Iterator[Outcome[Detections]]:
        """The objects of each picture."""
        columns = zip(
            runtimes, self.selections, self.views, self.proposers, self.chosen.each(self.request), strict=True
        )
        members = [
            Member(runtime, selection, views=views, proposals=proposer, **how)
            for runtime, selection, views, proposer, how in columns
        ]
        pace = self.chosen.pace(self.request)
        return detect_together(files, members, self.selection, keep_images=keep_images, pace=pace)


def _own(classes: tuple[int, ...] | None, of_model: NDArray[np.int64]) -> tuple[int, ...] | None:
    """Class indices among those of all models -> those of them that one model knows, in its own indices."""
    return None if classes is None else tuple(np.flatnonzero(np.isin(of_model, classes)).tolist())


def _class_indices(words: tuple[str, ...], categories: Categories) -> tuple[int, ...] | None:
    """Names or numbers from 0, several with commas -> class indices; None for all."""
    known = categories.index_of_name
    singles = [part.strip() for word in words for part in ([word] if word in known else word.strip("[]").split(","))]
    indices = []
    for single in filter(None, singles):
        if single not in known and not (single.isdecimal() and int(single) < len(categories)):
            close = difflib.get_close_matches(single, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(categories.names)}"
            raise click.BadParameter(f"'{single}' is no class of these weights; {hint}", param_hint="--classes")
        indices.append(known.get(single, int(single) if single.isdecimal() else -1))
    return tuple(sorted(set(indices))) if indices else None
