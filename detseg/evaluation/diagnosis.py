"""Why are the numbers what they are: one `Diagnosis` of a set of detections. Torch-free."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import hotcoco
import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet
from detseg.annotations.outlines import Outlines
from detseg.evaluation.bootstrap import Evidence, Intervals, intervals
from detseg.evaluation.coco import filled_outlines, with_outlines
from detseg.evaluation.diagnosis_curves import Calibration, Curve, calibration, curves
from detseg.evaluation.diagnosis_labels import MOST, Kind, Suspect, WorstPicture, suspects, worst_pictures
from detseg.evaluation.matching import LEAST_IOU, Floats, Matches, Pairs, match, overlaps
from detseg.geometry.boxes import xyxy_to_xywh

IOU = 0.5  # the overlap from which a detection is on an object, in everything but AP
ERROR_KINDS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")


@dataclass(frozen=True, eq=False)
class Confusion:
    """matrix (K + 1, K + 1): rows are what is annotated, columns what was found there; the last of each is
    background: objects that nothing found, detections that are on nothing.

    Only detections with a score of at least `threshold`. Best score first, each takes the free object of its
    picture that it overlaps most, by at least `iou`, whatever the classes.
    """

    names: tuple[str, ...]
    matrix: NDArray[np.int64]
    threshold: float
    iou: float

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        names = [*self.names, "background"]
        return {"threshold": self.threshold, "iou": self.iou, "names": names, "matrix": self.matrix.tolist()}


@dataclass(frozen=True)
class ErrorKinds:
    """TIDE (Bolya et al. 2020, sec. 2.2-2.3): how often each kind of error occurs, and how much AP50 would gain if
    it were put right.

    Cls: right place, other class; Loc: overlap 0.1 to 0.5 with an object of the class; Both: the same with one of
    another class; Dupe: an object found again; Bkg: on nothing; Miss: objects that nothing came near. `gain`
    also has FP and FN: without any false detection, without any missed object.
    """

    ap50: float
    counts: dict[str, int]
    gain: dict[str, float]


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was found about a set of detections.

    `threshold`: the score from which detections are kept in the confusion matrix and among the worst pictures:
    the one with the highest F1 over all classes together. `suspects` are of each kind the first `MOST`, of
    `suspect_counts`. `matches` are at an overlap of `iou`, of all scores.
    """

    iou: float
    threshold: float
    overall: Curve
    classes: tuple[Curve, ...]
    confusion: Confusion
    calibration: Calibration | None
    errors: ErrorKinds
    worst: tuple[WorstPicture, ...]
    suspects: dict[Kind, tuple[Suspect, ...]]
    suspect_counts: dict[Kind, int]
    intervals: Intervals
    matches: Matches = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Everything but the matches as plain values."""
        return {
            "iou": self.iou,
            "threshold": self.threshold,
            "intervals": self.intervals.to_json(),
            "errors": asdict(self.errors),
            "calibration": None if self.calibration is None else asdict(self.calibration),
            "confusion": self.confusion.to_json(),
            "worst_pictures": [asdict(picture) for picture in self.worst],
            "suspects": {kind: [asdict(s) for s in listed] for kind, listed in self.suspects.items()},
            "suspect_counts": dict(self.suspect_counts),
            "curves": [curve.to_json() for curve in (self.overall, *self.classes)],
        }


def diagnose(
    truth: AnnotationSet,
    rows: Floats,
    *,
    max_dets: int = 100,
    outlines: Outlines | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Diagnosis:
    """Of detections (n, 7): picture index, x, y, w, h, score, class index.

    With `outlines` (n) overlaps are those of masks; what has none, on either side, has its box for a mask. Raises
    DataError for masks of a picture whose size is not known.
    """
    if outlines is not None:
        truth, outlines = with_outlines(truth), filled_outlines(truth, rows, outlines)
    pairs = overlaps(truth, rows, outlines=outlines)
    matches = match(truth, rows, IOU, pairs=pairs, max_dets=max_dets)
    overall, classes = curves(truth, rows, matches)
    threshold = 0.0 if overall.best_score is None else overall.best_score
    doubts = suspects(truth, rows, matches, pairs, threshold)
    return Diagnosis(
        iou=IOU,
        threshold=threshold,
        overall=overall,
        classes=classes,
        confusion=confusion(truth, rows, threshold, pairs=pairs),
        calibration=calibration(rows, matches),
        errors=error_kinds(truth, rows, max_dets, outlines),
        worst=worst_pictures(truth, rows, matches, threshold),
        suspects={kind: listed[:MOST] for kind, listed in doubts.items()},
        suspect_counts={kind: len(listed) for kind, listed in doubts.items()},
        intervals=intervals(Evidence.of(truth, rows, max_dets, pairs=pairs), resamples, seed),
        matches=matches,
    )


def confusion(
    truth: AnnotationSet, rows: Floats, threshold: float, iou: float = IOU, *, pairs: Pairs | None = None
) -> Confusion:
    """Which class was taken for which; see `Confusion`."""
    pairs = overlaps(truth, rows) if pairs is None else pairs
    kept = rows[:, 5] >= threshold
    matches = match(truth, rows, iou, pairs=pairs.where(kept[pairs.detection]), max_dets=None, across_classes=True)
    nothing = len(truth.categories)
    matrix = np.zeros((nothing + 1, nothing + 1), np.int64)
    found = rows[:, 6].astype(np.int64)
    on_object = kept & matches.right
    np.add.at(matrix, (truth.labels[matches.truth[on_object]], found[on_object]), 1)
    np.add.at(matrix[nothing], found[kept & matches.false], 1)
    np.add.at(matrix[:, nothing], truth.labels[~truth.ignored & (matches.found < 0)], 1)
    return Confusion(truth.categories.names, matrix, threshold, iou)


def error_kinds(
    truth: AnnotationSet, rows: Floats, max_dets: int = 100, outlines: Outlines | None = None
) -> ErrorKinds:
    """TIDE's kinds of errors, by hotcoco."""
    comparison = hotcoco.COCOeval(*_sides(truth, rows, outlines), "bbox" if outlines is None else "segm")
    comparison.params.maxDets = sorted({1, min(10, max_dets), max_dets})
    comparison.evaluate()
    told = comparison.tide_errors(IOU, LEAST_IOU)
    gain = {kind: float(told["delta_ap"].get(kind, 0.0)) for kind in (*ERROR_KINDS, "FP", "FN")}
    counts = {kind: int(told["counts"].get(kind, 0)) for kind in ERROR_KINDS}
    return ErrorKinds(float(told["ap_base"]), counts, gain)


