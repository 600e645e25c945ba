"""Boxes, masks and label maps against the pixels, through everything that moves them.

Oracle: pictures drawn here, each object of a colour of its own on grey, and the places of these colours in the frames.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg.annotations import load, load_label_maps
from detseg.annotations.mask_files import write_mask
from detseg.annotations.semantic import IGNORE
from detseg.augment.copy_paste import pasted, uncovered
from detseg.augment.cutouts import Cutouts
from detseg.augment.layouts import turned
from detseg.augment.rotation import ellipse_boxes, rotated
from detseg.augment.sample import Sample
from detseg.errors import DetsegError
from detseg.geometry import rle as run_lengths
from detseg.preprocess import Preprocess
from detseg.training.config import TrainConfig
from detseg.training.data import MapSet, Ticket, TrainingSet

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255)]
GREY = 118
FRAME = (128, 160)


def drawn(index: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Picture `index` of three, (h, w, 3), and (h, w) which object a pixel belongs to, -1 for none: two in each.

    They lie in a circle around the middle that fits the picture: turning cuts none off.
    """
    hw = [(110, 150), (150, 110), (120, 120)][index]
    owner = np.full(hw, -1, np.int64)
    ys, xs = np.mgrid[: hw[0], : hw[1]] + 0.5
    for half, (cx, cy, a, b) in enumerate([(0.36, 0.4, 0.12, 0.15), (0.64, 0.62, 0.13, 0.11)]):
        dx, dy = (xs - cx * hw[1]) / (a * hw[1]), (ys - cy * hw[0]) / (b * hw[0])
        inside = dx**2 + dy**2 < 1 if kind == "ellipse" else (abs(dx) < 1) & (abs(dy) < 1)
        owner[inside] = 2 * index + half
    image = np.full((*hw, 3), GREY, np.uint8)
    for number, colour in enumerate(COLOURS):
        image[owner == number] = colour
    return image, owner


def write_objects(root: Path, kind: str, *, outlines: bool) -> Path:
    images, annotations = [], []
    root.mkdir(parents=True)
    for index in range(3):
        image, owner = drawn(index, kind)
        cv2.imwrite(str(root / f"{index}.png"), image[..., ::-1])
        images.append({"id": index, "file_name": f"{index}.png", "height": owner.shape[0], "width": owner.shape[1]})
        for number in (2 * index, 2 * index + 1):
            ys, xs = np.nonzero(owner == number)
            box = [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]
            entry = {"id": number + 1, "image_id": index, "category_id": number + 1, "iscrowd": 0, "area": len(xs)}
            entry["bbox"] = [int(side) for side in box]
            if outlines:
                coded = run_lengths.encode(owner == number)
                entry["segmentation"] = {"size": list(owner.shape), "counts": coded["counts"].decode()}
            annotations.append(entry)
    categories = [{"id": number + 1, "name": f"c{number}"} for number in range(6)]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (root / "_annotations.coco.json").write_text(text)
    return root


def write_maps(root: Path) -> Path:
    for index in range(3):
        image, owner = drawn(index, "ellipse")
        (root / "images").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "images" / f"{index}.png"), image[..., ::-1])
        write_mask(root / "masks" / f"{index}.png", (owner + 1).astype(np.uint8), np.zeros((256, 3), np.uint8))
    (root / "classes.txt").write_text("0 ground\n" + "".join(f"{i + 1} c{i}\n" for i in range(6)))
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    """Rectangles and ellipses with and without outlines, and label maps."""
    root = tmp_path_factory.mktemp("shapes")
    kinds = [(kind, outlines) for kind in ("rectangle", "ellipse") for outlines in (True, False)]
    made = {
        f"{kind}{'' if outlines else ' by box'}": write_objects(root / f"{kind}{outlines}", kind, outlines=outlines)
        for kind, outlines in kinds
    }
    return made | {"maps": write_maps(root / "maps")}


def where(image: np.ndarray, number: int) -> np.ndarray:
    """(h, w) the pixels that are nearer to this object's colour than to grey, in every channel."""
    strong = np.array(COLOURS[number]) == 255
    value = image.astype(int)
    return np.where(strong, value >= 175, value <= 66).all(axis=2)


def components(mask: np.ndarray, least: int = 12) -> list[np.ndarray]:
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return [numbers == i for i in range(1, len(stats)) if stats[i, cv2.CC_STAT_AREA] >= least]


def bounds(mask: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(mask)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], float)


