"""What `detseg eval` adds when it is asked why: diagnosis.json, curves.csv, report.html, and a comparison.

Imported only with --report or --compare.
"""

from __future__ import annotations

import csv
import io
import json
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from detseg import __version__, files, reports
from detseg.annotations import AnnotationSet
from detseg.annotations.outlines import Outlines
from detseg.annotations.semantic import SemanticSet
from detseg.errors import DataError
from detseg.evaluation import DetectionMetrics, filled_outlines, read_predictions, with_outlines
from detseg.evaluation.bootstrap import Comparison, Evidence, Interval, compare, in_words, verdict
from detseg.evaluation.diagnosis import Diagnosis, diagnose
from detseg.evaluation.diagnosis_maps import (
    LabelMap,
    MapComparison,
    MapDiagnosis,
    MapEvidence,
    compare_maps,
    diagnose_maps,
)
from detseg.evaluation.label_maps import SemanticMetrics
from detseg.evaluation.read_masks import MaskFolder
from detseg.writers.text import readable

from .eval_request import Measured, Request
from .tables import printable, table

REPORT, DIAGNOSIS, CURVES = "report.html", "diagnosis.json", "curves.csv"
_SUSPICIONS = {
    "missing": "perhaps not annotated",
    "class": "perhaps of the wrong class",
    "place": "perhaps badly placed",
    "unseen": "overlapped by no detection",
}


@dataclass(frozen=True, eq=False)
class Side:
    """One set of detections: what it is called, rows (n, 7), and their masks where masks are compared."""

    name: str
    rows: NDArray[np.float64]
    outlines: Outlines | None = None


@dataclass(frozen=True)
class Told:
    """What is to be printed, and what goes into metrics.json."""

    text: str = ""
    json: dict[str, Any] = field(default_factory=dict)


def of_measured(request: Request, folder: Path, measured: Measured) -> tuple[Measured, str]:
    """What was measured with what more is known in its report, and a text for people."""
    found, notes = measured.found, list[str]()
    metrics = measured.metrics.get("segm", measured.metrics["bbox"])
    ours, other = Side(_name(request), found.rows, found.outlines), None
    if request.compare is not None:
        read = read_predictions(request.compare, measured.truth)
        if metrics.kind == "segm" and read.outlines is None:
            raise DataError(f"{request.compare}: holds no masks to compare; measure boxes with --task boxes")
        other, notes = Side(str(request.compare), read.rows, read.outlines), list(read.notes)
    told = of_detections(folder, measured.truth, metrics, ours, other, measured.report, html=request.report)
    for note in notes:
        click.echo(f"note: {printable(request.compare or '')}: {printable(note)}", err=True)
    return replace(measured, report={**measured.report, **told.json}), told.text


def of_maps(
    request: Request,
    folder: Path,
    truth: SemanticSet,
    metrics: SemanticMetrics,
    maps: MaskFolder,
    report: dict[str, Any],
) -> tuple[dict[str, Any], str]:
    """The same of label maps."""
    other = None
    if request.compare is not None:
        if not request.compare.is_dir():
            raise DataError(f"{request.compare}: label maps are a folder of pictures; there is none of this name")
        other = (str(request.compare), MaskFolder(request.compare, truth).read)
    told = of_label_maps(folder, truth, metrics, maps.read, other, report, html=request.report)
    return {**report, **told.json}, told.text


def _name(request: Request) -> str:
    return str(request.predictions or " and ".join(map(str, request.weights)) or "the weights that come with detseg")


# ---- detections ----


