"""COCO's evaluation of boxes and masks; every number is pycocotools' on the same files, to the last bit.

Boxes and masks are compared by hotcoco, boundaries by `coco_rule`. n: detections, T: 10 overlap thresholds, R: 101
recall points, K: classes sorted by id, 4 area ranges, D: caps on the detections per picture and class.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import hotcoco
import msgspec
import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet
from detseg.annotations.coco import to_coco
from detseg.annotations.outlines import FARTHEST, Outlines, Segmentation, text_of
from detseg.errors import DataError
from detseg.evaluation import records
from detseg.evaluation.metrics import TWELVE, ClassMetrics, DetectionMetrics, Kind
from detseg.geometry.boxes import xywh_to_xyxy, xyxy_to_xywh
from detseg.results import Detections

_ALL, _AREAS = 0, ("small", "medium", "large")
_AP50, _AP75 = 0, 5  # among the overlap thresholds 0.50, 0.55, ... 0.95


def evaluate(truth: AnnotationSet, detections: Sequence[Detections], max_dets: int = 100) -> DetectionMetrics:
    """Compares detections, one `Detections` for each picture of `truth` in its order, with what is there.

    Labels are indices into `truth.categories`. Crowd and difficult objects are COCO's crowds: finding them or
    not counts neither way. Raises ValueError when the two sides do not belong together.
    """
    return evaluate_rows(truth, result_rows(truth, detections), max_dets)


def evaluate_rows(
    truth: AnnotationSet,
    rows: NDArray[np.float64],
    max_dets: int = 100,
    *,
    kind: Kind = "bbox",
    outlines: Outlines | None = None,
    areas: NDArray[np.float64] | None = None,
) -> DetectionMetrics:
    """The same for detections as rows (n, 7), see `result_rows`.

    outlines (n) are the detections' masks; a row without one has its box for a mask, and so has an object of the
    truth. areas (n,) put detections into COCO's ranges of size; unless given they are the boxes'. Raises DataError
    for masks of a picture whose size is not known.
    """
    caps = sorted({1, min(10, max_dets), max_dets})
    if kind == "bbox":
        precision, recall = _by_hotcoco(_known(truth), truth, rows, areas, caps)
    else:
        truth = with_outlines(truth)
        shapes = filled_outlines(truth, rows, outlines)
        if kind == "segm":
            precision, recall = _by_hotcoco(_known(truth, masks=True), truth, rows, areas, caps, shapes)
        else:
            precision, recall = _by_boundary(truth, rows, areas, caps, shapes)
    numbers = _twelve(precision, recall, caps.index(min(10, max_dets)))
    return DetectionMetrics(
        **dict(zip(TWELVE, numbers, strict=True)),
        max_dets=max_dets,
        images=len(truth),
        objects=int(np.count_nonzero(~truth.ignored)),
        detections=len(rows),
        per_class=_per_class(truth, precision, recall),
        kind=kind,
    )


def result_rows(truth: AnnotationSet, detections: Sequence[Detections]) -> NDArray[np.float64]:
    """(n, 7) picture index, x, y, w, h, score, class index, in double precision: exactly what is evaluated."""
    if len(detections) != len(truth):
        raise ValueError(f"{len(detections)} pictures were detected on, but the truth has {len(truth)}")
    if not len(detections):
        return np.zeros((0, 7))
    labels = np.concatenate([found.labels for found in detections])
    if len(labels) and labels.max() >= len(truth.categories):
        raise ValueError(f"class index {labels.max()} but the truth has {len(truth.categories)} classes")
    boxes = np.concatenate([found.boxes for found in detections]).astype(np.float64)
    scores = np.concatenate([found.scores for found in detections]).astype(np.float64)
    pictures = np.repeat(np.arange(len(truth)), [len(found) for found in detections])
    return np.column_stack([pictures, xyxy_to_xywh(boxes), scores, labels])


def result_outlines(truth: AnnotationSet, detections: Sequence[Detections]) -> Outlines | None:
    """(n) the masks of the same detections, in the order of `result_rows`; None where none of them has one.

    Raises DataError where a picture is of another size than its annotations say.
    """
    if all(found.masks is None for found in detections):
        return None
    texts: list[bytes] = []
    for index, found in enumerate(detections):
        if found.masks is None:
            texts += [b""] * len(found)
            continue
        h, w = truth.image_hw[index].tolist()
        if min(h, w) > 0 and len(found) and tuple(found.image_hw) != (h, w):
            raise DataError(
                f"{truth.image_path(index)}: is {found.image_hw[1]}x{found.image_hw[0]}, its annotations say {w}x{h}; "
                "masks of two sizes cannot be compared: correct the annotations, or measure boxes"
            )
        texts += [text_of(found.masks.segmentation(row)) for row in range(len(found))]
    return Outlines.of_texts(texts)


# ---- what is written: files on which pycocotools gives the same numbers ----


def results_bytes(
    truth: AnnotationSet, rows: NDArray[np.float64], outlines: Outlines | None = None, *, boxes: bool = True
) -> bytes:
    """COCO's results list of the rows as JSON; reading it again gives the same numbers to the last bit.

    With `outlines` each object has its `segmentation`; without `boxes` nothing but that, so that pycocotools takes
    box and area from it.
    """
    pictures = truth.image_ids[rows[:, 0].astype(np.int64)]
    classes = np.asarray(truth.categories.ids, np.int64)[rows[:, 6].astype(np.int64)]
    if outlines is None:
        return records.write(pictures, classes, rows[:, 1:6])
    shapes = filled_outlines(truth, rows, outlines)
    if not boxes:  # pycocotools takes the area of compressed run lengths only
        sizes = truth.image_hw[rows[:, 0].astype(np.int64)].tolist()
        shapes = Outlines.of([shapes.rle(row, (h, w)) for row, (h, w) in enumerate(sizes)])
    texts = list(shapes.texts())
    return records.write_outlined(pictures.tolist(), classes.tolist(), rows[:, 1:6], texts, boxes=boxes)


def results_json(truth: AnnotationSet, rows: NDArray[np.float64]) -> list[dict[str, Any]]:
    """COCO's results list of the rows as plain values."""
    written: list[dict[str, Any]] = msgspec.json.decode(results_bytes(truth, rows))
    return written


