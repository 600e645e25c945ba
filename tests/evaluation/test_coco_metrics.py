"""Oracle: pycocotools, on the files that are written."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detseg.annotations import AnnotationSet, Categories
from detseg.evaluation import DetectionMetrics, evaluate, result_rows, results_json, truth_json
from detseg.results import Detections


def random_truth(seed: int, pictures: int = 40, objects: int = 150) -> AnnotationSet:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 400, (objects, 2))
    sides = rng.exponential(70, (objects, 2)) + 1
    return AnnotationSet.from_columns(
        root=Path(),
        format="made",
        categories=Categories((90, 3, 1, 44, 7), ("zebra", "ant", "bee", "cat", "never seen")),
        image_files=[f"{i}.jpg" for i in range(pictures)],
        image_hw=np.tile([480, 640], (pictures, 1)),
        image_ids=rng.permutation(1000)[:pictures],
        image_index=rng.integers(0, pictures - 5, objects),  # the last pictures show nothing
        boxes=np.concatenate([corners, corners + sides], axis=1).round(2),
        areas=sides.prod(axis=1) * rng.uniform(0.4, 1, objects),
        labels=rng.integers(0, 4, objects),
        ids=np.arange(objects),
        crowd=rng.random(objects) < 0.1,
        difficult=rng.random(objects) < 0.1,
    )


def jittered(truth: AnnotationSet, seed: int, per_object: int = 4, noise: float = 6.0) -> list[Detections]:
    """Truth boxes moved about, some of a wrong class, scores with many ties, and strays in every picture."""
    rng = np.random.default_rng(seed)
    found = []
    for image in range(len(truth)):
        rows = np.repeat(np.arange(truth.starts[image], truth.starts[image + 1]), per_object)
        boxes = truth.boxes[rows] + rng.normal(0, noise, (len(rows), 4))
        strays = rng.uniform(0, 300, (3, 2))
        boxes = np.concatenate([boxes, np.concatenate([strays, strays + rng.uniform(5, 90, (3, 2))], axis=1)])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
        wrong = rng.integers(0, len(truth.categories), len(boxes))
        labels = np.concatenate([truth.labels[rows], np.zeros(3, np.int64)])
        labels = np.where(rng.random(len(boxes)) < 0.15, wrong, labels)
        scores = rng.random(len(boxes)).round(2).astype(np.float32)
        found.append(Detections((480, 640), boxes.astype(np.float32), scores, labels))
    return found


def pycocotools_on_files(
    folder: Path, truth: AnnotationSet, detections: list[Detections], max_dets: int = 100
) -> COCOeval:
    (folder / "truth.json").write_text(json.dumps(truth_json(truth)))
    (folder / "predictions.json").write_text(json.dumps(results_json(truth, result_rows(truth, detections))))
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(folder / "truth.json")
        comparison = COCOeval(known, known.loadRes(str(folder / "predictions.json")), "bbox")
        comparison.params.maxDets = [1, 10, max_dets]
        comparison.evaluate()
        comparison.accumulate()
        comparison.summarize()
    return comparison


def expect_same_bits(metrics: DetectionMetrics, oracle: COCOeval) -> None:
    twelve = list(metrics.twelve().values())
    precision, recall = oracle.eval["precision"], oracle.eval["recall"]
    everything = precision[..., 0, -1]
    # its own summary of AP looks only for a cap of 100 and says -1 otherwise
    expected = [everything[everything > -1].mean(), *oracle.stats[1:]]
    assert twelve == expected
    for entry in metrics.per_class:
        k = list(oracle.params.catIds).index(entry.id)
        mine, recalled = precision[:, :, k, 0, -1], recall[:, k, 0, -1]
        assert entry.ap == (mine[mine > -1].mean() if (mine > -1).any() else -1)
        assert entry.ap50 == (mine[0].mean() if (mine > -1).any() else -1)
        assert entry.ar == (recalled.mean() if (recalled > -1).any() else -1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("max_dets", [100, 300, 12])
def test_same_bits_as_pycocotools(tmp_path: Path, seed: int, max_dets: int) -> None:
    truth = random_truth(seed)
    detections = jittered(truth, seed)
    metrics = evaluate(truth, detections, max_dets)
    expect_same_bits(metrics, pycocotools_on_files(tmp_path, truth, detections, max_dets))
    assert 0 < metrics.ap < 1
    if max_dets == 100:
        assert metrics.ap == pycocotools_on_files(tmp_path, truth, detections).stats[0]


def test_truth_found_exactly_is_perfect() -> None:
    truth = random_truth(5)
    truth = replace(truth, boxes=truth.boxes.round(), crowd=truth.crowd & False, difficult=truth.difficult & False)
    found = [
        Detections(
            (480, 640),
            truth.boxes[truth.rows(i)].astype(np.float32),
            np.full(int(np.diff(truth.starts)[i]), 0.5, np.float32),
            truth.labels[truth.rows(i)],
        )
        for i in range(len(truth))
    ]
    metrics = evaluate(truth, found)
    assert metrics.ap == pytest.approx(1)
    assert metrics.ar_max == 1
    assert [c.ap for c in metrics.per_class] == [*[pytest.approx(1)] * 4, -1]  # one class is never seen


def test_what_is_found_or_missed_of_ignored_objects_counts_neither_way() -> None:
    truth = random_truth(6)
    without = [found[:0] for found in jittered(truth, 0)]
    ignored_only = []
    for i, empty in enumerate(without):
        rows = np.flatnonzero(truth.ignored[truth.rows(i)]) + truth.starts[i]
        boxes = truth.boxes[rows].astype(np.float32)
        ignored_only.append(
            replace(empty, boxes=boxes, scores=np.full(len(rows), 0.9, np.float32), labels=truth.labels[rows])
        )
    found = jittered(truth, 1)
    both = [
        replace(
            a,
            boxes=np.concatenate([a.boxes, b.boxes]),
            scores=np.concatenate([a.scores, b.scores]),
            labels=np.concatenate([a.labels, b.labels]),
        )
        for a, b in zip(found, ignored_only, strict=True)
    ]
    assert evaluate(truth, ignored_only).ap == 0
    assert evaluate(truth, both, 1000).ap50 == evaluate(truth, found, 1000).ap50


def test_nothing_found_nothing_there_nothing_at_all() -> None:
    truth = random_truth(7)
    empty = [Detections((480, 640)) for _ in range(len(truth))]
    assert evaluate(truth, empty).ap == 0
    assert evaluate(truth, empty).ar_max == 0
    pictures_only = truth.subset(np.arange(len(truth) - 5, len(truth)))
    assert evaluate(pictures_only, jittered(pictures_only, 0)).ap == -1
    assert evaluate(pictures_only, empty[:5]).ap == -1
    assert evaluate(truth.subset([]), []).ap == -1


def test_an_annotation_of_id_0_counts_like_any_other(tmp_path: Path) -> None:
    truth = random_truth(8)
    assert 0 in truth.ids
    detections = jittered(truth, 8, noise=0)
    shifted = replace(truth, ids=truth.ids + 1)
    assert evaluate(truth, detections) == evaluate(shifted, detections)
    expect_same_bits(evaluate(truth, detections), pycocotools_on_files(tmp_path, truth, detections))


def test_sides_that_do_not_belong_together_are_refused() -> None:
    truth = random_truth(9)
    with pytest.raises(ValueError, match="39 pictures"):
        evaluate(truth, jittered(truth, 0)[1:])
    few = replace(truth, categories=Categories((1, 2), ("a", "b")), labels=truth.labels % 2)
    with pytest.raises(ValueError, match="has 2 classes"):
        evaluate(few, jittered(truth, 0))


def test_what_is_written_is_what_was_found() -> None:
    truth = random_truth(10)
    detections = jittered(truth, 10)
    written = results_json(truth, result_rows(truth, detections))
    for index, found in enumerate(detections):
        mine = [row for row in written if row["image_id"] == truth.image_ids[index]]
        assert [row["score"] for row in mine] == found.scores.tolist()
        assert [truth.categories.index_of_id[row["category_id"]] for row in mine] == found.labels.tolist()
        x, y, w, h = np.array([row["bbox"] for row in mine]).T
        assert np.array_equal(np.stack([x, y, x + w, y + h], axis=1), found.boxes.astype(np.float64))


def test_ids_may_be_negative_or_very_long(tmp_path: Path) -> None:
    truth = random_truth(11)
    long = replace(
        truth,
        image_ids=truth.image_ids + 9_100_000_000_000_000_001,
        categories=Categories((-5, 3, 0, 44, -70), truth.categories.names),
    )
    detections = jittered(truth, 11)
    expect_same_bits(evaluate(long, detections), pycocotools_on_files(tmp_path, long, detections))


@pytest.mark.data
def test_same_bits_on_real_annotations_with_crowds(data_dir: Path, tmp_path: Path) -> None:
    from detseg.annotations import load

    truth = load(data_dir / "coco-val")
    assert truth.crowd.any()
    detections = jittered(truth, 0, per_object=2)
    expect_same_bits(evaluate(truth, detections), pycocotools_on_files(tmp_path, truth, detections))
