"""Views of label maps and ensembles. Oracle: the mean of single answers, by torch; twins that must change nothing."""

from __future__ import annotations

from pathlib import PurePosixPath

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from detseg.annotations import Categories
from detseg.checkpoints import Card
from detseg.images import ImageFile
from detseg.pipeline import Member, detect_files, detect_together, frames, segment_files, segment_together
from detseg.postprocess import Selection, View, Views
from detseg.postprocess.select import NMS_KINDS
from detseg.postprocess.tiles import Tiling
from detseg.preprocess import Preprocess
from detseg.results import RawDetections

HW = (90, 130)


class Maps:
    """A network whose logits depend on a pixel and on those left of it: no side is like another. K = 3."""

    name, device, any_size = "fake", "cpu", True

    def __init__(self, seed: int, frame_hw=(64, 96), fit="letterbox", names=("a", "b", "c")) -> None:
        self.weights = np.random.default_rng(seed).normal(size=(3, 3)).astype(np.float32)
        self.card = Card(
            model="unet", config={}, categories=Categories.from_names(names),
            preprocess=Preprocess(frame_hw, fit), task="segment",
        )  # fmt: skip

    def segment(self, frames, sizes_hw=None, means=()):
        before = np.pad(frames, ((0, 0), (0, 0), (3, 0), (0, 0)), mode="edge")[:, :, :-3]
        seen = frames.astype(np.float32) + before
        return np.einsum("kc,nhwc->nkhw", self.weights, seen / 100 - 2.5).astype(np.float32)

    def picture_means(self, parts):
        return ()


class Boxes:
    """Many random candidates, the same for every frame of a size."""

    name, device = "fake", "cpu"

    def __init__(self, seed: int, names=("a", "b"), masks: bool = False) -> None:
        self.seed, self.masks = seed, masks
        self.card = Card(model="x", config={}, categories=Categories.from_names(names), preprocess=Preprocess((64, 96)))

    def predict(self, frames, sizes_hw=None, proposals=None):
        rng = np.random.default_rng([self.seed, *frames.shape[1:3]])
        corner = rng.uniform(0, 60, (len(frames), 80, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(8, 30, corner.shape)], axis=2).astype(np.float32)
        scores = rng.random((len(frames), 80, len(self.card.categories))).astype(np.float32) ** 2
        masks = rng.random((len(frames), 80, 14, 14)).astype(np.float32) if self.masks else None
        return RawDetections(boxes, scores, masks)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> ImageFile:
    path = tmp_path_factory.mktemp("picture") / "a.png"
    small = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(small, HW[::-1], interpolation=cv2.INTER_CUBIC))
    return ImageFile(path, PurePosixPath("a.png"))


def found(outcomes):
    (outcome,) = outcomes
    assert outcome.fault is None
    return outcome.found


def probabilities(runtime: Maps, file: ImageFile, scale: float = 1.0, flip: bool = False) -> torch.Tensor:
    """(K, h, w) of the picture, by torch from the network's own answer."""
    image = cv2.imread(str(file.path))[..., ::-1]
    frame, placement = View(scale).recipe(runtime.card.preprocess).place(image)
    (left, top), (h, w) = map(round, placement.offset_xy), placement.content_hw
    wide = w if placement.padded else frame.shape[1]  # of a padded frame the picture alone is mirrored
    given = np.concatenate([frame[:, :wide][:, ::-1], frame[:, wide:]], axis=1) if flip else frame
    logits = torch.from_numpy(runtime.segment(given[None]))
    logits = torch.cat([logits[..., :wide].flip(3), logits[..., wide:]], dim=3) if flip else logits
    shown = logits[:, :, top : top + h, left : left + w]
    return F.interpolate(shown.double(), size=HW, mode="bilinear", align_corners=False)[0].softmax(dim=0)


def assert_likeliest(labels: np.ndarray, mean: torch.Tensor) -> None:
    best, second = mean.topk(2, dim=0).values
    sure = (best - second).numpy() > 1e-4
    assert sure.mean() > 0.98
    np.testing.assert_array_equal(labels[sure], mean.argmax(dim=0).numpy()[sure])
    assert len(np.unique(labels)) == 3


@pytest.mark.parametrize("fit", ["letterbox", "stretch", "shorter"])
@pytest.mark.parametrize(
    ("scales", "flips"), [((1.0,), "horizontal"), ((1.0, 0.5), "none"), ((0.5, 1.0), "horizontal")]
)
def test_views_of_label_maps_are_averaged(file, scales, flips, fit):
    runtime = Maps(1, fit=fit)
    labels = found(segment_files([file], runtime, views=Views.of(scales, flips))).labels
    mirrored = (False, True) if flips == "horizontal" else (False,)
    each = [probabilities(runtime, file, scale, flip) for scale in scales for flip in mirrored]
    assert_likeliest(labels, sum(each) / len(each))
    assert (labels != found(segment_files([file], runtime)).labels).any()