def truth_json(truth: AnnotationSet) -> dict[str, Any]:
    """The truth as COCO's JSON, exactly as it is evaluated.

    Annotations are numbered from 1 whatever the data set calls them: pycocotools takes a detection matched
    with the annotation of id 0 for one without match, and repeated ids for one annotation.
    """
    return to_coco(replace(truth, ids=_numbers(truth)))


def truth_bytes(truth: AnnotationSet) -> bytes:
    """`truth_json` as a line of text."""
    content = truth_json(truth)
    try:
        return msgspec.json.encode(content) + b"\n"
    except UnicodeEncodeError:  # a file name that is not UTF-8 is escaped
        return json.dumps(content).encode() + b"\n"


def with_outlines(truth: AnnotationSet) -> AnnotationSet:
    """The truth in which every object has an outline: its box where it had none."""
    return replace(truth, outlines=_filled(truth.outlines, truth.boxes))


def filled_outlines(truth: AnnotationSet, rows: NDArray[np.float64], outlines: Outlines | None) -> Outlines:
    """(n) the outlines of the rows, the box where there is none. Raises DataError where a picture's size is unknown."""
    unknown = truth.image_hw.min(axis=1) < 1 if len(truth) else np.zeros(0, np.bool_)
    if unknown.any():
        name = truth.image_files[int(np.argmax(unknown))]
        raise DataError(f"{truth.root / name}: its size is not known, and masks need it; give width and height")
    boxes = xywh_to_xyxy(rows[:, 1:5])
    return _filled(Outlines.none(len(rows)) if outlines is None else outlines, boxes)


def _filled(outlines: Outlines, boxes: NDArray[Any]) -> Outlines:
    if outlines.has.all():
        return outlines
    drawable = np.clip(boxes, -FARTHEST, FARTHEST)
    corners = zip(outlines.has.tolist(), drawable.tolist(), strict=True)  # in pycocotools' order, for equal masks
    drawn: list[Segmentation | None] = [
        None if has else [[x1, y1, x1, y2, x2, y2, x2, y1]] for has, (x1, y1, x2, y2) in corners
    ]
    both = Outlines.concatenate([outlines, Outlines.of(drawn)])
    return both[np.where(outlines.has, np.arange(len(boxes)), len(boxes) + np.arange(len(boxes)))]


# ---- the comparison ----


