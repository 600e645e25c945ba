"""Random worlds: boxes, masks and boundaries against pycocotools on the files that are written, to the last bit."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detseg.annotations import AnnotationSet, Categories, load
from detseg.annotations.outlines import Outlines
from detseg.evaluation import (
    TWELVE,
    Kind,
    coco_rule,
    evaluate_rows,
    read_predictions,
    results_bytes,
    truth_bytes,
    with_outlines,
)
from detseg.evaluation.boundary import distance, region

HW = (60, 80)
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # within pycocotools


class World(NamedTuple):
    """A truth, detections, and how they are compared."""

    truth: AnnotationSet
    rows: NDArray[np.float64]
    outlines: Outlines | None
    areas: NDArray[np.float64] | None
    max_dets: int


def some_boxes(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """(n, 4) xyxy; multiples of 4 and few sizes, so that overlaps tie and meet thresholds exactly."""
    low = rng.integers(0, 10, (count, 2)) * 4.0
    return np.concatenate([low, np.minimum(low + rng.integers(1, 11, (count, 2)) * 4.0, HW[::-1])], axis=1)


def some_outlines(rng: np.random.Generator, boxes: NDArray[np.float64]) -> Outlines:
    """Boxes with holes as run lengths in both forms, polygons, and some without."""
    values = []
    for x1, y1, x2, y2 in boxes.astype(int).tolist():
        mask = np.zeros(HW, np.uint8)
        mask[y1:y2, x1:x2] = rng.random((y2 - y1, x2 - x1)) < 0.9
        coded = coco_mask.encode(np.asfortranarray(mask))
        runs = np.diff(np.flatnonzero(np.diff(np.r_[2, mask.T.ravel(), 2])))
        runs = runs.tolist() if not mask[0, 0] else [0, *runs.tolist()]
        kinds = [
            {"size": list(HW), "counts": coded["counts"].decode()},
            {"size": list(HW), "counts": runs},
            [[x1, y1, x2, y1, x2, y2, x1, y2], [x1, y1, x2, y1, (x1 + x2) / 2, y2]],
            None,
        ]
        values.append(kinds[rng.choice(4, p=[0.4, 0.2, 0.3, 0.1])])
    return Outlines.of(values)


@st.composite
def worlds(draw: st.DrawFn, masks: bool = False) -> World:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    pictures, classes = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    objects, found = draw(st.integers(0, 14)), draw(st.integers(0, 40))
    first = draw(st.sampled_from([0, 1, 17]))
    # the last pictures show nothing, but something is found on them
    boxes = some_boxes(rng, objects)
    index = rng.integers(0, max(1, pictures - draw(st.integers(0, 2))), objects)
    truth = AnnotationSet.from_columns(
        root=Path(),
        format="made",
        categories=Categories(tuple(rng.permutation(90)[:classes].tolist()), tuple("abcd"[:classes])),
        image_files=[f"{i}.jpg" for i in range(pictures)],
        image_hw=np.tile(HW, (pictures, 1)),
        image_ids=rng.permutation(50)[:pictures] * draw(st.sampled_from([1, 7])),
        image_index=index,
        boxes=boxes,
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * rng.choice([0.5, 1, 1024 / 400, 9], objects),
        labels=rng.integers(0, classes, objects),
        ids=np.arange(objects) + first,
        crowd=rng.random(objects) < draw(st.sampled_from([0, 0.3])),
        outlines=some_outlines(rng, boxes) if masks else None,
    )
    near = rng.integers(0, objects, found) if objects else np.zeros(found, int)
    exact = (rng.random(found) < 0.6) & (objects > 0)
    theirs = some_boxes(rng, found)
    theirs[exact] = truth.boxes[near[exact]]
    where, label = rng.integers(0, pictures, found), rng.integers(0, classes, found)
    where[exact], label[exact] = truth.image_index[near[exact]], truth.labels[near[exact]]
    scores = rng.choice([0.1, 0.5, 0.5, 0.9, 1.0], found) if draw(st.booleans()) else rng.random(found)
    rows = np.column_stack([where, theirs[:, :2], theirs[:, 2:] - theirs[:, :2], scores, label]).astype(np.float64)
    outlines = some_outlines(rng, theirs) if masks else None
    areas = None
    if outlines is not None and draw(st.booleans()):  # nothing but masks: box and area are theirs
        outlines = outlines[outlines.has]
        rows = rows[: len(outlines)]
        coded = [outlines.rle(i, HW) for i in range(len(outlines))]
        areas = np.array([coco_mask.area(c) for c in coded], np.float64)
        rows[:, 1:5] = np.array([coco_mask.toBbox(c) for c in coded]).reshape(-1, 4)
    return World(truth, rows, outlines, areas, draw(st.sampled_from([1, 10, 100, 300])))


class BoundaryEval(COCOeval):
    """pycocotools with other overlaps: regions drawn pixel by pixel."""

    def computeIoU(self, imgId: int, catId: int) -> NDArray[np.float64] | list[float]:
        there, found = self._gts[imgId, catId], self._dts[imgId, catId]
        order = np.argsort([-d["score"] for d in found], kind="mergesort")[: self.params.maxDets[-1]]
        found = [found[i] for i in order]
        overlaps = np.zeros((len(found), len(there)))
        for i, d in enumerate(found):
            for j, g in enumerate(there):
                one, other = (coco_mask.decode(self.cocoGt.annToRLE(a)).astype(bool) for a in (d, g))
                if g["iscrowd"]:
                    overlaps[i, j] = (one & other).sum() / max(one.sum(), 1)
                else:
                    edges = [slow_region(m) for m in (one, other)]
                    overlaps[i, j] = min(share(one, other), share(*edges))
        return overlaps if overlaps.size else []


def share(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    union = (one | other).sum()
    return (one & other).sum() / union if union else 0.0


def slow_region(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels with a pixel outside the mask (or the picture) among those up to d rows and columns away."""
    d = max(1, round(0.02 * (HW[0] ** 2 + HW[1] ** 2) ** 0.5))
    padded = np.pad(mask, d)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * d + 1, 2 * d + 1))
    return mask & ~windows.all(axis=(2, 3))


