"""Oracle: a network to which left and right are alike gives the same boxes in every view; cases by hand."""

from __future__ import annotations

from pathlib import PurePosixPath

import cv2
import numpy as np
import pytest

from detseg.annotations import Categories
from detseg.checkpoints import Card
from detseg.images import ImageFile
from detseg.pipeline import detect_files
from detseg.postprocess import Selection, View, Views
from detseg.postprocess.views import Answer, merge
from detseg.preprocess import Placement, Preprocess
from detseg.results import RawDetections

ALL_FLIPS = Views.of((1.0,), "all")


class RedFinder:
    """The box around the red pixels, exactly, and one around the green ones; whatever the frame's size or side."""

    name, device = "fake", "cpu"

    def __init__(self) -> None:
        self.card = Card(
            model="red",
            config={},
            categories=Categories.from_names(["red", "green"]),
            preprocess=Preprocess(frame_hw=(96, 128)),
        )
        self.shapes: list[tuple[int, ...]] = []

    def predict(self, frames, sizes_hw=None, proposals=None):
        self.shapes.append(frames.shape)
        boxes = [[self._box(frame.astype(int), colour) for colour in (0, 1)] for frame in frames]
        scores = np.tile(np.float32([[0.9, 0], [0, 0.6]]), (len(frames), 1, 1))
        return RawDetections(np.array(boxes, np.float32), scores)

    @staticmethod
    def _box(frame, colour):
        ys, xs = np.nonzero((frame[..., colour] > 150) & (frame[..., 1 - colour] < 100))
        return (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


@pytest.fixture
def file(tmp_path) -> ImageFile:
    """Higher than the frame is, so that the letterbox has borders left and right; nothing is symmetric."""
    image = np.full((192, 120, 3), 40, np.uint8)
    image[20:100, 16:56] = (255, 0, 0)
    image[120:180, 30:100] = (0, 255, 0)
    assert cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    return ImageFile(tmp_path / "a.png", PurePosixPath("a.png"))


@pytest.mark.parametrize("how", ["nms", "wbf"])
@pytest.mark.parametrize("keep", [False, True])
def test_mirrored_views_of_an_equivariant_network_change_nothing(file, how, keep):
    runtime = RedFinder()
    plain = next(iter(detect_files([file], runtime, Selection()))).found
    assert plain.boxes.tolist() == [[16, 20, 56, 100], [30, 120, 100, 180]]
    views = Views.of((1.0,), "all", how)
    seen = next(iter(detect_files([file], runtime, Selection(), views=views, keep_images=keep))).found
    assert np.array_equal(seen.boxes, plain.boxes)
    assert seen.labels.tolist() == plain.labels.tolist() == [0, 1]
    np.testing.assert_allclose(seen.scores, plain.scores, rtol=1e-6)
    assert len(runtime.shapes) == 5


@pytest.mark.parametrize("kind", ["hard", "soft", "diou", "wbf"])
def test_views_of_other_sizes_meet_in_the_picture(file, kind):
    runtime = RedFinder()
    views = Views.of((1.0, 2.0, 0.7), "horizontal")
    (outcome,) = detect_files([file], runtime, Selection(nms=kind), views=views)
    assert runtime.shapes == [(1, 96, 128, 3)] * 2 + [(1, 192, 256, 3)] * 2 + [(1, 64, 96, 3)] * 2
    for box, _, label in outcome.found:  # soft suppression lets all views' boxes stay
        expected = ([16, 20, 56, 100], [30, 120, 100, 180])[label]
        np.testing.assert_allclose(box, expected, atol=3)  # a pixel of the smallest frame is three
    assert len(outcome.found) == 2 or kind == "soft"


def test_boxes_are_mirrored_back_by_hand():
    box = np.float32([[10, 20, 30, 50]])
    hw = (100, 200)
    assert View(1.0, mirror_x=True).boxes(box, hw).tolist() == [[170, 20, 190, 50]]
    assert View(1.0, mirror_y=True).boxes(box, hw).tolist() == [[10, 50, 30, 80]]
    assert View(1.0, True, True).boxes(box, hw).tolist() == [[170, 50, 190, 80]]
    frame = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    assert View(1.0, mirror_x=True).frame(frame, (2, 3))[..., 0].tolist() == [[2, 1, 0], [5, 4, 3]]
    assert View(1.0, mirror_y=True).frame(frame, (2, 3))[..., 0].tolist() == [[3, 4, 5], [0, 1, 2]]


def test_of_a_padded_frame_only_the_picture_is_mirrored_and_stays_at_the_top_left():
    frame = np.zeros((3, 4, 1), np.uint8)
    frame[:2, :3, 0] = [[1, 2, 3], [4, 5, 6]]
    given = View(1.0, True, True).frame(frame, (2, 3))
    assert given[..., 0].tolist() == [[6, 5, 4, 0], [3, 2, 1, 0], [0, 0, 0, 0]]
    assert frame[0, 0, 0] == 1  # the frame given is left alone


def answers(boxes_and_scores):
    same = Placement.letterbox((100, 100), (100, 100))
    return same, [Answer(View(), np.float32([box]), np.float32([[score]]), same) for box, score in boxes_and_scores]


def test_what_few_views_saw_loses_score_by_fusion_and_not_by_suppression():
    plain, seen = answers([((0, 0, 10, 10), 0.8), ((0, 0, 10, 10), 0.6), ((50, 50, 60, 60), 0.9), ((0, 0, 10, 8), 0.6)])
    scores = merge(seen, plain, Selection(conf=0.1, iou=0.5), "nms").scores
    assert scores.tolist() == pytest.approx([0.9, 0.8])
    boxes, scores, *_ = merge(seen, plain, Selection(conf=0.1, iou=0.5), "wbf")
    # three of four views agree: their mean 2/3 times 3/4; one of four: 0.9 / 4
    assert scores.tolist() == pytest.approx([2 / 3 * 3 / 4, 0.9 / 4])
    np.testing.assert_allclose(boxes[0], [0, 0, 10, (0.8 * 10 + 0.6 * 10 + 0.6 * 8) / 2.0], rtol=1e-5)
    assert len(merge(seen, plain, Selection(conf=0.3, iou=0.5), "wbf")[0]) == 1


def test_a_view_below_the_threshold_still_counts_for_the_fusion():
    plain, seen = answers([((0, 0, 10, 10), 0.8), ((0, 0, 10, 10), 0.2)])
    assert merge(seen, plain, Selection(conf=0.45, iou=0.5), "wbf")[1].tolist() == pytest.approx([0.5])


def test_which_views_there_are():
    assert ALL_FLIPS.views == (View(), View(1, True), View(1, False, True), View(1, True, True))
    assert Views().is_plain
    assert not ALL_FLIPS.is_plain
    mixed = Views.of((0.5, 1.0), "horizontal")
    assert mixed.scales == (0.5, 1.0)
    assert mixed.at_own_size().views == (View(), View(1, True))
    assert View(0.8).recipe(Preprocess((320, 416))).frame_hw == (256, 320)
    assert View(1.0).recipe(Preprocess((300, 300))).frame_hw == (300, 300)
    assert View(0.8).recipe(Preprocess((800, 1333), "shorter")).frame_hw == (640, 1066)  # limits, not sides
    for wrong in ({"views": ()}, {"views": (View(), View())}, {"views": (View(-1.0),)}):
        with pytest.raises(ValueError, match="view"):
            Views(**wrong)
