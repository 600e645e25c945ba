"""The run behind `detseg eval`: truth, detections or a file of them, the numbers, what is written and told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from detseg import __version__, evaluation, files
from detseg.annotations import AnnotationSet, load, splits
from detseg.annotations.split_names import canonical
from detseg.checkpoints import Card
from detseg.errors import DataError, ImageError
from detseg.evaluation import ClassMatch, DetectionMetrics
from detseg.images import ImageFile
from detseg.pipeline import detect_files
from detseg.postprocess import Selection
from detseg.results import Detections
from detseg.runtimes import open_runtime

from . import chosen_weights, run_folder
from .detect_report import counted, tell_failures, write_failures
from .exits import Exit
from .progress import Progress
from .tables import printable, table

TOP_K = 3000  # scores of a picture that enter suppression: more than that change no number noticeably


@dataclass(frozen=True, kw_only=True)
class Request:
    """The command line, as it was given."""

    weights: Path | None
    data: Path
    predictions: Path | None
    split: str | None
    conf: float
    iou: float
    max_det: int
    imgsz: tuple[int, int] | None
    batch: int
    device: str
    runtime: str
    workers: int
    out: Path | None
    project: Path
    name: str | None
    exist_ok: bool
    limit: int | None
    as_json: bool
    quiet: bool


@dataclass(frozen=True, eq=False)
class Found:
    """What is compared with the truth: `rows` as `evaluate_rows` takes them.

    `origin` says where they come from (for metrics.json), `notes` what a user must know to read the numbers.
    """

    rows: NDArray[np.float64]
    origin: dict[str, Any]
    notes: tuple[str, ...] = ()
    faults: list[tuple[ImageFile, ImageError]] = field(default_factory=list)


def run(request: Request) -> Exit:
    """Does the whole command."""
    split = request.split or _default_split(request.data)
    truth = load(request.data, split, need_images=False)
    if request.limit is not None:
        truth = truth.subset(np.arange(min(request.limit, len(truth))))
    _say(request, f"{printable(request.data)}: {_part(split)}, {counted(len(truth), 'picture')}")
    for fault in truth.faults[:1]:
        _say(request, f"{counted(len(truth.faults), 'fault')} in the data set, the first: {printable(str(fault))}")
    with _folder(request) as folder:
        found = _read(request.predictions, truth) if request.predictions else _detect(request, truth)
        metrics = evaluation.evaluate_rows(truth, found.rows, request.max_det)
        report = _report(request, truth, split, found, metrics)
        _write(folder, truth, found, report)
    for note in found.notes:
        click.echo(f"note: {printable(note)}", err=True)
    click.echo(json.dumps(report, indent=2) if request.as_json else _tables(metrics))
    _say(request, f"results are in {printable(folder)}")
    tell_failures(folder, found.faults)
    return Exit.SOME_FAILED if found.faults else Exit.OK


# ---- the truth ----


def _default_split(data: Path) -> str | None:
    """val, else test, else None for everything."""
    names = splits(data)
    return next((n for wanted in ("val", "test") for n in names if canonical(n) == wanted), None)


def _part(split: str | None) -> str:
    return f"split {printable(split)}" if split else "all of it"


@contextmanager
def _folder(request: Request) -> Iterator[Path]:
    """The run's folder; an empty one does not stay behind when the run fails."""
    folder = run_folder.choose(request.out, request.project, request.name, reuse=request.exist_ok)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


# ---- the detections ----


def _read(file: Path, truth: AnnotationSet) -> Found:
    """The results of a file."""
    read = evaluation.read_predictions(file, truth)
    return Found(read.rows, {"predictions": str(file)}, read.notes)


def _detect(request: Request, truth: AnnotationSet) -> Found:
    """The weights' detections on every picture."""
    weights, kind, card = chosen_weights.choose(
        request.weights, runtime=request.runtime, device=request.device, imgsz=request.imgsz
    )
    match = ClassMatch.of(card.categories, truth.categories)
    if not match.pairs:
        raise DataError(
            f"{weights} and {request.data} have no class in common: {_named(card.categories.names)} against "
            f"{_named(truth.categories.names)}; measure on data with the same class names"
        )
    selection = Selection(request.conf, request.iou, request.max_det, TOP_K, classes=tuple(i for i, _ in match.pairs))
    detections, faults = _detections(request, truth, selection, weights, kind, card)
    if len(faults) == len(truth):
        raise DataError(f"{request.data}: none of its pictures can be read; the first: {faults[0][1]}")
    ours = [replace(found, labels=match.to_data(found.labels)) for found in detections]
    origin = {"weights": str(weights), "model": card.model, "frame_hw": list(_recipe(request, card).frame_hw)}
    return Found(evaluation.result_rows(truth, ours), origin, _class_notes(match), faults)


