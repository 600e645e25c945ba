"""Masks follow their candidates: through every kind of suppression, through mirrored views, into fused boxes."""

from __future__ import annotations

from pathlib import PurePosixPath

import cv2
import numpy as np
import pytest

from detseg.annotations import Categories
from detseg.checkpoints import Card
from detseg.images import ImageFile
from detseg.pipeline import detect_files
from detseg.postprocess import Selection, View, Views, select
from detseg.postprocess.select import NMS_KINDS
from detseg.postprocess.views import Answer, merge
from detseg.preprocess import Placement, Preprocess
from detseg.results import RawDetections

SIDE = 28


class RedFinder:
    """The box around the red pixels, and how much of each of its parts is red."""

    name, device = "fake", "cpu"
    card = Card(model="red", config={}, categories=Categories.from_names(["red"]), preprocess=Preprocess((96, 128)))

    def predict(self, frames, sizes_hw=None, proposals=None):
        boxes, masks = [], []
        for frame in frames:
            red = ((frame[..., 0] > 150) & (frame[..., 1] < 100)).astype(np.float32)
            ys, xs = np.nonzero(red)
            x1, y1, x2, y2 = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
            boxes.append([[x1, y1, x2, y2]])
            masks.append([cv2.resize(red[y1:y2, x1:x2], (SIDE, SIDE), interpolation=cv2.INTER_AREA)])
        return RawDetections(np.float32(boxes), np.full((len(frames), 1, 1), 0.9, np.float32), np.float32(masks))


@pytest.fixture
def shape(tmp_path) -> tuple[ImageFile, np.ndarray]:
    """A red quarter disc, which no mirror leaves as it is, and its pixels."""
    ys, xs = np.mgrid[:192, :256]
    red = (np.hypot(ys - 40, xs - 60) < 90) & (ys >= 40) & (xs >= 60)
    image = np.where(red[..., None], np.uint8([255, 0, 0]), np.uint8([60, 60, 60]))
    assert cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    return ImageFile(tmp_path / "a.png", PurePosixPath("a.png")), red


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("how", ["nms", "wbf"])
@pytest.mark.parametrize("flips", ["none", "horizontal", "all"])
def test_the_mask_is_where_the_pixels_are_whatever_the_views(shape, how, flips):
    file, red = shape
    (outcome,) = detect_files([file], RedFinder(), Selection(), views=Views.of((1.0, 2.0), flips, how))
    assert len(outcome.found) == 1
    assert iou(outcome.found.masks.mask(0), red) > 0.95


def test_a_mirrored_view_alone_mirrors_its_mask(shape):
    file, red = shape
    for view in (View(1.0, mirror_x=True), View(1.0, mirror_y=True), View(1.0, True, True)):
        (outcome,) = detect_files([file], RedFinder(), Selection(), views=Views((view,)))
        assert iou(outcome.found.masks.mask(0), red) > 0.95
        assert iou(outcome.found.masks.mask(0)[:, ::-1], red) < 0.9


@pytest.mark.parametrize("kind", NMS_KINDS)
def test_each_detection_knows_its_candidate(kind):
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 200, (300, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(20, 80, (300, 2))], axis=1).astype(np.float32)
    boxes[7, 2] = np.nan
    scores = rng.random((300, 3)).astype(np.float32)
    found = select(boxes, scores, Selection(conf=0.6, iou=0.4, nms=kind, classes=(0, 2), max_det=50))
    assert len(found.scores) > 20
    own = scores[found.candidates, found.labels]
    if kind in ("soft", "soft-linear"):
        assert (found.scores <= own + 1e-6).all()
    else:
        np.testing.assert_array_equal(found.scores, own)
    if kind not in ("wbf", "vote"):
        np.testing.assert_array_equal(found.boxes, boxes[found.candidates])


@pytest.mark.parametrize("how", ["nms", "wbf"])
def test_candidates_of_all_answers_are_counted_through(how):
    plain = Placement.letterbox((100, 100), (100, 100))

    def answer(view, boxes, scores, masks):
        filled = np.stack([np.full((2, 2), value, np.float32) for value in masks]) if masks else np.zeros((0, 2, 2))
        return Answer(view, np.float32(boxes).reshape(-1, 4), np.float32(scores).reshape(-1, 1), plain, filled)

    answers = [
        answer(View(), [[0, 0, 10, 10], [50, 50, 60, 60]], [0.5, 0.9], [0.1, 0.2]),
        answer(View(1.0, True), [], [], []),
        answer(View(1.0, False, True), [[0, 90, 10, 100]], [0.8], [0.3]),
    ]
    found = merge(answers, plain, Selection(conf=0.01), how)
    by_place = {tuple(np.rint(box).astype(int).tolist()): i for i, box in enumerate(found.boxes)}
    first, second = by_place[0, 0, 10, 10], by_place[50, 50, 60, 60]
    assert found.candidates[[first, second]].tolist() == [2, 1]
    np.testing.assert_allclose(found.masks[[first, second], 0, 0], [0.3, 0.2])
