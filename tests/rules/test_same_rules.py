"""One rule each for empty pictures, degenerate boxes, crowd, corrupt pictures and EXIF, in train, eval and detect.

One small set is driven through the loader of training, the evaluation and the pipeline of detection. The network is
one whose answer is known: it boxes what is red.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from detseg import annotations
from detseg.annotations import AnnotationSet, Categories
from detseg.checkpoints import Card
from detseg.checks import check
from detseg.evaluation import evaluate
from detseg.images import ImageFile
from detseg.pipeline import Outcome, detect_files
from detseg.postprocess import Selection
from detseg.preprocess import Preprocess
from detseg.results import Detections, RawDetections
from detseg.training.config import TrainConfig
from detseg.training.data import Batch, EpochBatches, TrainingSet, loader

HW = (64, 96)
FRAME = Preprocess(frame_hw=(96, 96))
BOX = (20, 10, 60, 40)  # the red object, upright


class RedFinder:
    """One candidate a frame: the box around what is red, score 0 where nothing is."""

    name, device = "red", "cpu"
    card = Card(model="red", config={}, categories=Categories((1,), ("thing",)), preprocess=FRAME)

    def predict(self, frames: np.ndarray, sizes_hw: None, proposals: None) -> RawDetections:
        boxes, scores = [], []
        for frame in frames.astype(int):
            ys, xs = np.nonzero((frame[..., 0] > 150) & (frame[..., 1] < 100) & (frame[..., 2] < 100))
            boxes.append([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]] if len(ys) else [[0, 0, 1, 1]])
            scores.append([[0.9 if len(ys) else 0.0]])
        return RawDetections(np.array(boxes, np.float32), np.array(scores, np.float32))


def paint(box: tuple[int, int, int, int] | None, hw: tuple[int, int] = HW) -> Image.Image:
    pixels = np.full((*hw, 3), 120, np.uint8)
    if box:
        pixels[box[1] : box[3], box[0] : box[2]] = (255, 0, 0)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """object.png, empty.png, slip.png (a box without area), crowd.png, broken.png (cut short), turned.jpg (EXIF)."""
    root = tmp_path_factory.mktemp("rules")
    (root / "images").mkdir()
    names = ("object.png", "empty.png", "slip.png", "crowd.png", "broken.png", "turned.jpg")
    for name in names[:5]:
        paint(None if name == "empty.png" else BOX).save(root / "images" / name)
    broken = root / "images" / "broken.png"
    broken.write_bytes(broken.read_bytes()[:-30])
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: rotated back, it is as the others
    paint(BOX).rotate(90, expand=True).save(root / "images" / "turned.jpg", quality=100, subsampling=0, exif=exif)
    x1, y1, x2, y2 = BOX
    whole, slip = [x1, y1, x2 - x1, y2 - y1], [x1, y1, 0.5, y2 - y1]
    rows = [(1, whole, 0), (3, slip, 0), (4, whole, 1), (5, whole, 0), (6, whole, 0)]
    content = {
        "images": [{"id": i, "file_name": n, "width": HW[1], "height": HW[0]} for i, n in enumerate(names, 1)],
        "annotations": [
            {"id": i, "image_id": image, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            for i, (image, box, crowd) in enumerate(rows, 1)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (root / "instances_train.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def truth(data: Path) -> AnnotationSet:
    return annotations.load(data)


@pytest.fixture(scope="module")
def batch(data: Path, truth: AnnotationSet) -> Batch:
    """What training sees of the whole set, without augmentation."""
    config = TrainConfig(data=str(data), augment="none", imgsz=96, multi_scale=0, batch=len(truth), workers=0)
    (only,) = loader(TrainingSet(truth, config, FRAME), EpochBatches(len(truth), config), workers=0)
    return only


@pytest.fixture(scope="module")
def outcomes(truth: AnnotationSet) -> dict[str, Outcome]:
    """What detection answers on the same pictures."""
    files = [ImageFile(truth.image_path(i), PurePosixPath(name)) for i, name in enumerate(truth.image_files)]
    done = list(detect_files(files, RedFinder(), Selection(conf=0.5)))
    return {outcome.file.name.name: outcome for outcome in done}


def target_of(batch: Batch, name: str) -> tuple[list[list[float]], list[bool]]:
    """Boxes in pixels of the picture, and whether each is ignored."""
    i = [Path(file).name for file in batch.files].index(name)
    boxes = FRAME.placement(HW).to_image(batch.targets[i].boxes.numpy())
    return boxes.round(3).tolist(), batch.targets[i].ignored.tolist()


def ap_of(truth: AnnotationSet, outcomes: dict[str, Outcome], names: tuple[str, ...]) -> tuple[float, int]:
    """AP50 and objects of some pictures, evaluated as `detseg eval` does: nothing found where nothing can be read."""
    chosen = [i for i, file in enumerate(truth.image_files) if Path(file).name in names]
    found = []
    for i in chosen:
        outcome = outcomes[Path(truth.image_files[i]).name]
        found.append(outcome.found or Detections(HW))
    metrics = evaluate(truth.subset(chosen), found)
    return round(metrics.ap50, 9), metrics.objects


def red_in(outcome: Outcome) -> list[list[float]]:
    assert outcome.found is not None
    return outcome.found.boxes.round().tolist()


def test_an_empty_picture_is_a_picture(
    truth: AnnotationSet, batch: Batch, outcomes: dict[str, Outcome], data: Path
) -> None:
    assert target_of(batch, "empty.png") == ([], [])
    assert red_in(outcomes["empty.png"]) == []
    assert ap_of(truth, outcomes, ("object.png", "empty.png")) == (1.0, 1)
    # what is found on it is a false positive: with a higher score than the right one, precision is 1/2
    found = Detections(HW, np.array([BOX], np.float32), np.float32([0.99]), np.array([0]))
    wrong = {**outcomes, "empty.png": replace(outcomes["empty.png"], found=found)}
    assert ap_of(truth, wrong, ("object.png", "empty.png"))[0] == pytest.approx(0.5)
    assert "empty-picture" in {f.kind for f in check(data).findings}


def test_a_degenerate_box_is_no_object(
    truth: AnnotationSet, batch: Batch, outcomes: dict[str, Outcome], data: Path
) -> None:
    assert target_of(batch, "slip.png") == ([], [])
    assert ap_of(truth, outcomes, ("slip.png", "object.png"))[1] == 1
    # the red thing found there is a false positive: with the higher score, precision is 1/2
    surer = Detections(HW, np.array([BOX], np.float32), np.float32([0.99]), np.array([0]))
    wrong = {**outcomes, "slip.png": replace(outcomes["slip.png"], found=surer)}
    assert ap_of(truth, wrong, ("slip.png", "object.png"))[0] == pytest.approx(0.5)
    assert ("degenerate-box", 2) in {(f.kind, f.annotation) for f in check(data).findings}


def test_a_degenerate_answer_is_none(outcomes: dict[str, Outcome]) -> None:
    class BesideThePicture(RedFinder):
        def predict(self, frames: np.ndarray, sizes_hw: None, proposals: None) -> RawDetections:
            # in the letterbox's border: nothing of it is left inside the picture
            return RawDetections(
                np.full((len(frames), 1, 4), (10, 0, 50, 8), np.float32), np.ones((len(frames), 1, 1), np.float32)
            )

    file = outcomes["object.png"].file
    (outcome,) = detect_files([file], BesideThePicture(), Selection(conf=0.5))
    assert outcome.found is not None
    assert len(outcome.found) == 0


def test_a_crowd_counts_neither_way(truth: AnnotationSet, batch: Batch, outcomes: dict[str, Outcome]) -> None:
    assert target_of(batch, "crowd.png") == ([list(map(float, BOX))], [True])
    assert red_in(outcomes["crowd.png"]) == [list(map(float, BOX))]  # detection does not know the truth
    assert ap_of(truth, outcomes, ("object.png", "crowd.png")) == (1.0, 1)  # found: no false positive
    nothing = {**outcomes, "crowd.png": replace(outcomes["crowd.png"], found=Detections(HW))}
    assert ap_of(truth, nothing, ("object.png", "crowd.png")) == (1.0, 1)  # not found: not missed


def test_a_corrupt_picture_is_named_with_one_cause(
    truth: AnnotationSet, batch: Batch, outcomes: dict[str, Outcome], data: Path
) -> None:
    assert "broken.png" not in {Path(file).name for file in batch.files}
    (error,) = batch.unreadable
    fault = outcomes["broken.png"].fault
    assert fault is not None
    assert outcomes["broken.png"].found is None
    (finding,) = [f for f in check(data).findings if f.kind == "unreadable-picture"]
    assert (
        (error.path.name, error.cause) == (fault.path.name, fault.cause) == (Path(finding.file).name, finding.message)
    )
    # its object counts and is not found
    ap, objects = ap_of(truth, outcomes, ("object.png", "broken.png"))
    assert objects == 2
    assert ap == pytest.approx(51 / 101)  # recall 0 to 0.5 of COCO's 101 points


def test_exif_is_applied_and_boxes_are_of_the_upright_picture(
    truth: AnnotationSet, batch: Batch, outcomes: dict[str, Outcome], data: Path
) -> None:
    i = [Path(file).name for file in batch.files].index("turned.jpg")
    j = [Path(file).name for file in batch.files].index("object.png")
    different = np.abs(batch.frames[i].numpy().astype(int) - batch.frames[j].numpy()).max(axis=-1) > 100
    assert different.mean() < 0.01  # the same pixels, but for JPEG's edges
    assert target_of(batch, "turned.jpg") == target_of(batch, "object.png")
    outcome = outcomes["turned.jpg"]
    assert outcome.found is not None
    assert outcome.found.image_hw == HW
    np.testing.assert_allclose(outcome.found.boxes, [BOX], atol=1.5)
    assert ap_of(truth, outcomes, ("turned.jpg",)) == (1.0, 1)
    assert "exif" not in {f.kind for f in check(data).findings}  # its size is said upright