def of_detections(
    folder: Path,
    truth: AnnotationSet,
    metrics: DetectionMetrics,
    ours: Side,
    other: Side | None,
    facts: Mapping[str, Any],
    *,
    html: bool,
) -> Told:
    """Compares with `other` where it is given; with `html` also diagnoses, and writes all of it into `folder`.

    `facts`: metrics.json so far.
    """
    compared = None if other is None else compare(_evidence(truth, other, metrics), _evidence(truth, ours, metrics))
    text, told = [], dict[str, Any]()
    if compared is not None and other is not None:
        told["comparison"] = {"other": other.name, "classes": list(truth.categories.names), **compared.to_json()}
        text.append(_comparison_text(other.name, _detection_lines(truth, compared), ("AP", "AP50")))
    if html:
        masks = _masks(truth, ours, metrics)
        diagnosis = diagnose(truth, ours.rows, max_dets=metrics.max_dets, outlines=masks)
        files.write_text(folder / DIAGNOSIS, json.dumps(diagnosis.to_json()) + "\n")
        files.write_text(folder / CURVES, curves_csv(diagnosis))
        named = None if compared is None or other is None else (other.name, compared)
        evaluated = reports.Evaluated(truth, ours.rows, metrics, diagnosis, masks, named)
        page = reports.detection_report(_title(facts), evaluated, _facts(facts))
        files.write_text(folder / REPORT, page)
        told["intervals"] = diagnosis.intervals.to_json()
        text.append(_diagnosis_text(diagnosis))
    return Told("\n\n".join(text), told)


def _evidence(truth: AnnotationSet, side: Side, metrics: DetectionMetrics) -> Evidence:
    masks = _masks(truth, side, metrics)
    known = truth if masks is None else with_outlines(truth)
    return Evidence.of(known, side.rows, metrics.max_dets, outlines=masks)


def _masks(truth: AnnotationSet, side: Side, metrics: DetectionMetrics) -> Outlines | None:
    """The masks to compare: the box where there is none. (Of boundaries the masks are diagnosed.)"""
    return None if metrics.kind == "bbox" else filled_outlines(truth, side.rows, side.outlines)


def _detection_lines(truth: AnnotationSet, compared: Comparison) -> list[tuple[str, Interval, Interval, Interval]]:
    a, b, apart = compared.first, compared.second, compared.difference
    lines = [("AP", a.ap, b.ap, apart.ap), ("AP50", a.ap50, b.ap50, apart.ap50)]
    names = (f"{name}, AP50" for name in truth.categories.names)
    return [*lines, *zip(names, a.class_ap50, b.class_ap50, apart.class_ap50, strict=True)]


def curves_csv(diagnosis: Diagnosis) -> str:
    """Precision, recall and F1 for each class and score threshold; the first rows are of all classes together."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("class", "score", "precision", "recall", "f1"))
    for curve in (diagnosis.overall, *diagnosis.classes):
        columns = (curve.scores, curve.precision, curve.recall, curve.f1)
        for values in zip(*(column.tolist() for column in columns), strict=True):
            rows.writerow((readable(curve.name), *values))
    return text.getvalue()


def _diagnosis_text(diagnosis: Diagnosis) -> str:
    best, errors, sure = diagnosis.overall.at_best(), diagnosis.errors, diagnosis.intervals
    lines = [f"with other pictures of the kind: AP {_between(sure.ap)}, AP50 {_between(sure.ap50)} ({sure.level:.0%})"]
    if best["f1"] is not None:
        lines.append(
            f"best score threshold: {best['score']:.3f}, with precision {best['precision']:.3f}, recall "
            f"{best['recall']:.3f}, F1 {best['f1']:.3f}"
        )
    worst = max(errors.counts, key=lambda kind: errors.gain[kind])
    gain = f"AP50 would gain {errors.gain[worst]:.3f} without"
    lines.append(f"costliest kind of error: {worst}, {errors.counts[worst]:,} of them; {gain}")
    doubts = [f"{count:,} {_SUSPICIONS[kind]}" for kind, count in diagnosis.suspect_counts.items() if count]
    lines.append(f"labels to look at: {', '.join(doubts) or 'none'}")
    return "\n".join(lines)


def _between(sure: Interval) -> str:
    return "-" if sure.low is None or sure.high is None else f"{sure.low:.3f} to {sure.high:.3f}"


# ---- label maps ----


def of_label_maps(
    folder: Path,
    truth: SemanticSet,
    metrics: SemanticMetrics,
    read: Callable[[int], LabelMap],
    other: tuple[str, Callable[[int], LabelMap]] | None,
    facts: Mapping[str, Any],
    *,
    html: bool,
) -> Told:
    """The same of label maps: `read` and the other's reader give the predicted map of a picture."""
    ours = MapEvidence.of(truth, read)
    compared = None if other is None else compare_maps(MapEvidence.of(truth, other[1]), ours)
    text, told = [], dict[str, Any]()
    if compared is not None and other is not None:
        told["comparison"] = {"other": other[0], "classes": list(truth.categories.names), **compared.to_json()}
        text.append(_comparison_text(other[0], _map_lines(truth, compared), ("mIoU",)))
    if html:
        diagnosis = diagnose_maps(truth, ours)
        files.write_text(folder / DIAGNOSIS, json.dumps(diagnosis.to_json()) + "\n")
        named = None if compared is None or other is None else (other[0], compared)
        evaluated = reports.EvaluatedMaps(truth, read, metrics, diagnosis, named)
        page = reports.label_map_report(_title(facts), evaluated, _facts(facts))
        files.write_text(folder / REPORT, page)
        told["intervals"] = {name: value for name, value in diagnosis.to_json().items() if name != "worst"}
        text.append(_map_text(diagnosis))
    return Told("\n\n".join(text), told)


