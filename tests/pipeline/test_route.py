"""The route from files to detections. The network is one whose answer is known: it boxes what is red."""

from __future__ import annotations

import threading
import time
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest
from PIL import Image

from detseg.annotations import Categories
from detseg.checkpoints import Card
from detseg.errors import ImageError
from detseg.images import ImageFile
from detseg.pipeline import Pace, detect_files, ordered, threads
from detseg.postprocess import Selection, Views
from detseg.preprocess import Preprocess
from detseg.results import RawDetections


class RedFinder:
    """One candidate per frame: the box around the red pixels, with score 0 where there are none."""

    name, device = "fake", "cpu"

    def __init__(self, preprocess: Preprocess | None = None) -> None:
        self.card = Card(
            model="red",
            config={},
            categories=Categories.from_names(["red"]),
            preprocess=preprocess or Preprocess(frame_hw=(160, 192)),
        )
        self.batches: list[int] = []

    def predict(self, frames, sizes_hw=None, proposals=None):
        self.batches.append(len(frames))
        if self.card.preprocess.fit == "shorter":
            assert all(side % 32 == 0 for side in frames.shape[1:3])
            frames = [frame[:h, :w] for frame, (h, w) in zip(frames, sizes_hw, strict=True)]
        else:
            assert frames.shape[1:] == (*self.card.preprocess.frame_hw, 3)
        answers = [self._box(frame.astype(int)) for frame in frames]
        boxes = np.array([[box] for box, _ in answers], np.float32)
        return RawDetections(boxes, np.array([[[score]] for _, score in answers], np.float32))

    @staticmethod
    def _box(frame):
        ys, xs = np.nonzero((frame[..., 0] > 150) & (frame[..., 1] < 100) & (frame[..., 2] < 100))
        if not len(ys):
            return (0, 0, 1, 1), 0.0
        return (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1), 0.9


def picture(path: Path, hw: tuple[int, int], box: tuple[int, int, int, int] | None) -> ImageFile:
    """A grey picture with a red box."""
    image = np.full((*hw, 3), 128, np.uint8)
    if box:
        x1, y1, x2, y2 = box
        image[y1:y2, x1:x2] = (255, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return ImageFile(path, PurePosixPath(path.name))


@pytest.mark.parametrize("keep_images", [False, True])
@pytest.mark.parametrize("fit", ["letterbox", "stretch", "shorter"])
@pytest.mark.parametrize(
    ("hw", "box"),
    [
        ((100, 80), (8, 20, 48, 60)),  # smaller than the frame
        ((375, 500), (100, 50, 300, 250)),
        ((1999, 3001), (600, 400, 2400, 1200)),  # decoded at a fraction of its size
        ((2600, 700), (70, 260, 350, 1300)),
    ],
)
def test_boxes_are_in_the_pixels_of_the_full_picture(tmp_path, hw, box, fit, keep_images):
    file = picture(tmp_path / "a.jpg", hw, box)
    runtime = RedFinder(Preprocess(frame_hw=(160, 192), fit=fit))
    (outcome,) = detect_files([file], runtime, Selection(), keep_images=keep_images)
    found = outcome.found
    assert found.image_hw == hw
    assert found.path == file.path
    pixel = max(hw[0] / 160, hw[1] / 192, 1)  # of the frame, in the picture's
    np.testing.assert_allclose(found.boxes, [box], atol=1.5 * pixel)
    assert (outcome.image is None) is not keep_images
    if keep_images:
        assert outcome.image.shape == (*hw, 3)


def test_pictures_of_any_shape_share_a_batch_and_views_where_frames_have_their_shape(tmp_path):
    boxes = {(120, 90): (9, 12, 45, 84), (60, 200): (130, 8, 190, 50), (300, 310): (30, 150, 150, 270)}
    files = [picture(tmp_path / f"{h}.jpg", (h, w), box) for (h, w), box in boxes.items()]
    runtime = RedFinder(Preprocess((128, 192), "shorter"))
    views = Views.of((0.75, 1.0), "all")
    for looks in (None, views):
        found = [o.found for o in detect_files(files, runtime, Selection(), pace=Pace(3), views=looks)]
        for (hw, box), one in zip(boxes.items(), found, strict=True):
            assert one.image_hw == hw
            np.testing.assert_allclose(one.boxes, [box], atol=3 * max(hw[0] / 128, hw[1] / 192, 1))
    assert runtime.batches == [3] * 9


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_of_the_upright_picture(tmp_path, orientation):
    plain = picture(tmp_path / "plain.jpg", (1200, 900), (90, 120, 450, 360))
    stored = Image.open(plain.path)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = tmp_path / "turned.jpg"
    stored.save(turned, exif=exif, quality=95)
    (outcome,) = detect_files([ImageFile(turned, PurePosixPath("turned.jpg"))], RedFinder(), Selection())
    # the oracle: the same box carried through Pillow's own transposition of a mask
    from PIL import ImageOps

    mask = Image.new("L", stored.size)
    mask.paste(255, (90, 120, 450, 360))
    mask.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(mask))
    ys, xs = np.nonzero(upright)
    assert outcome.found.image_hw == upright.shape
    expected = [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]
    np.testing.assert_allclose(outcome.found.boxes, expected, atol=1.5 * 1200 / 160)


