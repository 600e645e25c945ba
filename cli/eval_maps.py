"""`detseg eval` of label maps, a class for every pixel: a segmenter's, or those of a folder (--predictions)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from detseg import __version__, files
from detseg.annotations import load_label_maps
from detseg.annotations.semantic import SemanticSet
from detseg.errors import DataError
from detseg.evaluation.label_maps import SemanticMetrics, evaluate_label_maps
from detseg.evaluation.read_masks import MaskFolder

from . import eval_tables
from .eval_request import Request, Segmented, open_folder
from .exits import Exit
from .failures import tell_faults
from .progress import Progress
from .tables import printable


def run(request: Request, split: str | None) -> Exit:
    """Does the whole command."""
    if request.predictions is not None and not request.predictions.is_dir():
        raise DataError(f"{request.predictions}: label maps are a folder of pictures; there is none of this name")
    truth = load_label_maps(request.data, split)
    if request.limit is not None:
        truth = truth.subset(np.arange(min(request.limit, len(truth))))
    request.say(f"{printable(request.data)}: label maps of {len(truth):,} pictures, {len(truth.categories)} classes")
    with open_folder(request) as folder:
        made = _made(request, truth, folder)
        maps = MaskFolder(made.folder, truth)
        notes = list(made.notes)
        if maps.missing:
            notes.append(f"{maps.missing} pictures have no label map; their pixels count as missed")
        metrics = evaluate_label_maps(truth, _shown(maps, len(truth), request.quiet))
        report, explained = _report(request, truth, split, metrics, made, notes), ""
        if request.report or request.compare:
            from . import eval_report

            report, explained = eval_report.of_maps(request, folder, truth, metrics, maps, report)
        files.write_text(folder / "metrics.json", json.dumps(report, indent=2) + "\n")
        files.write_text(folder / eval_tables.CLASSES, eval_tables.map_csv(metrics))
    for note in notes:
        click.echo(f"note: {printable(note)}", err=True)
    click.echo(json.dumps(report, indent=2) if request.as_json else eval_tables.map_tables(metrics))
    if explained and not request.as_json:
        click.echo(f"\n{explained}")
    request.say(f"results are in {printable(folder)}")
    return tell_faults(folder, made.faults)


def _made(request: Request, truth: SemanticSet, folder: Path) -> Segmented:
    """The label maps to measure: those of a folder, or made here."""
    if request.predictions is not None:
        return Segmented(request.predictions, {"predictions": str(request.predictions)}, (), ())
    from .eval_segment import segment

    return segment(request, truth, folder)


def holds_label_maps(path: Path | None) -> bool:
    """Is this a folder of label maps, and of nothing that describes boxes?"""
    if path is None or not path.is_dir():
        return False
    from detseg.evaluation.read_masks import mask_files
    from detseg.evaluation.reading import files_in

    if (path / "predictions.json").is_file() or (path / "labels").is_dir() or (path / "voc").is_dir():
        return False
    others = files_in(path, ".xml") or not _only_names(path)
    return not others and bool(mask_files(path))


def _only_names(path: Path) -> bool:
    """Are `classes.txt` and its like the only texts there?"""
    return {file.name for file in path.rglob("*.txt")} <= {"classes.txt", "labels.txt", "labelmap.txt"}


def _shown(maps: MaskFolder, total: int, quiet: bool) -> Iterator[NDArray[np.uint8]]:
    with Progress("comparing", total, quiet=quiet) as progress:
        for found in maps:
            yield found
            progress.advance()


def _report(
    request: Request, truth: SemanticSet, split: str | None, metrics: SemanticMetrics, made: Segmented, notes: list[str]
) -> dict[str, Any]:
    """metrics.json."""
    return {
        "detseg": __version__,
        "task": "labels",
        **made.origin,
        "data": {"path": str(request.data), "split": split, "format": truth.format, "limit": request.limit},
        "metrics": metrics.to_json(),
        "notes": notes,
        "unreadable": [{"file": str(fault.path), "cause": fault.cause} for _, fault in made.faults],
    }
