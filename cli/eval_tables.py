"""What `detseg eval` shows and writes as tables: all numbers for people, the classes as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from detseg.evaluation import DetectionMetrics, Kind

from .eval_request import Measured
from .tables import table

if TYPE_CHECKING:
    from detseg.evaluation.label_maps import SemanticMetrics

CLASSES = "classes.csv"
SECTIONS: dict[Kind, str] = {"bbox": "metrics", "segm": "masks", "boundary": "boundary"}  # in metrics.json
_TITLES: dict[Kind, str] = {"bbox": "boxes", "segm": "masks", "boundary": "masks, and their boundaries"}
_IN_TABLE = ("ap", "ap50", "ap_small", "ap_medium", "ap_large", "ar")
_IN_CSV = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar", "ar_small", "ar_medium", "ar_large")
_SHORT = {"ap_small": "small", "ap_medium": "medium", "ap_large": "large"}
_AT_THRESHOLD = (
    ("score", "score", "threshold of what follows, at overlap 0.50"),
    ("precision", "precision", "all classes: share of what was found that is right"),
    ("recall", "recall", "all classes: share of the objects that was found"),
    ("F1", "f1", "both in one"),
    ("agreement", "agreement", "right / (right + false + missed)"),
)
_MAPS = ("iou", "dice", "accuracy", "precision", "boundary_f")


def detection_tables(measured: Measured) -> str:
    """COCO's numbers, then a line per class."""
    kinds = list(measured.metrics)
    first = measured.metrics[kinds[0]]
    values = [measured.metrics[kind].twelve() for kind in kinds]
    rows: list[Sequence[object]] = [
        (name, *(shown(v[key]) for v in values), meaning) for key, (name, meaning) in _meanings(first).items()
    ]
    points = [measured.points.get(kind) for kind in kinds]
    for name, key, meaning in _AT_THRESHOLD:
        rows.append((name, *("" if p is None else shown(getattr(p, key)) for p in points), meaning))
    for name, value in _voc_numbers(measured).items():
        rows.append((name, shown(value), *[""] * (len(kinds) - 1), "overlap 0.50, difficult objects left out"))
    titles = ["value"] if kinds == ["bbox"] else [_TITLES[kind] for kind in kinds]
    overall = table(("number", *titles, "over classes, at"), rows, right=range(1, 1 + len(kinds)))
    parts = [overall]
    for kind in kinds:
        title = "" if kinds == ["bbox"] else f"{_TITLES[kind]}\n"
        parts.append(title + _class_table(measured, kind))
    return "\n\n".join(parts)


def _meanings(metrics: DetectionMetrics) -> dict[str, tuple[str, str]]:
    few, many = min(10, metrics.max_dets), metrics.max_dets
    return {
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


def _voc_numbers(measured: Measured) -> dict[str, float]:
    """The VOC numbers that were asked for, by what they are called here."""
    asked = measured.report.get("voc", {})
    return {name: asked[key] for name, key in (("VOC07", "map07"), ("VOC", "map10")) if key in asked}


def _class_table(measured: Measured, kind: Kind) -> str:
    voc = measured.report.get("voc", {}).get("per_class") if kind == "bbox" else None
    extra = [(name, key) for name, key in (("VOC07", "ap07"), ("VOC", "ap10")) if voc and key in voc[0]]
    header = ["class", "pictures", "objects", *(_SHORT.get(key, key.upper()) for key in _IN_TABLE)]
    rows = [
        [c.name, c.images, c.objects, *(shown(getattr(c, key)) for key in _IN_TABLE)]
        + [shown(voc[index][key]) for _, key in extra if voc]
        for index, c in enumerate(measured.metrics[kind].per_class)
    ]
    header += [name for name, _ in extra]
    return table(header, rows, right=range(1, len(header)))


def detection_csv(measured: Measured) -> str:
    """A row per class: its numbers by what overlaps, -1 as an empty cell."""
    kinds = list(measured.metrics)
    prefix = {kind: "" if kind == "bbox" else f"{SECTIONS[kind]}_" for kind in kinds}
    header = ["id", "name", "pictures", "objects", *(prefix[kind] + key for kind in kinds for key in _IN_CSV)]
    voc = measured.report.get("voc", {}).get("per_class", [])
    keys = [key for key in ("ap07", "ap10") if voc and key in voc[0]]
    rows = []
    for index, c in enumerate(measured.metrics["bbox"].per_class):
        numbers = [getattr(measured.metrics[kind].per_class[index], key) for kind in kinds for key in _IN_CSV]
        numbers += [voc[index][key] for key in keys]
        rows.append([c.id, _utf8(c.name), c.images, c.objects, *map(_cell, numbers)])
    return _csv([*header, *(f"voc_{key}" for key in keys)], rows)


def map_tables(metrics: SemanticMetrics) -> str:
    """The overall numbers of label maps, then a line per class."""
    meaning = {
        "pixel_accuracy": ("pixel accuracy", "share of the pixels that are right"),
        "mean_accuracy": ("mean accuracy", "share of a class's pixels that are found, mean over classes"),
        "miou": ("mean IoU", "overlap of regions, mean over classes"),
        "fwiou": ("weighted IoU", "overlap of regions, classes weighted by their pixels"),
        "dice": ("Dice", "agreement of regions, mean over classes"),
        "boundary_f": ("boundary F", "agreement of edges within 0.75 % of the diagonal, mean over classes"),
    }
    rows = [(meaning[key][0], shown(value), meaning[key][1]) for key, value in metrics.numbers().items()]
    header = ("class", "pictures", "pixels", "IoU", "Dice", "accuracy", "precision", "boundary F")
    classes = [(c.name, c.images, c.pixels, *(shown(getattr(c, key)) for key in _MAPS)) for c in metrics.per_class]
    return f"{table(('number', 'value', ''), rows, right=(1,))}\n\n{table(header, classes, right=range(1, 8))}"


def map_csv(metrics: SemanticMetrics) -> str:
    """A row per class."""
    rows = [
        [c.id, _utf8(c.name), c.images, c.pixels, *(_cell(getattr(c, key)) for key in _MAPS)] for c in metrics.per_class
    ]
    return _csv(["id", "name", "pictures", "pixels", *_MAPS], rows)


def shown(value: float) -> str:
    """Four digits, or a dash where there is nothing to measure."""
    return "-" if value < 0 else f"{value:.4f}"


def _utf8(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _cell(value: float) -> object:
    return "" if value < 0 else value


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