def _by_hotcoco(
    known: Any,
    truth: AnnotationSet,
    rows: NDArray[np.float64],
    areas: NDArray[np.float64] | None,
    caps: list[int],
    shapes: Outlines | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(T, R, K, 4, D) precision and (T, K, 4, D) recall."""
    comparison = hotcoco.COCOeval(known, _found(truth, rows, known, areas, shapes), "segm" if shapes else "bbox")
    comparison.params.maxDets = caps
    comparison.evaluate()
    comparison.accumulate()
    curves: dict[str, Any] = comparison.eval or {}
    return curves["precision"], curves["recall"]


def _by_boundary(
    truth: AnnotationSet,
    rows: NDArray[np.float64],
    areas: NDArray[np.float64] | None,
    caps: list[int],
    shapes: Outlines,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from detseg.evaluation import boundary, coco_rule

    return coco_rule.curves(
        truth,
        rows,
        areas=rows[:, 3] * rows[:, 4] if areas is None else areas,
        caps=caps,
        overlaps=boundary.Overlaps(truth, rows, shapes),
    )


def _numbers(truth: AnnotationSet) -> NDArray[np.int64]:
    return np.arange(1, len(truth.labels) + 1)


def ranks(ids: Any) -> NDArray[np.int64]:
    """The place of each id among all: what counts in the evaluation is only their order, which ids keep."""
    return np.argsort(np.argsort(np.asarray(ids, np.int64))).astype(np.int64)


def _known(truth: AnnotationSet, *, masks: bool = False) -> Any:
    """The truth for hotcoco, ids replaced by their ranks (it takes no negative ones)."""
    images, categories = ranks(truth.image_ids), ranks(truth.categories.ids)
    sizes = zip(images.tolist(), truth.image_files, truth.image_hw.tolist(), strict=True)
    return hotcoco.COCO.from_arrays(
        [{"id": rank, "file_name": name, "height": h, "width": w} for rank, name, (h, w) in sizes],
        [{"id": int(rank), "name": name} for rank, name in zip(categories, truth.categories.names, strict=True)],
        images[truth.image_index],
        categories[truth.labels],
        xyxy_to_xywh(truth.boxes),
        ids=_numbers(truth),
        area=truth.areas,
        iscrowd=truth.ignored,
        segmentation=_values(truth.outlines) if masks else None,
    )


def _found(
    truth: AnnotationSet,
    rows: NDArray[np.float64],
    known: Any,
    areas: NDArray[np.float64] | None,
    shapes: Outlines | None,
) -> Any:
    """The detections for hotcoco."""
    if not len(rows):
        return hotcoco.COCO({**known.dataset, "annotations": []})
    pictures, labels = rows[:, 0].astype(np.int64), rows[:, 6].astype(np.int64)
    renamed = [ranks(truth.image_ids)[pictures], rows[:, 1:6], ranks(truth.categories.ids)[labels]]
    if shapes is None:
        found = known.load_res(np.column_stack(renamed))
    else:
        found = known.load_res(np.column_stack(renamed), segmentation=_values(shapes))
    if areas is not None:
        found.update_anns([{"id": i, "area": area} for i, area in enumerate(areas.tolist(), 1)])
    return found


def _values(outlines: Outlines) -> list[Any]:
    return [outlines.segmentation(row) for row in range(len(outlines))]


def _twelve(precision: NDArray[np.float64], recall: NDArray[np.float64], at_10: int) -> list[float]:
    """COCO's numbers in its order; means are taken as pycocotools takes them, so that the last bit agrees."""
    ap = [precision[..., _ALL, -1], precision[_AP50, ..., _ALL, -1], precision[_AP75, ..., _ALL, -1]]
    ap += [precision[..., 1 + area, -1] for area in range(len(_AREAS))]
    ar = [recall[..., _ALL, cap] for cap in (0, at_10, -1)]
    ar += [recall[..., 1 + area, -1] for area in range(len(_AREAS))]
    return [_mean(values) for values in ap + ar]


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of what is defined; -1 where nothing is."""
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else -1.0


def _per_class(
    truth: AnnotationSet, precision: NDArray[np.float64], recall: NDArray[np.float64]
) -> tuple[ClassMetrics, ...]:
    """One entry for each class of `truth.categories`, in its order."""
    counted = ~truth.ignored
    labels, pictures = truth.labels[counted], truth.image_index[counted]
    size = len(truth.categories)
    objects = np.bincount(labels, minlength=size)
    shown = np.sort(pictures * size + labels)  # np.unique would import a tenth of a second of numpy.ma
    images = np.bincount(shown[np.diff(shown, prepend=-1) > 0] % max(size, 1), minlength=size)
    # a class and range of sizes is defined throughout or nowhere: then its mean is -1 of itself
    of_precision = np.ascontiguousarray(precision[..., -1].transpose(2, 3, 0, 1))  # (K, 4, T, R)
    ap = of_precision.reshape(*of_precision.shape[:2], -1).mean(axis=-1).tolist()
    at_one = of_precision.mean(axis=-1).tolist()
    ar = np.ascontiguousarray(recall[..., -1].transpose(1, 2, 0)).mean(axis=-1).tolist()
    classes = []
    for index, k in enumerate(ranks(truth.categories.ids).tolist()):
        classes.append(
            ClassMetrics(
                name=truth.categories.names[index],
                id=truth.categories.ids[index],
                images=int(images[index]),
                objects=int(objects[index]),
                ap=ap[k][_ALL],
                ap50=at_one[k][_ALL][_AP50],
                ap75=at_one[k][_ALL][_AP75],
                ar=ar[k][_ALL],
                **{f"ap_{name}": ap[k][1 + area] for area, name in enumerate(_AREAS)},
                **{f"ar_{name}": ar[k][1 + area] for area, name in enumerate(_AREAS)},
            )
        )
    return tuple(classes)
