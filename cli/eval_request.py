"""What a run of `detseg eval` is asked for, what it compares, and what comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import click
import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet, Categories, ClassMatch
from detseg.annotations.outlines import Outlines
from detseg.annotations.semantic import SemanticSet
from detseg.errors import DataError
from detseg.evaluation import DetectionMetrics, Kind, OperatingPoint, VocMetrics
from detseg.images import ImageFile

from . import run_folder
from .chosen_weights import Chosen

if TYPE_CHECKING:
    from detseg.errors import ImageError
    from detseg.postprocess.select import NMS

Task = Literal["boxes", "masks", "labels"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """The command line, as it was given."""

    weights: tuple[Path, ...]
    ensemble_weights: tuple[float, ...]
    data: Path
    predictions: Path | None
    task: Task | None
    split: str | None
    voc07: bool
    voc: bool
    boundary: bool
    at: float | None
    conf: float
    iou: float | None
    max_det: int
    agnostic: bool
    nms: NMS | None
    tta: bool
    tta_scales: tuple[float, ...]
    tta_flips: str
    tta_merge: str
    tta_parts: int
    imgsz: tuple[int, int] | None
    proposals: Path | None
    neck: float
    min_area: int
    batch: int
    device: str
    runtime: str
    workers: int
    out: Path | None
    project: Path
    name: str | None
    exist_ok: bool
    limit: int | None
    report: bool
    compare: Path | None
    as_json: bool
    quiet: bool

    def say(self, line: str) -> None:
        """A line on stderr, unless quiet."""
        if not self.quiet:
            click.echo(line, err=True)


@dataclass(frozen=True, eq=False)
class Found:
    """What is compared with the truth: `rows`, `outlines` and `areas` as `evaluate_rows` takes them.

    `origin` says where they come from (for metrics.json), `notes` what a user must know to read the numbers; `text`
    is predictions.json where that is there already, `settings` what was chosen for the weights.
    """

    rows: NDArray[np.float64]
    origin: dict[str, Any]
    notes: tuple[str, ...] = ()
    faults: Sequence[tuple[ImageFile, ImageError]] = ()
    outlines: Outlines | None = None
    areas: NDArray[np.float64] | None = None
    text: bytes | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Measured:
    """A comparison of boxes or masks, done: `metrics` by what overlaps, boxes always among them.

    `points`: what is right, false and missed at one threshold, of boxes and of masks.
    """

    truth: AnnotationSet
    found: Found
    metrics: dict[Kind, DetectionMetrics]
    points: dict[Kind, OperatingPoint]
    voc: VocMetrics | None = None
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Segmented:
    """Where the label maps are, what they come from (for metrics.json), and what a user must know of them."""

    folder: Path
    origin: dict[str, Any]
    notes: tuple[str, ...]
    faults: Sequence[tuple[ImageFile, ImageError]]


@contextmanager
def open_folder(request: Request) -> Iterator[Path]:
    """The run's folder; an empty one does not stay behind when the run fails."""
    folder = run_folder.choose(request.out, request.project, request.name, reuse=request.exist_ok)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


def named(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def pictures_of(truth: AnnotationSet | SemanticSet) -> list[ImageFile]:
    """The data set's pictures, as the route takes them."""
    return [ImageFile(truth.image_path(i), PurePosixPath(name)) for i, name in enumerate(truth.image_files)]


def classes_in_common(request: Request, chosen: Chosen, categories: Categories) -> ClassMatch:
    """Which class of the weights is which of the data. Raises DataError where there is none."""
    match = ClassMatch.of(chosen.categories, categories)
    if not match.pairs:
        raise DataError(
            f"{chosen.name} and {request.data} have no class in common: {named(chosen.categories.names)} against "
            f"{named(categories.names)}; measure on data with the same class names"
        )
    return match


def class_notes(match: ClassMatch, as_missed: str) -> tuple[str, ...]:
    """What must be told of how the classes of weights and data were matched; `as_missed`: "with AP 0"."""
    notes = [f"class {ours!r} of the weights is taken for {theirs!r}" for ours, theirs in match.respelled]
    if match.unknown:
        notes.append(f"classes the weights do not know count {as_missed}: {named(match.unknown)}")
    if match.unused:
        notes.append(f"classes of the weights that the data set lacks are left out: {named(match.unused)}")
    return tuple(notes)