def thinned(mask: np.ndarray, steps: int) -> np.ndarray:
    """Shrunk by so many pixels, also from the frame's edges."""
    square = np.ones((2 * steps + 1, 2 * steps + 1), np.uint8)
    return cv2.erode(mask.astype(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0


def frames(data: Path, *, epochs: int = 6, mosaic: bool = False, masks: bool = True, **settings):
    config = TrainConfig(data=str(data), **{"augment": "light", "hsv": 0, **settings})
    set_ = TrainingSet(load(data), config, Preprocess(FRAME), masks=masks)
    for epoch in range(epochs):
        for picture in range(3):
            sample, _, errors = set_[Ticket(epoch, picture, FRAME, mosaic)]
            assert not errors
            yield sample


def check(sample, *, within: float, masks: bool = True, upright: bool = True) -> int:
    """Every box lies around its colour, every mask on it, every colour has a box; how many boxes were looked at.

    A box that the frame cuts is not narrowed to what is left of its object: only what is `upright`, a rectangle that
    was not turned, fills it then.
    """
    seen = 0
    for row, (box, label) in enumerate(zip(sample.boxes, sample.labels.tolist(), strict=True)):
        x1, y1, x2, y2 = box
        if min(x2 - x1, y2 - y1) < 6:
            continue
        coloured = where(sample.image, label)
        parts = []
        for part in components(coloured):
            ys, xs = np.nonzero(part)
            if x1 <= xs.mean() + 0.5 <= x2 and y1 <= ys.mean() + 0.5 <= y2:
                parts.append(part)
        assert parts, (label, box)
        own = np.any(parts, axis=0)
        tight = upright or (box[:2].min() > 1 and x2 < FRAME[1] - 1 and y2 < FRAME[0] - 1)
        low, high = bounds(own)[:2] - box[:2], box[2:] - bounds(own)[2:]
        assert min(*low, *high) >= -within
        assert max(*low, *high) <= within or not tight
        seen += tight
        if masks and sample.masks is not None:
            mask = sample.masks.whole(sample.image.shape[:2])[row]
            assert not (thinned(mask, 2) & ~own).any()
            assert not (thinned(own, 2) & ~mask).any()
    for label in range(6):
        boxes = sample.boxes[sample.labels == label]
        for part in components(where(sample.image, label), least=80):
            x1, y1, x2, y2 = bounds(thinned(part, 1)) if thinned(part, 1).any() else bounds(part)
            around = (boxes[:, :2] - 2 <= (x1, y1)).all(axis=1) & (boxes[:, 2:] + 2 >= (x2, y2)).all(axis=1)
            assert around.any(), (label, part.sum())
    return seen


MOVES = {
    "jitter": {},
    "patches": {"layout": "patches"},
    "crops": {"layout": "crops"},
    "mosaic": {"mosaic": True},
    "turns": {"turns": True, "flip_vertical": True},
    "turned mosaic": {"turns": True, "mosaic": True, "flip_vertical": True},
    "as in use": {"augment": "none"},
    "stretched": {"augment": "none", "fit": "stretch"},
}


@pytest.mark.parametrize("kind", ["rectangle", "ellipse"])
@pytest.mark.parametrize("move", MOVES)
def test_boxes_and_masks_are_where_their_colours_are(data, kind, move):
    upright = kind == "rectangle"
    seen = sum(check(sample, within=1.5, upright=upright) for sample in frames(data[kind], **MOVES[move]))
    assert seen >= 15


@pytest.mark.parametrize(("recipe", "within"), [("none", 1.5), ("light", 1.5), ("standard", 1.5), ("strong", 4)])
def test_recipes_without_colour_shifts(data, recipe, within):
    """The strong one blurs, adds noise and compresses: edges are no longer where they were to the pixel."""
    masks = recipe != "strong"
    settings = {"augment": recipe, "flip_vertical": True, "epochs": 10}
    assert sum(check(sample, within=within, masks=masks) for sample in frames(data["rectangle"], **settings)) >= 40


@pytest.mark.parametrize("kind", ["rectangle", "ellipse"])
@pytest.mark.parametrize("others", [{}, {"mosaic": True}, {"turns": True, "layout": "crops"}], ids=str)
def test_what_is_turned_by_an_angle_has_the_box_of_its_outline(data, kind, others):
    samples = frames(data[kind], rotate=40, **others)
    assert sum(check(sample, within=1.5, upright=False) for sample in samples) >= 12


def test_masks_serve_to_turn_boxes_of_those_who_do_not_learn_from_them(data):
    with_masks = frames(data["rectangle"], rotate=40)
    without = frames(data["rectangle"], rotate=40, masks=False)
    for one, other in zip(with_masks, without, strict=True):
        assert other.masks is None
        np.testing.assert_array_equal(one.boxes, other.boxes)


def test_without_outlines_a_turned_ellipse_has_its_box(data):
    """Exactly what the rule is made for; a box around the turned corners would be too large."""
    samples = frames(data["ellipse by box"], rotate=45, jitter=0, epochs=10, masks=False)
    assert sum(check(sample, within=1.5, upright=False) for sample in samples) > 40


def test_without_outlines_the_box_of_a_turned_rectangle_holds_no_more_than_it(data):
    """Oracle: the coloured pixels' box, which is that of the corners; the ellipse's is smaller, never larger."""
    overlaps = []
    for sample in frames(data["rectangle by box"], rotate=30, jitter=0, masks=False):
        for box, label in zip(sample.boxes, sample.labels.tolist(), strict=True):
            seen = bounds(where(sample.image, label))
            assert (box[:2] >= seen[:2] - 1.5).all()
            assert (box[2:] <= seen[2:] + 1.5).all()
            overlaps.append((box[2:] - box[:2]).prod() / (seen[2:] - seen[:2]).prod())
    assert len(overlaps) > 25
    assert min(overlaps) > 0.53  # of a square turned by 30 degrees: 1 / (cos 30 + sin 30) ** 2


@pytest.mark.parametrize("kind", ["rectangle", "ellipse"])
@pytest.mark.parametrize("others", [{}, {"turns": True, "flip_vertical": True}, {"layout": "patches"}], ids=str)
def test_what_is_pasted_covers_and_what_is_covered_shrinks(data, kind, others):
    plain = sum(len(sample.boxes) for sample in frames(data[kind], **others))
    samples = list(frames(data[kind], copy_paste=1.0, **others))
    assert sum(check(sample, within=1.5, upright=False) for sample in samples) >= 15
    assert sum(len(sample.boxes) for sample in samples) > plain


@pytest.mark.parametrize("kind", ["rectangle", "ellipse"])
def test_all_at_once(data, kind):
    """The same object may be there several times: the pixels of a colour are the masks of its objects together.

    A few pixels of the soft edge of one may lie between it and another of its colour that was pasted beside it.
    """
    everything = {"mosaic": True, "rotate": 30, "turns": True, "flip_vertical": True, "copy_paste": 1.0}
    seen = 0
    for sample in frames(data[kind], **everything):
        masks = sample.masks.whole(FRAME)
        assert masks.sum(axis=0).max() == 1  # no pixel belongs to two
        for label in set(sample.labels.tolist()):
            own, coloured = masks[sample.labels == label].any(axis=0), where(sample.image, label)
            assert (thinned(own, 2) & ~coloured).sum() <= 3
            assert not (thinned(coloured, 2) & ~own).any()
        for mask, (x1, y1, x2, y2) in zip(masks, sample.boxes, strict=True):
            if mask.any():
                held = bounds(mask) - (x1, y1, x2, y2)
                assert held[:2].min() > -1.5
                assert held[2:].max() < 1.5
                seen += 1
    assert seen > 60


def test_covered_objects_by_hand():
    """A square of 10 pixels, pasted over by others: half, all but a corner, all; and one that is drawn loosely."""

    def masks(*places: tuple[int, int, int, int]) -> Cutouts:
        corners = np.array([(x1, y1) for x1, y1, _, _ in places])
        parts = tuple(np.ones((y2 - y1, x2 - x1), np.uint8) for x1, y1, x2, y2 in places)
        return Cutouts(corners, parts, np.ones(len(places), bool))

    boxes = np.float32([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 72, 13], [80, 0, 90, 10]])
    drawn = masks((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (61, 0, 71, 10), (80, 0, 90, 10))
    sample = Sample(np.zeros((16, 96, 3), np.uint8), boxes, np.arange(5), np.zeros(5, bool), drawn)
    covered = np.zeros((16, 96), bool)
    covered[:, 4:8] = covered[:, 22:30] = covered[:, 40:50] = covered[:, 66:96] = True
    covered[:, 80:81] = False  # a tenth is left of the last
    left = uncovered(sample, covered)
    assert left.labels.tolist() == [0, 1, 3, 4]
    assert left.boxes.tolist() == [[0, 0, 10, 10], [20, 0, 22, 10], [60, 0, 67, 13], [80, 0, 81, 10]]
    assert left.ignored.tolist() == [False, True, False, True]  # a fifth and a tenth are hardly visible
    assert left.masks.areas().tolist() == [60, 20, 50, 10]
    assert uncovered(sample, np.zeros((16, 96), bool)).boxes.tolist() == boxes.tolist()


def test_pasted_are_some_of_the_objects_with_outlines_and_no_ignored_ones():
    corners = np.array([(0, 0), (10, 0), (20, 0), (30, 0)])
    parts = tuple(np.ones((8, 8), np.uint8) for _ in range(4))
    boxes = np.float32([[x, 0, x + 8, 8] for x, _ in corners.tolist()])
    source = Sample(
        np.full((10, 40, 3), 200, np.uint8), boxes, np.arange(4), np.array([False, True, False, False]),
        Cutouts(corners, parts, np.array([True, True, False, True])),
    )  # fmt: skip
    nothing = source.select(np.zeros(4, bool))
    frame = Sample(np.zeros((10, 40, 3), np.uint8), nothing.boxes, nothing.labels, nothing.ignored, nothing.masks)
    chosen = [tuple(pasted(frame, source, np.random.default_rng(seed)).labels.tolist()) for seed in range(40)]
    assert set(chosen) == {(0,), (3,), (0, 3)}
    out = pasted(frame, source, np.random.default_rng(chosen.index((3,))))
    assert (out.image[..., 0] > 0).sum() == 64
    assert (out.image[:8, 30:38] == 200).all()
    assert pasted(frame, nothing, np.random.default_rng(0)) is frame


def test_a_turned_ellipse_by_hand():
    # twice as wide as high: turned by a quarter it is twice as high as wide; by half of that, sqrt((4 + 1) / 2)
    box = np.float32([[-2, -1, 2, 1]])
    for degrees, (x, y) in ((0, (2, 1)), (90, (1, 2)), (45, (2.5**0.5, 2.5**0.5))):
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        np.testing.assert_allclose(
            ellipse_boxes(box, np.array([[cos, sin, 0], [-sin, cos, 0]])), [[-x, -y, x, y]], atol=1e-6
        )
    quarter = Sample(np.zeros((40, 40, 3), np.uint8), np.float32([[5, 10, 25, 16]]), np.int64([0]), np.bool_([False]))
    np.testing.assert_allclose(rotated(quarter, 90).boxes, turned(quarter, 1).boxes, atol=1e-4)


def test_nothing_is_pasted_in_plain_epochs_nor_drawn_from_chance_where_nothing_is_asked(data):
    for pasting in ({"copy_paste": 1.0, "plain_epochs": 1.0}, {"copy_paste": 0.0, "rotate": 0.0}):
        for one, other in zip(frames(data["ellipse"], **pasting), frames(data["ellipse"]), strict=True):
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.boxes, other.boxes)


MAP_MOVES = [
    {"layout": "jitter"}, {"layout": "crops"}, {"layout": "patches"}, {"mosaic": True},
    {"turns": True, "flip_vertical": True}, {"rotate": 35}, {"rotate": 20, "mosaic": True, "turns": True},
]  # fmt: skip


@pytest.mark.parametrize("settings", MAP_MOVES, ids=str)
def test_label_maps_are_where_their_colours_are(data, settings):
    mosaic, others = settings.get("mosaic", False), {k: v for k, v in settings.items() if k != "mosaic"}
    config = TrainConfig(data=str(data["maps"]), model="fcn", augment="light", hsv=0, **others)
    maps = MapSet(load_label_maps(data["maps"]), config, Preprocess(FRAME))
    seen = 0
    for epoch in range(6):
        for picture in range(3):
            sample, _, _ = maps[Ticket(epoch, picture, FRAME, mosaic)]
            for number in range(6):
                own, coloured = sample.label_map == number + 1, where(sample.image, number)
                assert not (thinned(own, 2) & ~coloured).any()
                assert not (thinned(coloured, 2) & ~own & (sample.label_map != IGNORE)).any()
                seen += thinned(coloured, 2).any()
    assert seen > 15


@pytest.mark.parametrize(
    ("name", "model", "told"), [("ellipse by box", "yolo", "has no outlines"), ("maps", "fcn", "know no objects")]
)
def test_objects_are_not_pasted_where_nobody_knows_their_outlines(data, name, model, told):
    config = TrainConfig(data=str(data[name]), model=model, copy_paste=0.5)
    made, truth = (MapSet, load_label_maps(data[name])) if name == "maps" else (TrainingSet, load(data[name]))
    with pytest.raises(DetsegError, match=told):
        made(truth, config, Preprocess(FRAME))
