"""The run behind `detseg segment`: its weights and how they are used; see `folder_run` for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from detseg.annotations.categories import Categories
from detseg.images import ImageFile
from detseg.pipeline import Member, Outcome, segment_together
from detseg.postprocess.tiles import Tiling, context_of
from detseg.results import LabelMap
from detseg.runtimes import Runtime
from detseg.writers import Writers, area_row, open_map_writers

from . import chosen_weights, folder_run, tta
from .exits import Exit
from .folder_run import Job
from .tables import counted, printable, table


@dataclass(frozen=True, kw_only=True)
class Request(folder_run.Request):
    """The command line, as it was given."""

    tta: bool
    tta_scales: tuple[float, ...]
    tta_flips: str
    tile: tuple[int, int] | None
    overlap: int | None


def run(request: Request) -> Exit:
    """Does the whole command."""
    return folder_run.run(request, lambda: Segmenting(request))


class Segmenting(Job):
    """The class of every pixel of each picture."""

    doing = "segmenting"

    def __init__(self, request: Request) -> None:
        chosen = chosen_weights.choose(
            request,
            imgsz=request.imgsz or request.tile,
            several_sizes=tta.wants_scales(request),
            tasks=["segment"],
        )
        super().__init__(chosen)
        self.request = request
        self.tiling = _tiling(request, max(context_of(model.card.config) for model in self.chosen.models))
        self.views, notes = tta.views(request, self.chosen.models)
        for told in notes:
            click.echo(f"note: {told}", err=True)

    def settings(self) -> dict[str, Any]:
        """What decides the results."""
        request = self.request
        views = {"views": [str(views) for views in self.views]} if request.tta else {}
        return {"tile": request.tile, "overlap": request.overlap if request.tile else None, **views}

    def outcomes(
        self, files: Iterator[ImageFile], runtimes: Sequence[Runtime], keep_images: bool
    ) -> Iterator[Outcome[LabelMap]]:
        """The label map of each picture."""
        members = [
            Member(runtime, views=views, **how)
            for runtime, views, how in zip(runtimes, self.views, self.chosen.each(self.request), strict=True)
        ]
        pace = self.chosen.pace(self.request)
        return segment_together(files, members, keep_images=keep_images, tiling=self.tiling, pace=pace)

    def open_writers(self, folder: Path) -> Writers:
        """The formats of label maps."""
        return open_map_writers(self.request.formats, folder, self.chosen.categories)

    def tally(self) -> AreaTally:
        """No pixel yet."""
        return AreaTally(self.chosen.categories)

    def row(self, file: ImageFile, found: LabelMap) -> dict[str, Any]:
        """As in areas.jsonl."""
        return area_row(file, found, self.chosen.categories)

    def words(self, file: ImageFile, found: LabelMap) -> str:
        """Its classes by area."""
        classes = self.row(file, found)["classes"]
        return ", ".join(f"{each['share']:.0%} {printable(each['name'])}" for each in classes)


class AreaTally(folder_run.Tally):
    """How many pixels each class has, and in how many pictures it is."""

    def __init__(self, categories: Categories) -> None:
        super().__init__(categories)
        self.pixels = np.zeros(len(categories), np.int64)
        self.pictures_with = np.zeros(len(categories), np.int64)

    def count(self, file: ImageFile, found: LabelMap) -> None:
        """Counts the pixels of one picture."""
        areas = found.areas(len(self.categories))
        self.pixels += areas
        self.pictures_with += areas > 0

    def table(self) -> str:
        """A line for each class that was found."""
        share = self.pixels / max(1, int(self.pixels.sum()))
        rows = [
            (self.categories.names[i], f"{share[i]:.1%}", int(self.pixels[i]), int(self.pictures_with[i]))
            for i in np.argsort(-self.pixels, kind="stable").tolist()
            if self.pixels[i]
        ]
        return table(("class", "share", "pixels", "pictures"), rows, right=(1, 2, 3))

    def sentence(self) -> str:
        """The counts in words."""
        found = int((self.pixels > 0).sum())
        return f"{found} {'class' if found == 1 else 'classes'} in {counted(self.pictures, 'picture')}"


def _tiling(request: Request, context: int) -> Tiling | None:
    """The tiles that were asked for. Raises UsageError where they cannot be cut."""
    if request.tile is None:
        return None
    try:
        return Tiling.usual(request.tile, request.overlap, context)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