def pycocotools_on(world: World, kind: Kind, evaluator: type[COCOeval] = COCOeval) -> COCOeval:
    truth = with_outlines(world.truth) if world.outlines is not None else world.truth
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        known_file, found_file = Path(name, "truth.json"), Path(name, "results.json")
        known_file.write_bytes(truth_bytes(truth))
        found_file.write_bytes(results_bytes(truth, world.rows, world.outlines, boxes=world.areas is None))
        known = COCO(known_file)
        # an empty list of results is more than its loadRes takes
        found = known.loadRes(str(found_file)) if len(world.rows) else COCO()
        if not len(world.rows):
            found.dataset = {**known.dataset, "annotations": []}
            found.createIndex()
        comparison = evaluator(known, found, "bbox" if kind == "bbox" else "segm")
        comparison.params.maxDets = sorted({1, min(10, world.max_dets), world.max_dets})
        comparison.evaluate()
        comparison.accumulate()
    return comparison


def mean(values: NDArray[np.float64]) -> float:
    return float(np.mean(values[values > -1])) if (values > -1).any() else -1.0


def expected(oracle: COCOeval, max_dets: int) -> tuple[list[float], dict[int, list[float]]]:
    """The twelve numbers, and for each category id the ten of a class."""
    precision, recall = oracle.eval["precision"], oracle.eval["recall"]
    ten = oracle.params.maxDets.index(min(10, max_dets))

    def both(p: NDArray[np.float64], r: NDArray[np.float64]) -> tuple[list[float], list[float]]:
        ap = [p[..., 0], p[0, ..., 0], p[5, ..., 0], *(p[..., area] for area in (1, 2, 3))]
        return [mean(v) for v in ap], [mean(r[..., area]) for area in range(4)]

    ap, ar = both(precision[..., -1], recall[..., -1])
    twelve = [*ap, mean(recall[..., 0, 0]), mean(recall[..., 0, ten]), *ar]
    per_class = {
        id_: [*chain(*both(precision[:, :, k, :, -1], recall[:, k, :, -1]))]
        for k, id_ in enumerate(oracle.params.catIds)
    }
    return twelve, per_class


CLASS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar", "ar_small", "ar_medium", "ar_large")


def expect_same_bits(world: World, kind: Kind) -> None:
    metrics = evaluate_rows(
        world.truth, world.rows, world.max_dets, kind=kind, outlines=world.outlines, areas=world.areas
    )
    evaluator = BoundaryEval if kind == "boundary" else COCOeval
    twelve, per_class = expected(pycocotools_on(world, kind, evaluator), world.max_dets)
    assert [getattr(metrics, name) for name in TWELVE] == twelve
    assert {c.id: [getattr(c, name) for name in CLASS] for c in metrics.per_class} == per_class
    for c in metrics.per_class:
        mine = (world.truth.labels == world.truth.categories.index_of_id[c.id]) & ~world.truth.crowd
        assert (c.objects, c.images) == (mine.sum(), len(set(world.truth.image_index[mine].tolist())))


@settings(max_examples=200)
@given(world=worlds())
def test_boxes(world: World) -> None:
    expect_same_bits(world, "bbox")


@settings(max_examples=100)
@given(world=worlds(masks=True))
def test_masks(world: World) -> None:
    expect_same_bits(world, "segm")


@settings(max_examples=60)
@given(world=worlds(masks=True))
def test_boundaries(world: World) -> None:
    expect_same_bits(world, "boundary")


class MadeUpEval(COCOeval):
    """pycocotools with overlaps that have nothing to do with the boxes."""

    overlaps: NDArray[np.float64]

    def computeIoU(self, imgId: int, catId: int) -> NDArray[np.float64] | list[float]:
        there, found = self._gts[imgId, catId], self._dts[imgId, catId]
        order = np.argsort([-d["score"] for d in found], kind="mergesort")[: self.params.maxDets[-1]]
        values = self.overlaps[np.ix_([found[i]["id"] - 1 for i in order], [g["id"] - 1 for g in there])]
        return values if values.size else []


