"""COCO's evaluation of boxes, by hotcoco; every number is pycocotools' on the same files, to the last bit.

n: detections, T: 10 overlap thresholds, R: 101 recall points, K: classes sorted by id, 4 area
ranges, D: caps on the detections per picture and class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import hotcoco
import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet
from detseg.annotations.coco import to_coco
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
    return evaluate_rows(truth, result_rows(truth, detections), max_dets)


def evaluate_rows(truth: AnnotationSet, rows: NDArray[np.float64], max_dets: int = 100) -> DetectionMetrics:
    """The same for detections as rows (n, 7), see `result_rows`."""
    known = _known(truth)
    found = _found(truth, rows, known)
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


def results_json(truth: AnnotationSet, rows: NDArray[np.float64]) -> list[dict[str, Any]]:
    """COCO's results list of the rows; reading it again gives the same numbers to the last bit."""
    image_ids, category_ids = truth.image_ids.tolist(), truth.categories.ids
    return [
        {
            "image_id": image_ids[int(picture)],
            "category_id": category_ids[int(label)],
            "bbox": [x, y, w, h],
            "score": score,
        }
        for picture, x, y, w, h, score, label in rows.tolist()
    ]


def truth_json(truth: AnnotationSet) -> dict[str, Any]:
    """The truth as COCO's JSON, exactly as it is evaluated.

    Annotations are numbered from 1 whatever the data set calls them: pycocotools takes a detection matched
    with the annotation of id 0 for one without match, and repeated ids for one annotation.
    """
    return to_coco(replace(truth, ids=_numbers(truth)))


def _numbers(truth: AnnotationSet) -> NDArray[np.int64]:
    return np.arange(1, len(truth.labels) + 1)


def _ranks(ids: Any) -> NDArray[np.int64]:
    """The place of each id among all: what counts in the evaluation is only their order, which ids keep."""
    return np.argsort(np.argsort(np.asarray(ids, np.int64))).astype(np.int64)


def _known(truth: AnnotationSet) -> Any:
    """The truth for hotcoco, ids replaced by their ranks (it takes no negative ones)."""
    images, categories = _ranks(truth.image_ids), _ranks(truth.categories.ids)
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
    )


def _found(truth: AnnotationSet, rows: NDArray[np.float64], known: Any) -> Any:
    """The detections for hotcoco."""
    if not len(rows):
        return hotcoco.COCO({**known.dataset, "annotations": []})
    pictures, labels = rows[:, 0].astype(np.int64), rows[:, 6].astype(np.int64)
    renamed = [_ranks(truth.image_ids)[pictures], rows[:, 1:6], _ranks(truth.categories.ids)[labels]]
    return known.load_res(np.column_stack(renamed))


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
    classes = []
    for index, k in enumerate(_ranks(truth.categories.ids).tolist()):
        mine = counted & (truth.labels == index)
        classes.append(
            ClassMetrics(
                name=truth.categories.names[index],
                id=truth.categories.ids[index],
                images=len(np.unique(truth.image_index[mine])),
                objects=int(np.count_nonzero(mine)),
                ap=_mean(precision[:, :, k, _ALL, -1]),
                ap50=_mean(precision[_AP50, :, k, _ALL, -1]),
                ar=_mean(recall[:, k, _ALL, -1]),
            )
        )
    return tuple(classes)