def _recipe(request: Request, card: Card) -> Any:
    return replace(card.preprocess, frame_hw=request.imgsz) if request.imgsz else card.preprocess


def _detections(
    request: Request, truth: AnnotationSet, selection: Selection, weights: Path, kind: str, card: Card
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
        ):
            if outcome.fault is not None:
                faults.append((outcome.file, outcome.fault))
            h, w = truth.image_hw[len(found)].tolist()
            found.append(Detections((h, w)) if outcome.detections is None else outcome.detections)
            progress.advance()
    return found, faults


def _class_notes(match: ClassMatch) -> tuple[str, ...]:
    notes = [f"class {ours!r} of the weights is taken for {theirs!r}" for ours, theirs in match.respelled]
    if match.unknown:
        notes.append(f"classes the weights do not know count with AP 0: {_named(match.unknown)}")
    if match.unused:
        notes.append(f"classes of the weights that the data set lacks are left out: {_named(match.unused)}")
    return tuple(notes)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


# ---- what is written and told ----


def _report(
    request: Request, truth: AnnotationSet, split: str | None, found: Found, metrics: DetectionMetrics
) -> dict[str, Any]:
    """metrics.json: the numbers, and all that is needed to get them again."""
    names = ("max_det",) if request.predictions else ("conf", "iou", "max_det", "batch", "device", "runtime")
    return {
        "detseg": __version__,
        **found.origin,
        "data": {
            "path": str(request.data),
            "split": split,
            "format": truth.format,
            "limit": request.limit,
            "fingerprint": truth.fingerprint(),
        },
        "settings": {name: getattr(request, name) for name in names},
        "metrics": metrics.to_json(),
        "notes": list(found.notes),
        "unreadable": [{"file": str(fault.path), "cause": fault.cause} for _, fault in found.faults],
    }


def _write(folder: Path, truth: AnnotationSet, found: Found, report: dict[str, Any]) -> None:
    files.write_text(folder / "truth.json", json.dumps(evaluation.truth_json(truth)) + "\n")
    results = evaluation.results_json(truth, found.rows)
    files.write_text(folder / "predictions.json", json.dumps(results) + "\n")
    files.write_text(folder / "metrics.json", json.dumps(report, indent=2) + "\n")
    write_failures(folder, found.faults)


def _tables(metrics: DetectionMetrics) -> str:
    """COCO's numbers, then a line per class."""
    few, many = min(10, metrics.max_dets), metrics.max_dets
    meaning = {
        "ap": ("AP", "overlap 0.50 to 0.95"),
        "ap50": ("AP50", "overlap 0.50"),
        "ap75": ("AP75", "overlap 0.75"),
        "ap_small": ("AP small", "objects below 32x32 pixels"),
        "ap_medium": ("AP medium", "objects of 32x32 to 96x96 pixels"),
        "ap_large": ("AP large", "larger objects"),
        "ar_1": ("AR 1", "recall, 1 object per picture and class"),
        "ar_10": (f"AR {few}", f"recall, {few} objects per picture and class"),
        "ar_max": (f"AR {many}", f"recall, {many} objects per picture and class"),
        "ar_small": ("AR small", "recall, objects below 32x32 pixels"),
        "ar_medium": ("AR medium", "recall, objects of 32x32 to 96x96 pixels"),
        "ar_large": ("AR large", "recall, larger objects"),
    }
    rows = [(meaning[name][0], _shown(value), meaning[name][1]) for name, value in metrics.twelve().items()]
    classes = [(c.name, c.images, c.objects, _shown(c.ap), _shown(c.ap50), _shown(c.ar)) for c in metrics.per_class]
    header = ("class", "pictures", "objects", "AP", "AP50", "AR")
    overall = table(("number", "value", "over classes, at"), rows, right=(1,))
    return f"{overall}\n\n{table(header, classes, right=range(1, 6))}"


def _shown(value: float) -> str:
    return "-" if value < 0 else f"{value:.4f}"


def _say(request: Request, line: str) -> None:
    if not request.quiet:
        click.echo(line, err=True)