@settings(max_examples=150)
@given(world=worlds(), seed=st.integers(0, 2**32))
def test_the_rule_on_overlaps_that_tie(world: World, seed: int) -> None:
    """Few values, thresholds among them: which of equals is taken, and what comes before an ignored region."""
    rng = np.random.default_rng(seed)
    values = rng.choice([0, 0.3, 0.5, 0.7, 0.75, 0.8, 1], (len(world.rows), len(world.truth.labels)))
    oracle = pycocotools_on(world, "bbox", type("", (MadeUpEval,), {"overlaps": values}))
    areas = world.rows[:, 3] * world.rows[:, 4]
    caps = oracle.params.maxDets
    precision, recall = coco_rule.curves(
        world.truth, world.rows, areas=areas, caps=caps, overlaps=lambda found, there: values[np.ix_(found, there)]
    )
    assert np.array_equal(precision, oracle.eval["precision"])
    assert np.array_equal(recall, oracle.eval["recall"])


def test_the_region_by_hand() -> None:
    mask = np.zeros((7, 9), np.bool_)
    mask[1:7, 1:8] = True  # reaches the lower edge, which counts as outline
    inner = np.zeros_like(mask)
    inner[2:6, 2:7] = True
    assert np.array_equal(region(mask, 1), mask & ~inner)
    assert distance((480, 640)) == 16
    assert distance((10, 10)) == 1


@given(world=worlds(masks=True))
@settings(max_examples=30)
def test_what_is_written_is_read_again(world: World) -> None:
    """Boxes, masks and areas of predictions.json give the same numbers as those it was written from."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "results.json")
        file.write_bytes(results_bytes(world.truth, world.rows, world.outlines, boxes=world.areas is None))
        if not len(world.rows):
            assert len(read_predictions(file, world.truth).rows) == 0
            return
        read = read_predictions(file, world.truth)
    assert np.array_equal(read.rows, world.rows)
    assert (read.areas is None) == (world.areas is None)
    for kind in ("bbox", "segm"):
        how = {"outlines": read.outlines, "areas": read.areas, "kind": kind}
        again = evaluate_rows(world.truth, read.rows, **how)
        assert again == evaluate_rows(world.truth, world.rows, kind=kind, outlines=world.outlines, areas=world.areas)


@pytest.mark.data
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_real_masks_and_crowds(data_dir: Path, kind: Kind) -> None:
    """Every object of coco-val found three times, moved by a few pixels, with ties in score."""
    truth = load(data_dir / "coco-val")
    assert truth.crowd.any()
    rng = np.random.default_rng(0)
    rows = np.repeat(np.flatnonzero(~truth.crowd), 3)
    values = []
    for row in rows.tolist():
        h, w = truth.image_hw[truth.image_index[row]].tolist()
        moved = np.roll(truth.outlines.mask(row, (h, w)), tuple(rng.integers(-6, 7, 2)), axis=(0, 1))
        coded = coco_mask.encode(np.asfortranarray(moved.astype(np.uint8)))
        values.append({"size": coded["size"], "counts": coded["counts"].decode()})
    boxes = np.array([coco_mask.toBbox({**v, "counts": v["counts"].encode()}) for v in values])
    labels = np.where(
        rng.random(len(rows)) < 0.1, rng.integers(0, len(truth.categories), len(rows)), truth.labels[rows]
    )
    found = np.column_stack([truth.image_index[rows], boxes, rng.random(len(rows)).round(2), labels])
    world = World(truth, found, Outlines.of(values), None, 100)
    expect_same_bits(world, kind)
    assert 0.1 < evaluate_rows(truth, found, kind=kind, outlines=world.outlines).ap < 0.95


def test_a_box_without_end_is_drawn_as_far_as_the_picture() -> None:
    truth = AnnotationSet.from_columns(
        root=Path(), format="made", categories=Categories((1,), ("a",)), image_files=["x.jpg"],
        image_hw=[HW], image_index=[0], boxes=[[0, 0, HW[1], HW[0]]], labels=[0],
    )  # fmt: skip
    rows = np.array([[0, -1e200, -1e200, 2e200, 2e200, 0.5, 0]])
    assert evaluate_rows(truth, rows, kind="segm").ap == pytest.approx(1)


def test_masks_need_the_size_of_their_picture() -> None:
    truth = AnnotationSet.from_columns(
        root=Path("data"), format="made", categories=Categories((1,), ("a",)), image_files=["x.jpg"],
        image_hw=[(0, 0)], image_index=[0], boxes=[[0, 0, 9, 9]], labels=[0],
    )  # fmt: skip
    with pytest.raises(Exception, match=r"data/x\.jpg: its size is not known"):
        evaluate_rows(truth, np.zeros((0, 7)), kind="segm")
    assert json.loads(truth_bytes(truth))["images"][0]["file_name"] == "x.jpg"