def _sides(truth: AnnotationSet, rows: Floats, outlines: Outlines | None) -> tuple[Any, Any]:
    """Truth and detections for hotcoco, with indices for ids."""
    sizes, boxes, index = truth.image_hw.tolist(), xyxy_to_xywh(truth.boxes), truth.image_index
    images = [{"id": i, "height": h, "width": w} for i, (h, w) in enumerate(sizes)]
    categories = [{"id": k, "name": str(k)} for k in range(len(truth.categories))]
    if outlines is None:
        numbers = np.arange(1, len(truth.labels) + 1)
        columns = (index, truth.labels, boxes)
        known = hotcoco.COCO.from_arrays(
            images, categories, *columns, ids=numbers, area=truth.areas, iscrowd=truth.ignored
        )
        return known, known.load_res(rows) if len(rows) else hotcoco.COCO({**known.dataset, "annotations": []})
    listed = zip(index.tolist(), truth.labels.tolist(), boxes.tolist(), truth.ignored.tolist(), strict=True)
    annotations = [
        {"id": 1 + row, "image_id": i, "category_id": k, "bbox": box, "iscrowd": int(crowd)}
        | {"area": float(truth.areas[row]), "segmentation": _run_lengths(truth.outlines, row, sizes[i])}
        for row, (i, k, box, crowd) in enumerate(listed)
    ]
    known = hotcoco.COCO({"images": images, "categories": categories, "annotations": annotations})
    results = [
        {"image_id": int(i), "category_id": int(k), "score": score}
        | {"segmentation": _run_lengths(outlines, row, sizes[int(i)])}
        for row, (i, *_, score, k) in enumerate(rows.tolist())
    ]
    return known, known.load_res(results) if results else hotcoco.COCO({**known.dataset, "annotations": []})


def _run_lengths(outlines: Outlines, row: int, hw: tuple[int, int]) -> dict[str, Any]:
    coded = outlines.rle(row, hw)
    return {**coded, "counts": coded["counts"].decode("ascii")}