def _map_lines(truth: SemanticSet, compared: MapComparison) -> list[tuple[str, Interval, Interval, Interval]]:
    a, b, apart = compared.first, compared.second, compared.difference
    lines = [("mIoU", a.miou, b.miou, apart.miou)]
    lines.append(("pixel accuracy", a.pixel_accuracy, b.pixel_accuracy, apart.pixel_accuracy))
    names = (f"{name}, IoU" for name in truth.categories.names)
    return [*lines, *zip(names, a.class_iou, b.class_iou, apart.class_iou, strict=True)]


def _map_text(diagnosis: MapDiagnosis) -> str:
    accuracy = _between(diagnosis.pixel_accuracy)
    return f"with other pictures of the kind: mIoU {_between(diagnosis.miou)}, pixel accuracy {accuracy}"


# ---- what both have ----


def _comparison_text(
    other: str, lines: Sequence[tuple[str, Interval, Interval, Interval]], headlines: Sequence[str]
) -> str:
    """A line for each number, and the headlines in words."""
    rows = [
        (label, _shown(b), _shown(a), f"{d.value:+.4f}", f"{d.low:+.4f}", f"{d.high:+.4f}", verdict(d))
        for label, a, b, d in lines
        if d.value is not None
    ]
    header = ("number", "these", "other", "difference", "from", "to", "these are")
    said = [in_words(label, d) for label, _, _, d in lines if label in headlines]
    return "\n".join([f"against {printable(other)}:", table(header, rows, right=range(1, 6)), "", *said])


def _shown(sure: Interval) -> str:
    return "-" if sure.value is None else f"{sure.value:.4f}"


def _title(facts: Mapping[str, Any]) -> str:
    data = facts["data"]
    name = Path(data["path"]).resolve().name
    return f"Evaluation on {name}, {data['split']}" if data["split"] else f"Evaluation on {name}"


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, object]]:
    """What was measured on what, and with what: enough to get the numbers again."""
    return [*_flat(facts), ("command", shlex.join(["detseg", *sys.argv[1:]])), *_versions()]


def _flat(facts: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    left_out = ("metrics", "notes", "unreadable", "comparison", "intervals", "detseg")
    for label, value in facts.items():
        if label == "data" or label == "settings":
            yield from ((f"{label} {inner}", each) for inner, each in value.items() if each is not None)
        elif label not in left_out and value is not None and not isinstance(value, dict | list):
            yield label, value
    yield from (("note", note) for note in facts.get("notes", ()))
    yield from (("unreadable", f"{fault['file']}: {fault['cause']}") for fault in facts.get("unreadable", ())[:20])


def _versions() -> list[tuple[str, object]]:
    import hotcoco

    return [
        ("detseg", __version__),
        ("hotcoco", hotcoco.__version__),
        ("numpy", np.__version__),
        ("Python", platform.python_version()),
    ]
