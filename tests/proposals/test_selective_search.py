"""Selective search: hand-computed similarities, grouping as a naive reference does it, boxes as promised."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data as samples

from detseg.geometry import boxes as box_geometry
from detseg.proposals import MODES, SelectiveSearch, regions, search
from detseg.proposals.grouping import Strategy, group, similarities
from detseg.proposals.regions import Regions, describe, pixel_bins
from detseg.proposals.selective_search import colour_space, segments

STRATEGIES = [
    Strategy(colour=True, texture=True, size=True, fill=True),
    Strategy(texture=True, size=True, fill=True),
    Strategy(fill=True),
    Strategy(size=True),
]


def patchwork(seed: int, h: int = 24, w: int = 30, rows: int = 3, columns: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """A picture of noisy coloured tiles of uneven sizes, and the tile of each pixel."""
    rng = np.random.default_rng(seed)
    y = np.searchsorted(np.sort(rng.choice(np.arange(1, h), rows - 1, replace=False)), np.arange(h), side="right")
    x = np.searchsorted(np.sort(rng.choice(np.arange(1, w), columns - 1, replace=False)), np.arange(w), side="right")
    labels = y[:, None] * columns + x[None, :]
    image = rng.integers(0, 256, (rows * columns, 3))[labels] + rng.normal(0, 12, (h, w, 3))
    return np.clip(image, 0, 255).astype(np.uint8), labels.astype(np.int64)


def naive_similarity(a: np.ndarray, b: np.ndarray, image: np.ndarray, strategy: Strategy) -> float:
    """Of two masks (h, w), straight from the pixels: section 3.2 of the paper, without any shortcut."""
    both, total = a | b, 0.0
    if strategy.colour:
        total += sum(min(p, q) for p, q in zip(colour_histogram(a, image), colour_histogram(b, image), strict=True))
    if strategy.texture:
        total += sum(min(p, q) for p, q in zip(texture_histogram(a, image), texture_histogram(b, image), strict=True))
    if strategy.size:
        total += 1 - both.sum() / both.size
    if strategy.fill:
        y, x = np.nonzero(both)
        total += 1 - ((np.ptp(y) + 1) * (np.ptp(x) + 1) - both.sum()) / both.size
    return total


def colour_histogram(mask: np.ndarray, image: np.ndarray) -> list[float]:
    counts = [np.histogram(image[mask][:, c], bins=25, range=(0, 256))[0] for c in range(3)]
    return (np.concatenate(counts) / (3 * mask.sum())).tolist()


def texture_histogram(mask: np.ndarray, image: np.ndarray) -> list[float]:
    """Eight directions, each with its own rectified derivative, by a convolution in two dimensions."""
    at = np.arange(-4, 5)
    bell = np.exp(-(at[None, :] ** 2 + at[:, None] ** 2) / 2)
    bell /= bell.sum()
    rows = []
    for channel in range(3):
        for angle in np.arange(4) * np.pi / 4:
            along = at[None, :] * np.cos(angle) + at[:, None] * np.sin(angle)
            kernel = (bell * along).astype(np.float64)
            slope = cv2.filter2D(image[..., channel].astype(np.float64), -1, kernel, borderType=cv2.BORDER_REFLECT_101)
            for sign in (1, -1):
                steps = np.minimum(np.maximum(sign * slope[mask], 0) / 2.5, 9).astype(int)
                rows.append(np.bincount(steps, minlength=10) / mask.sum() / 24)
    return np.concatenate(rows).tolist()


def naive_group(labels: np.ndarray, image: np.ndarray, strategy: Strategy) -> list[list[int]]:
    """All pairs of touching regions compared anew in every round; similarities from the pixels of the masks."""
    found = [labels == i for i in range(labels.max() + 1)]
    alive = list(range(len(found)))
    similarity = cache(lambda i, j: naive_similarity(found[i], found[j], image, strategy))

    def touch(a: np.ndarray, b: np.ndarray) -> bool:
        return bool((cv2.dilate(a.astype(np.uint8), np.ones((3, 3))) * b).any())

    while len(alive) > 1:
        pairs = [(i, j) for i in alive for j in alive if i < j and touch(found[i], found[j])]
        values = [similarity(i, j) for i, j in pairs]
        # rounding must not decide: of practically equal pairs the first, as in the queue
        best = next(p for p, v in zip(pairs, values, strict=True) if v > max(values) - 1e-6)
        found.append(found[best[0]] | found[best[1]])
        alive = [i for i in alive if i not in best] + [len(found) - 1]
    ends = [(np.nonzero(m)[1], np.nonzero(m)[0]) for m in found]
    return [[int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1] for x, y in ends]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("seed", range(3))
def test_grouping_is_that_of_a_naive_reference(strategy, seed):
    image, labels = patchwork(seed)
    found = group(describe(labels, pixel_bins(image)), strategy)
    assert found.tolist() == naive_group(labels, image, strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_hierarchy_is_a_tree_of_hulls_with_the_picture_as_its_root(strategy):
    image, labels = patchwork(11, rows=4, columns=5)
    found = group(describe(labels, pixel_bins(image)), strategy).tolist()
    leaves = labels.max() + 1
    assert len(found) == 2 * leaves - 1
    assert found[-1] == [0, 0, labels.shape[1], labels.shape[0]]
    for i, (x1, y1, x2, y2) in enumerate(found[:leaves]):
        y, x = np.nonzero(labels == i)
        assert [x1, y1, x2, y2] == [x.min(), y.min(), x.max() + 1, y.max() + 1]
    for i in range(leaves, len(found)):
        hulls = [[*map(min, a[:2], b[:2]), *map(max, a[2:], b[2:])] for a in found[:i] for b in found[:i] if a is not b]
        assert found[i] in hulls


@pytest.mark.parametrize("strategy", STRATEGIES[:2])
def test_a_mirrored_picture_has_the_mirrored_hierarchy(strategy):
    image, labels = patchwork(5)
    found = group(describe(labels, pixel_bins(image)), strategy)
    other = group(describe(labels[:, ::-1], pixel_bins(np.ascontiguousarray(image[:, ::-1]))), strategy)
    mirrored = np.stack([30 - other[:, 2], other[:, 1], 30 - other[:, 0], other[:, 3]], axis=1)
    assert mirrored.tolist() == found.tolist()


def test_similarities_by_hand():
    """Two regions of a picture of 100 pixels: 10 pixels at 0, 0 .. 5, 2 and 20 at 5, 0 .. 10, 5 (5 of them missing)."""
    hand = Regions(
        sizes=np.array([10, 20]),
        boxes=np.array([[0, 0, 5, 2], [5, 0, 10, 5]]),
        pairs=np.array([[0, 1]]),
        colour=np.float32([[0.5, 0.5, 0, 0], [0.25, 0, 0.5, 0.25]]),
        texture=np.float32([[1, 0], [0.9, 0.1]]),
        area=100,
    )

    def alone(**which: bool) -> float:
        return float(similarities(hand, hand.pairs, Strategy(**which))[0])

    assert alone(colour=True) == pytest.approx(0.25)  # min(0.5, 0.25)
    assert alone(texture=True) == pytest.approx(0.9)
    assert alone(size=True) == pytest.approx(0.7)  # 1 - 30 / 100
    assert alone(fill=True) == pytest.approx(0.8)  # 1 - (10 * 5 - 30) / 100
    assert alone(colour=True, texture=True, size=True, fill=True) == pytest.approx(2.65)


def test_the_histogram_of_a_union_is_that_of_its_pixels():
    image, labels = patchwork(7)
    bins = pixel_bins(image)
    apart, joined = describe(labels, bins), describe(np.maximum(labels, 1) - 1, bins)  # tiles 0 and 1 are one
    a, b = apart.sizes[0], apart.sizes[1]
    for name in ("colour", "texture"):
        one, two = getattr(apart, name)[:2]
        np.testing.assert_allclose((one * a + two * b) / (a + b), getattr(joined, name)[0], atol=1e-6)
        np.testing.assert_allclose(getattr(apart, name).sum(axis=1), 1, atol=1e-5)


def test_a_ramp_has_its_derivative_in_one_direction():
    """Brightness rises by 8 a pixel to the right: bin 3 (8 / 2.5) to the right, 0 to the left, 2 (5.7) aslant."""
    ramp = np.broadcast_to(np.uint8(np.arange(24) * 8)[None, :, None], (20, 24, 1))
    inner = np.zeros((20, 24), np.int64)
    inner[5:15, 5:19] = 1  # away from the border, where the picture is mirrored
    texture = describe(inner, pixel_bins(np.ascontiguousarray(ramp))).texture[1].reshape(8, 10) * 8
    # in pairs of a direction and its opposite: right, left, down right, up left, down, up, down left, up right
    assert texture.argmax(axis=1).tolist() == [3, 0, 2, 0, 0, 0, 0, 2]
    np.testing.assert_allclose(texture.max(axis=1), 1, atol=1e-6)


def test_touching_regions():
    labels = np.array([[0, 0, 1], [0, 2, 1], [3, 3, 3]])
    assert regions._touching(labels).tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert regions._touching(np.array([[0, 0, 1], [2, 2, 1], [2, 3, 3]])).tolist() == [
        [0, 1],
        [0, 2],
        [1, 2],
        [1, 3],
        [2, 3],
    ]
    assert regions._touching(np.zeros((2, 2), np.int64)).shape == (0, 2)


def test_coloured_rectangles_are_found_exactly():
    image = np.full((120, 160, 3), (40, 60, 200), np.uint8)
    image[20:70, 30:90] = (220, 40, 30)
    image[80:110, 100:150] = (30, 200, 60)
    wanted = np.array([[30, 20, 90, 70], [100, 80, 150, 110], [0, 0, 160, 120]], np.float64)
    for mode in MODES.values():
        found = search(image, replace(mode, sigma=0.0))
        assert box_geometry.iou(wanted, found.boxes.astype(np.float64)).max(axis=1) == pytest.approx([1, 1, 1])


def test_what_is_promised_of_proposals():
    image = samples.astronaut()[:120, 150:300]
    found = search(image)
    assert found.boxes.dtype == np.float32
    assert len(found) > 100
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, 2:] <= [150, 120]).all()
    assert len(np.unique(found.boxes, axis=0)) == len(found)
    assert [0, 0, 150, 120] in found.boxes.tolist()  # the whole picture
    assert ((found.scores > 0) & (found.scores <= 1)).all()
    assert (np.diff(found.scores) <= 0).all()
    again = search(image)
    assert np.array_equal(again.boxes, found.boxes)
    assert np.array_equal(again.scores, found.scores)
    other = search(image, SelectiveSearch(seed=1))
    assert not np.array_equal(other.boxes, found.boxes)
    assert {*map(tuple, other.boxes)} == {*map(tuple, found.boxes)}  # only the order is random
    assert np.array_equal(search(image, SelectiveSearch(max_boxes=50)).boxes, found.boxes[:50])
    narrow = search(image, SelectiveSearch(min_side=30)).boxes
    assert (narrow[:, 2:] - narrow[:, :2] >= 30).all()
    assert {*map(tuple, narrow)} == {tuple(b) for b in found.boxes if min(b[2] - b[0], b[3] - b[1]) >= 30}


def test_threads_change_nothing():
    image, _ = patchwork(3, 60, 80)
    one, many = (search(image, MODES["quality"], threads) for threads in (1, 3))
    assert np.array_equal(one.boxes, many.boxes)
    assert np.array_equal(one.scores, many.scores)


def test_large_pictures_are_shrunk_and_boxes_are_of_the_large_one():
    image = np.full((900, 1200, 3), 250, np.uint8)
    image[150:450, 300:900] = (200, 30, 40)
    found = search(image)
    assert (found.boxes[:, 2:] <= [1200, 900]).all()
    overlap = box_geometry.iou(np.array([[300.0, 150, 900, 450]]), found.boxes.astype(np.float64)).max()
    assert overlap > 0.97  # within a pixel of the small picture, which is 500 wide


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_any_size_and_content_has_proposals(h, w, seed):
    image = np.random.default_rng(seed).integers(0, 256, (h, w, 3)).astype(np.uint8)
    image[: h // 2] = 7  # flat: no derivative, no saturation
    found = search(image, SelectiveSearch(colour_spaces=("hsv", "rgi", "hue"), k=(10,), strategies=(STRATEGIES[0],)))
    assert [0, 0, w, h] in found.boxes.tolist()


def test_colour_spaces():
    image = np.uint8([[[255, 0, 0], [0, 0, 0], [200, 100, 100], [60, 60, 60]]])
    assert colour_space(image, "rgi")[0].tolist() == [[255, 0, 76], [0, 0, 0], [128, 64, 130], [85, 85, 60]]
    assert colour_space(image, "hsv")[0, 0].tolist() == [0, 255, 255]
    assert colour_space(image, "hue").shape == colour_space(image, "grey").shape == (1, 4, 1)
    assert colour_space(image, "lab")[0, 3].tolist()[1:] == [128, 128]  # grey has no colour


def test_segments_of_a_flat_picture_and_of_a_line():
    assert segments(np.zeros((20, 30, 3), np.uint8), 50, 0.8).max() == 0
    assert segments(np.zeros((1, 30, 3), np.uint8), 50, 0.8).shape == (1, 30)


@pytest.mark.parametrize(
    "wrong",
    [{"colour_spaces": ("rgb",)}, {"k": ()}, {"k": (0.5,)}, {"strategies": ()}, {"sigma": -1.0}, {"max_boxes": -1}],
)
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=r"needed|colour space|negative"):
        SelectiveSearch(**wrong)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (0, 4, 3)])
def test_what_is_no_picture(shape):
    with pytest.raises(ValueError, match="a picture is"):
        search(np.zeros(shape, np.uint8))


@pytest.mark.data
@pytest.mark.slow
def test_objects_of_photographs_are_covered(data_dir):
    """The figures that OpenCV's contrib module reaches on the same pictures (benchmarks/selective_search.py)."""
    from detseg import annotations
    from detseg.proposals import propose
    from detseg.proposals.recall import best_overlaps, coverage

    whole = annotations.load(data_dir / "voc-animals", "val")
    for mode, pictures, recall, overlap in (("fast", 60, 0.975, 0.825), ("quality", 12, 1.0, 0.889)):
        truth = whole.subset(range(pictures))
        found = propose([truth.image_path(i) for i in range(pictures)], MODES[mode])
        best = [best_overlaps(truth, i, proposed.proposals) for i, proposed in enumerate(found)]
        reached = coverage(truth, np.concatenate(best))[0]
        assert reached.recall_50 >= recall
        assert reached.best_overlap >= overlap
