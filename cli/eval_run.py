"""The run behind `detseg eval`: truth, detections or a file of them, the numbers, what is written and told."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from detseg import __version__, evaluation, files
from detseg.annotations import AnnotationSet, load, splits
from detseg.annotations.outlines import Outlines
from detseg.annotations.split_names import canonical
from detseg.errors import DataError
from detseg.evaluation import DetectionMetrics, Kind, OperatingPoint, VocMetrics

from . import eval_tables
from .eval_request import Found, Measured, Request, open_folder
from .exits import Exit
from .failures import tell_faults
from .tables import counted, printable


def run(request: Request) -> Exit:
    """Does the whole command."""
    if request.compare is not None and not request.compare.exists():  # said now, not after minutes of detecting
        raise DataError(f"{request.compare}: there is no such file or folder to compare with")
    split = request.split or _default_split(request.data)
    if _wants_label_maps(request):
        from . import eval_maps

        return eval_maps.run(request, split)
    truth = _truth(request, split)
    with open_folder(request) as folder:
        found = _found(request, truth)
        kinds = _kinds(request, truth, found)
        truth, found = _as_compared(truth, found, kinds)
        with ThreadPoolExecutor(1) as writer:  # while the numbers are worked out
            written = writer.submit(_write_sides, folder, truth, found)
            measured = _measure(request, truth, found, kinds)
            written.result()
        measured = replace(measured, report=_report(request, split, measured))
        explained = ""
        if request.report or request.compare:
            from . import eval_report  # diagnosis takes its time, also to import

            measured, explained = eval_report.of_measured(request, folder, measured)
        _write(folder, measured)
    for note in found.notes:
        click.echo(f"note: {printable(note)}", err=True)
    click.echo(json.dumps(measured.report, indent=2) if request.as_json else eval_tables.detection_tables(measured))
    if explained and not request.as_json:
        click.echo(f"\n{explained}")
    request.say(f"results are in {printable(folder)}")
    return tell_faults(folder, found.faults)


# ---- the two sides ----


def _default_split(data: Path) -> str | None:
    """val, else test, else None for everything."""
    names = splits(data)
    return next((n for wanted in ("val", "test") for n in names if canonical(n) == wanted), None)


def _wants_label_maps(request: Request) -> bool:
    """Asked for, or the results are a folder of label maps."""
    if request.task is not None:
        return request.task == "labels"
    if request.weights:
        return _is_segmenter(request.weights[0])
    if request.predictions is None or not request.predictions.is_dir():
        return False
    from .eval_maps import holds_label_maps

    return holds_label_maps(request.predictions)


def _is_segmenter(weights: Path) -> bool:
    from detseg.checkpoints import zoo
    from detseg.checkpoints.header import open_header

    return open_header(zoo.resolve(weights))[1].task == "segment"


def _truth(request: Request, split: str | None) -> AnnotationSet:
    truth = load(request.data, split, need_images=False)
    if request.limit is not None:
        truth = truth.subset(np.arange(min(request.limit, len(truth))))
    part = f"split {printable(split)}" if split else "all of it"
    request.say(f"{printable(request.data)}: {part}, {counted(len(truth), 'picture')}")
    if truth.faults:
        first = printable(str(truth.faults[0]))
        request.say(f"{counted(len(truth.faults), 'fault')} in the data set, the first: {first}")
    return truth


def _found(request: Request, truth: AnnotationSet) -> Found:
    if request.predictions is None:
        from .eval_detect import detect  # networks and what runs them

        return detect(request, truth)
    read = evaluation.read_predictions(request.predictions, truth)
    origin = {"predictions": str(request.predictions)}
    return Found(read.rows, origin, read.notes, outlines=read.outlines, areas=read.areas, text=read.text)


def _kinds(request: Request, truth: AnnotationSet, found: Found) -> tuple[Kind, ...]:
    """What is compared: boxes always; masks where both sides have them, or when they are asked for."""
    both = found.outlines is not None and truth.outlines.any
    if request.task == "boxes" or (request.task is None and not both and not request.boundary):
        return ("bbox",)
    if not both:
        side = next(iter(found.origin.values())) if truth.outlines.any else request.data
        raise DataError(f"{side}: holds no masks; measure boxes with --task boxes")
    return ("bbox", "segm", "boundary") if request.boundary else ("bbox", "segm")


def _as_compared(truth: AnnotationSet, found: Found, kinds: tuple[Kind, ...]) -> tuple[AnnotationSet, Found]:
    """Both sides with the outlines that the comparison needs, and no others."""
    if "segm" not in kinds:
        return replace(truth, outlines=Outlines.none(len(truth.labels))), replace(found, outlines=None)
    notes = []
    lacking = int(np.count_nonzero(~truth.outlines.has))
    if lacking:
        notes.append(f"{counted(lacking, 'object')} of the data set without a mask count with their boxes for masks")
    assert found.outlines is not None
    lacking = int(np.count_nonzero(~found.outlines.has))
    if lacking:
        notes.append(f"{counted(lacking, 'detection')} without a mask count with their boxes for masks")
    outlines = evaluation.filled_outlines(truth, found.rows, found.outlines)
    return evaluation.with_outlines(truth), replace(found, outlines=outlines, notes=(*found.notes, *notes))


# ---- the numbers ----


def _measure(request: Request, truth: AnnotationSet, found: Found, kinds: tuple[Kind, ...]) -> Measured:
    metrics: dict[Kind, DetectionMetrics] = {
        kind: evaluation.evaluate_rows(
            truth, found.rows, request.max_det, kind=kind, outlines=found.outlines, areas=found.areas
        )
        for kind in kinds
    }
    voc = evaluation.evaluate_voc(truth, found.rows) if request.voc07 or request.voc else None
    points: dict[Kind, OperatingPoint] = {
        kind: evaluation.operating_point(
            truth,
            found.rows,
            outlines=found.outlines if kind == "segm" else None,
            score=request.at,
            max_dets=request.max_det,
        )
        for kind in kinds
        if kind != "boundary"
    }
    return Measured(truth, found, metrics, points, voc)


def _report(request: Request, split: str | None, measured: Measured) -> dict[str, Any]:
    """metrics.json: the numbers, and all that is needed to get them again."""
    truth, found = measured.truth, measured.found
    return {
        "detseg": __version__,
        "task": "masks" if "segm" in measured.metrics else "boxes",
        **found.origin,
        "data": {
            "path": str(request.data),
            "split": split,
            "format": truth.format,
            "limit": request.limit,
            "fingerprint": truth.fingerprint(),
        },
        "settings": {**_settings(request), **found.settings},
        **{eval_tables.SECTIONS[kind]: _numbers(measured, kind) for kind in measured.metrics},
        **({"voc": _voc_report(request, measured.voc)} if measured.voc else {}),
        "notes": list(found.notes),
        "unreadable": [{"file": str(fault.path), "cause": fault.cause} for _, fault in found.faults],
    }


def _numbers(measured: Measured, kind: Kind) -> dict[str, Any]:
    """Of boxes, masks or boundaries."""
    numbers = measured.metrics[kind].to_json()
    return {**numbers, "at_threshold": measured.points[kind].to_json()} if kind in measured.points else numbers


def _settings(request: Request) -> dict[str, Any]:
    """What decides the numbers."""
    if request.predictions:
        return {"max_det": request.max_det}
    views = ("tta", "tta_scales", "tta_flips", "tta_merge", "tta_parts") if request.tta else ("tta",)
    names = ("conf", "max_det", "agnostic", *views, "batch", "device", "runtime")
    return {name: getattr(request, name) for name in names}


def _voc_report(request: Request, voc: VocMetrics) -> dict[str, Any]:
    """Of VOC's numbers those that were asked for."""
    left_out = [year for year, asked in (("07", request.voc07), ("10", request.voc)) if not asked]
    report = voc.to_json()
    for year in left_out:
        del report[f"map{year}"]
        for entry in report["per_class"]:
            del entry[f"ap{year}"]
    return report


# ---- what is written and told ----


def _write_sides(folder: Path, truth: AnnotationSet, found: Found) -> None:
    """truth.json and predictions.json: on them pycocotools gives the same numbers."""
    boxes = found.areas is None
    results = found.text or evaluation.results_bytes(truth, found.rows, found.outlines, boxes=boxes)
    files.write_bytes(folder / "predictions.json", results)
    files.write_bytes(folder / "truth.json", evaluation.truth_bytes(truth))


def _write(folder: Path, measured: Measured) -> None:
    files.write_text(folder / "metrics.json", json.dumps(measured.report, indent=2) + "\n")
    files.write_text(folder / eval_tables.CLASSES, eval_tables.detection_csv(measured))
