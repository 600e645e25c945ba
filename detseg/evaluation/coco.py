"""COCO's evaluation of boxes, by hotcoco; every number is pycocotools' on the same files, to the last bit.

n: detections, T: 10 overlap thresholds, R: 101 recall points, K: classes sorted by id, 4 area
ranges, D: caps on the detections per picture and class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hotcoco
import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet
from detseg.evaluation.metrics import TWELVE, ClassMetrics, DetectionMetrics
from detseg.geometry.boxes import xyxy_to_xywh
from detseg.results import Detections

_ALL, _AREAS = 0, ("small", "medium", "large")
_AP50, _AP75 = 0, 5  # among the overlap thresholds 0.50, 0.55, ... 0.95


def evaluate(truth: AnnotationSet, detections: Sequence[Detections], max_dets: int = 100) -> DetectionMetrics:
    """Compares detections, one `Detections` for each picture of `truth` in its order, with what is there.

    Labels are indices into `truth.categories`. Crowd and difficult objects are COCO's crowds: finding them or
    not counts neither way. Raises ValueError when the two sides do not belong together.
    """
    rows = result_rows(truth, detections)
    known = _as_hotcoco(truth)
    found = known.load_res(rows) if len(rows) else hotcoco.COCO({**known.dataset, "annotations": []})
    comparison = hotcoco.COCOeval(known, found, "bbox")
    caps = sorted({1, min(10, max_dets), max_dets})
    comparison.params.maxDets = caps
    comparison.evaluate()
    comparison.accumulate()
    curves: dict[str, Any] = comparison.eval or {}
    precision, recall = curves["precision"], curves["recall"]  # (T, R, K, 4, D), (T, K, 4, D)
    numbers = _twelve(precision, recall, caps.index(min(10, max_dets)))
    return DetectionMetrics(
        **dict(zip(TWELVE, numbers, strict=True)),
        max_dets=max_dets,
        images=len(truth),
        objects=int(np.count_nonzero(~truth.ignored)),
        detections=len(rows),
        per_class=_per_class(truth, precision, recall),
    )


def result_rows(truth: AnnotationSet, detections: Sequence[Detections]) -> NDArray[np.float64]:
    """(n, 7) image id, x, y, w, h, score, category id, in double precision: exactly what is evaluated."""
    if len(detections) != len(truth):
        raise ValueError(f"{len(detections)} pictures were detected on, but the truth has {len(truth)}")
    if not len(detections):
        return np.zeros((0, 7))
    labels = np.concatenate([found.labels for found in detections])
    if len(labels) and labels.max() >= len(truth.categories):
        raise ValueError(f"class index {labels.max()} but the truth has {len(truth.categories)} classes")
    boxes = np.concatenate([found.boxes for found in detections]).astype(np.float64)
    scores = np.concatenate([found.scores for found in detections]).astype(np.float64)
    image_ids = np.repeat(truth.image_ids, [len(found) for found in detections])
    category_ids = np.asarray(truth.categories.ids, np.int64)[labels]
    return np.column_stack([image_ids, xyxy_to_xywh(boxes), scores, category_ids])


def results_json(rows: NDArray[np.float64]) -> list[dict[str, Any]]:
    """COCO's results list of the rows; reading it again gives the same numbers to the last bit."""
    return [
        {"image_id": int(image), "category_id": int(category), "bbox": [x, y, w, h], "score": score}
        for image, x, y, w, h, score, category in rows.tolist()
    ]


def truth_json(truth: AnnotationSet) -> dict[str, Any]:
    """The truth as COCO's JSON, exactly as it is evaluated.

    Annotations are numbered from 1 whatever the data set calls them: pycocotools takes a detection matched
    with the annotation of id 0 for one without match, and repeated ids for one annotation.
    """
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": area,
            "iscrowd": int(ignored),
        }
        for number, (image, category, box, area, ignored) in enumerate(
            zip(*(column.tolist() for column in _columns(truth)), strict=True), start=1
        )
    ]
    return {"images": _images(truth), "annotations": annotations, "categories": truth.categories.to_json()}


def _columns(truth: AnnotationSet) -> tuple[NDArray[Any], ...]:
    """Image id, category id, xywh, area, ignored of every annotation."""
    return (
        truth.image_ids[truth.image_index],
        np.asarray(truth.categories.ids, np.int64)[truth.labels],
        xyxy_to_xywh(truth.boxes),
        truth.areas,
        truth.ignored,
    )


def _images(truth: AnnotationSet) -> list[dict[str, Any]]:
    return [
        {"id": id_, "file_name": name, "height": h, "width": w}
        for id_, name, (h, w) in zip(
            truth.image_ids.tolist(), truth.image_files, truth.image_hw.tolist(), strict=True
        )
    ]


def _as_hotcoco(truth: AnnotationSet) -> Any:
    image_ids, category_ids, boxes, areas, ignored = _columns(truth)
    return hotcoco.COCO.from_arrays(
        _images(truth),
        truth.categories.to_json(),
        image_ids,
        category_ids,
        boxes,
        ids=np.arange(1, len(boxes) + 1),
        area=areas,
        iscrowd=ignored,
    )


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
    position = {id_: k for k, id_ in enumerate(sorted(truth.categories.ids))}
    counted = ~truth.ignored
    classes = []
    for index, (id_, name) in enumerate(zip(truth.categories.ids, truth.categories.names, strict=True)):
        mine, k = counted & (truth.labels == index), position[id_]
        classes.append(
            ClassMetrics(
                name=name,
                id=id_,
                images=len(np.unique(truth.image_index[mine])),
                objects=int(np.count_nonzero(mine)),
                ap=_mean(precision[:, :, k, _ALL, -1]),
                ap50=_mean(precision[_AP50, :, k, _ALL, -1]),
                ar=_mean(recall[:, k, _ALL, -1]),
            )
        )
    return tuple(classes)