@pytest.mark.parametrize(("batch", "workers", "network_threads"), [(1, 1, 1), (4, 2, 1), (1, 3, 3), (3, 4, 2)])
def test_order_and_faults_stay_in_place(tmp_path, batch, workers, network_threads):
    files, boxes = [], []
    for i in range(23):
        box = (10 + i, 20, 40 + i, 60) if i % 5 else None
        files.append(picture(tmp_path / f"{i:02d}.jpg", (160, 192), box))
        boxes.append(box)
    files[7].path.write_bytes(b"no picture")
    files[8].path.write_bytes(b"")
    runtime = RedFinder()
    outcomes = list(detect_files(files, runtime, Selection(), pace=Pace(batch, workers, network_threads)))
    assert [o.file for o in outcomes] == files
    for i, outcome in enumerate(outcomes):
        if i in (7, 8):
            assert isinstance(outcome.fault, ImageError)
            assert outcome.fault.path == files[i].path
            assert outcome.found is None
        else:
            assert outcome.fault is None
            expected = [] if boxes[i] is None else [boxes[i]]
            np.testing.assert_allclose(outcome.found.boxes, np.reshape(expected, (-1, 4)), atol=1.5)
    assert sum(runtime.batches) == 21
    assert max(runtime.batches) <= batch


def test_a_batch_without_any_picture_never_reaches_the_network(tmp_path):
    bad = [ImageFile(tmp_path / f"{i}.jpg", PurePosixPath(f"{i}.jpg")) for i in range(3)]
    runtime = RedFinder()
    outcomes = list(detect_files(bad, runtime, Selection(), pace=Pace(2)))
    assert [o.fault is not None for o in outcomes] == [True] * 3
    assert runtime.batches == []


def test_another_frame_size_than_the_cards(tmp_path):
    file = picture(tmp_path / "a.jpg", (200, 300), (30, 20, 150, 100))
    runtime = RedFinder(Preprocess(frame_hw=(320, 320)))
    smaller = Preprocess(frame_hw=(96, 128))
    seen = []
    runtime.predict = lambda frames, sizes_hw, proposals: (
        seen.append(frames.shape)
        or RawDetections(
            np.array([[RedFinder._box(f.astype(int))[0]] for f in frames], np.float32),
            np.ones((len(frames), 1, 1), np.float32),
        )
    )
    (outcome,) = detect_files([file], runtime, Selection(), recipe=smaller)
    assert seen == [(1, 96, 128, 3)]
    np.testing.assert_allclose(outcome.found.boxes, [(30, 20, 150, 100)], atol=4)


def test_only_a_bounded_number_is_drawn_ahead(tmp_path):
    file = picture(tmp_path / "a.jpg", (100, 100), (10, 10, 50, 50))
    drawn = 0

    def endless():
        nonlocal drawn
        while True:
            drawn += 1
            yield file

    outcomes = detect_files(endless(), RedFinder(), Selection(), pace=Pace(4, 2))
    for _ in range(5):
        next(outcomes)
    outcomes.close()
    assert drawn <= 5 + 4 * 5
    before = drawn
    time.sleep(0.05)
    assert drawn == before


def test_a_failing_network_ends_the_route_with_its_own_error(tmp_path):
    file = picture(tmp_path / "a.jpg", (100, 100), None)
    runtime = RedFinder()

    def fail(frames, sizes_hw, proposals):
        raise ZeroDivisionError("seven")

    runtime.predict = fail
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError, match="seven"):
        list(detect_files([file] * 10, runtime, Selection()))
    assert threading.active_count() == before


def test_ordered_keeps_the_order_whatever_takes_long():
    def slow_when_even(number):
        time.sleep(0.01 if number % 2 == 0 else 0)
        return number

    with threads(4, "test") as pool:
        assert list(ordered(pool, slow_when_even, range(20), ahead=8)) == list(range(20))