def test_an_ensemble_of_segmenters_is_their_weighted_mean_in_whatever_order_of_classes(file):
    one, two = Maps(1), Maps(2, (96, 96), "stretch", names=("c", "a", "b"))
    own = np.array([2, 0, 1])  # of two's classes among one's
    for weights in ((1.0, 1.0), (3.0, 1.0)):
        members = [Member(one, weight=weights[0]), Member(two, weight=weights[1], classes=own)]
        labels = found(segment_together([file], members)).labels
        of_two = torch.empty(3, *HW, dtype=torch.float64)
        of_two[own] = probabilities(two, file)
        assert_likeliest(labels, weights[0] * probabilities(one, file) + weights[1] * of_two)
        turned = found(segment_together([file], members[::-1])).labels
        np.testing.assert_array_equal(turned, labels)


@pytest.mark.parametrize("tiling", [None, Tiling((64, 64), 32)])
def test_a_segmenter_twice_is_the_segmenter(file, tiling):
    runtime = Maps(1, (64, 64))
    alone = found(segment_files([file], runtime, tiling=tiling)).labels
    twice = found(segment_together([file], [Member(runtime), Member(runtime)], tiling=tiling)).labels
    np.testing.assert_array_equal(alone, twice)
    assert len(np.unique(alone)) == 3


def test_tiles_are_looked_at_in_views_by_all_members(file):
    """One tile as large as the picture: what is said of it is the mean of four answers."""
    image = cv2.imread(str(file.path))[..., ::-1]
    wide = cv2.copyMakeBorder(image, 0, 96 - HW[0], 0, 160 - HW[1], cv2.BORDER_REFLECT_101)
    members = [Member(Maps(seed), views=Views.of((1.0,), "horizontal"), weight=w) for seed, w in ((1, 1.0), (2, 2.0))]
    labels = found(segment_together([file], members, tiling=Tiling((96, 160), 0))).labels
    mean = 0
    for member in members:
        plain = torch.from_numpy(member.runtime.segment(wide[None])).softmax(1)
        flipped = torch.from_numpy(member.runtime.segment(np.ascontiguousarray(wide[None, :, ::-1]))).softmax(1).flip(3)
        mean = mean + member.weight * (plain + flipped)
    assert_likeliest(labels, mean[0, :, : HW[0], : HW[1]])


def test_tiles_of_other_sizes_come_back_in_their_own_pixels(file):
    """A network of single pixels sees a smooth picture at any size nearly alike."""
    runtime = Maps(1)

    def of_pixels(frames, means):
        return np.einsum("kc,nhwc->nkhw", runtime.weights, frames.astype(np.float32) / 50 - 2.5)

    runtime.segment = of_pixels
    plain = found(segment_files([file], runtime, tiling=Tiling((64, 64), 32))).labels
    scaled = Views((View(2.0), View(1.0, mirror_x=True)))
    seen = found(segment_files([file], runtime, tiling=Tiling((64, 64), 32), views=scaled)).labels
    assert (plain == seen).mean() > 0.97


@pytest.mark.parametrize("nms", NMS_KINDS)
@pytest.mark.parametrize("conf", [0.25, 0.6])
def test_a_detector_twice_is_the_detector(file, nms, conf):
    selection = Selection(conf=conf, nms=nms)
    alone = found(detect_files([file], Boxes(3), selection))
    twice = found(detect_together([file], [Member(Boxes(3), selection)] * 2, selection))
    order = np.lexsort((*alone.boxes.T[::-1], alone.labels, -alone.scores))
    assert len(alone) > 5
    np.testing.assert_array_equal(alone.boxes[order], twice.boxes)
    np.testing.assert_array_equal(alone.scores[order], twice.scores)
    np.testing.assert_array_equal(alone.labels[order], twice.labels)


def test_members_boxes_meet_in_the_picture_whatever_their_frames(file):
    """Both see one object, each in its own frame; the picture's box is their mean by score."""

    class Sure(Boxes):
        def __init__(self, hw, share, score, names=("a",)):
            super().__init__(0, names)
            self.share, self.score = share, score
            self.card = Card(
                model="x", config={}, categories=Categories.from_names(names), preprocess=Preprocess(hw, "stretch")
            )

        def predict(self, frames, sizes_hw=None, proposals=None):
            h, w = frames.shape[1:3]
            box = np.float32(self.share) * np.float32([w, h, w, h])
            scores = np.zeros((len(frames), 1, len(self.card.categories)), np.float32)
            scores[..., 0] = self.score
            return RawDetections(np.tile(box, (len(frames), 1, 1)), scores)

    one, two = Sure((64, 64), (0.1, 0.1, 0.5, 0.5), 0.8), Sure((32, 96), (0.1, 0.1, 0.6, 0.5), 0.4)
    selection = Selection(conf=0.5)
    both = found(detect_together([file], [Member(one), Member(two)], selection))
    x2 = HW[1] * (0.8 * 0.5 + 0.4 * 0.6) / 1.2
    np.testing.assert_allclose(both.boxes, [[0.1 * HW[1], 0.1 * HW[0], x2, 0.5 * HW[0]]], rtol=1e-5)
    assert both.scores == pytest.approx([0.6])  # the weak one is below what is reported, and supports
    weighted = [Member(one, selection, weight=3.0), Member(two, selection)]
    assert found(detect_together([file], weighted, selection)).scores == pytest.approx([(3 * 0.8 + 0.4) / 4])
    other = Member(Sure((64, 64), (0.7, 0.7, 0.9, 0.9), 0.9, ("b",)), selection, classes=np.array([1]))
    apart = found(detect_together([file], [Member(one, selection), other], selection))
    assert (apart.labels.tolist(), apart.scores.tolist()) == ([1, 0], pytest.approx([0.9, 0.8]))


def test_the_order_of_detectors_plays_no_part(file):
    members = [Member(Boxes(seed), Selection(conf=0.2)) for seed in (3, 4, 5)]
    one = found(detect_together([file], members, Selection(conf=0.2)))
    other = found(detect_together([file], members[::-1], Selection(conf=0.2)))
    assert len(one) > 5
    np.testing.assert_allclose(one.boxes, other.boxes, rtol=1e-6)
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-6)


def test_masks_stay_where_all_members_have_them(file):
    selection = Selection(conf=0.4)
    masked, plain = Member(Boxes(3, masks=True), selection), Member(Boxes(4), selection)
    alone = found(detect_files([file], masked.runtime, selection))
    twice = found(detect_together([file], [masked, masked], selection))
    assert sorted(twice.masks.counts) == sorted(alone.masks.counts)
    assert found(detect_together([file], [masked, plain], selection)).masks is None


def test_every_picture_is_read_once_and_at_once_for_all(file, monkeypatch):
    read = []
    original = frames.read_image_and_hw

    def counting(path, target_hw):
        read.append(target_hw)
        return original(path, target_hw=target_hw)

    monkeypatch.setattr(frames, "read_image_and_hw", counting)
    parts = Views.of((1.0, 2.0), "all", parts=2)
    list(detect_together([file] * 3, [Member(Boxes(3), views=parts), Member(Boxes(4))], Selection()))
    assert read == [(128, 192)] * 3
    list(segment_together([file] * 2, [Member(Maps(1)), Member(Maps(2, (96, 128)))]))
    assert read[3:] == [(96, 128)] * 2


# ---- parts of the picture ----


class Squares:
    """Boxes exactly what is white in a frame, each connected piece of it; 40 candidates, most of them nothing."""

    name, device = "fake", "cpu"
    card = Card(model="x", config={}, categories=Categories.from_names(["a"]), preprocess=Preprocess((96, 96)))

    def predict(self, frames, sizes_hw=None, proposals=None):
        boxes = np.zeros((len(frames), 40, 4), np.float32)
        scores = np.zeros((len(frames), 40, 1), np.float32)
        for i, frame in enumerate(frames):
            _, _, stats, _ = cv2.connectedComponentsWithStats((frame[..., 0] > 160).astype(np.uint8))
            for row, (x, y, w, h, area) in enumerate(stats[1:41].tolist()):
                boxes[i, row], scores[i, row] = (x, y, x + w, y + h), 0.5 if area < 12 else 0.9
        return RawDetections(boxes, scores)


@pytest.mark.parametrize("merge", ["nms", "wbf"])
@pytest.mark.parametrize("flips", ["none", "all"])
@pytest.mark.parametrize("hw", [(384, 384), (300, 500)])
def test_parts_show_small_objects_larger_and_pieces_of_objects_are_left_out(tmp_path, hw, flips, merge):
    image = np.zeros((*hw, 3), np.uint8)
    wanted = [(10, 20, 22, 30), (180, 100, 205, 118), (120, 140, 260, 280), (hw[1] - 30, hw[0] - 40, hw[1], hw[0])]
    for x1, y1, x2, y2 in wanted:
        image[y1:y2, x1:x2] = 255
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), image)
    views = Views.of((1.0,), flips, merge, parts=2)
    seen = found(detect_files([ImageFile(path, PurePosixPath("a.png"))], Squares(), Selection(conf=0.01), views=views))
    assert len(seen) == len(wanted)  # the large one lies across all four parts, and no piece of it is told
    for box in seen.boxes:
        nearest = min(wanted, key=lambda other: np.abs(np.array(other) - box).sum())
        np.testing.assert_allclose(box, nearest, atol=6)  # a pixel of the frame is four to five


def test_which_parts_there_are():
    views = Views.of((1.0,), "none", parts=3)
    assert len(views.views) == 10
    parts = [view.part for view in views.views[1:]]
    lefts = sorted({part[0] for part in parts})
    side = 1 / 2.5  # three parts, two quarters of a part in common
    assert lefts == pytest.approx([0, 0.75 * side, 1.5 * side])
    assert max(part[2] for part in parts) == pytest.approx(1)
    assert len(views.at_own_size().views) == 10
    with pytest.raises(ValueError, match="part of a view"):
        Views((View(part=(0.5, 0, 0.4, 1)),))
