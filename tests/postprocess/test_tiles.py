"""Tiles. Oracle: the picture answered for in one piece."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from detseg.postprocess.label_maps import shares
from detseg.postprocess.tiles import Tiling, segment_tiled, side_by_side

WEIGHTS = np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32)


def each_pixel_alone(frames: np.ndarray) -> np.ndarray:
    """A network that looks at one pixel."""
    return np.einsum("kc,nhwc->nkhw", WEIGHTS, frames.astype(np.float32) / 50 - 2.5)


def with_neighbours(reach: int):
    """A network that looks at a square around each pixel, and beyond its frame at the mirror image."""

    def ask(frames: np.ndarray) -> np.ndarray:
        size = (2 * reach + 1, 2 * reach + 1)
        means = [cv2.blur(f.astype(np.float32), size, borderType=cv2.BORDER_REFLECT_101) for f in frames]
        return np.einsum("kc,nhwc->nkhw", WEIGHTS, np.stack(means) / 10 - 12.5)

    return ask


def of_shares(ask):
    """What tiles are asked with: probabilities."""
    return lambda frames: shares(ask(frames))


def picture(h: int, w: int) -> np.ndarray:
    small = np.random.default_rng(h).integers(0, 256, (h // 10 + 2, w // 10 + 2, 3), dtype=np.uint8)
    return cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("hw", [(300, 500), (64, 64), (20, 33), (129, 64), (1, 700)])
@pytest.mark.parametrize("tiling", [Tiling((64, 96), 32), Tiling((128, 128), 64), Tiling((64, 64), 0)])
def test_a_network_of_single_pixels_does_not_notice_tiles(hw, tiling):
    image = picture(*hw)
    whole = each_pixel_alone(image[None])[0].argmax(axis=0)
    for batch in (1, 3):
        found, sure = segment_tiled(image, tiling, of_shares(each_pixel_alone), batch)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, whole)
        np.testing.assert_allclose(sure, of_shares(each_pixel_alone)(image[None])[0].max(axis=0), atol=1e-6)


@pytest.mark.parametrize(("overlap", "hw"), [(0, (200, 333)), (32, (200, 333)), (32, (95, 97)), (0, (40, 30))])
def test_with_enough_context_tiles_answer_as_the_whole_picture(overlap, hw):
    image = picture(*hw)
    ask = with_neighbours(20)
    scores = ask(image[None])[0]
    best, second = -np.sort(-scores, axis=0)[:2]
    sure = best - second > 1e-3
    found, _ = segment_tiled(image, Tiling((160, 128), overlap, context=32), of_shares(ask))
    np.testing.assert_array_equal(found[sure], scores.argmax(axis=0)[sure])
    assert sure.mean() > 0.98


def test_too_little_context_is_noticed():
    """So that the test before this one can fail."""
    image, ask = picture(200, 333), with_neighbours(20)
    found, _ = segment_tiled(image, Tiling((160, 128), 0), of_shares(ask))
    assert (found != ask(image[None])[0].argmax(axis=0)).sum() > 50


def test_nothing_is_asked_twice_for_one_tile():
    asked: list[int] = []

    def ask(frames: np.ndarray) -> np.ndarray:
        asked.append(len(frames))
        return shares(each_pixel_alone(frames))

    segment_tiled(picture(192, 192), Tiling((128, 128), 64), ask, batch=2)
    assert asked == [2, 2]  # two by two tiles of 128 with 64 shared


def test_side_by_side_they_show_each_pixel_once():
    image = picture(128, 192)
    shown, boxes = zip(*side_by_side(image, Tiling((64, 64), 32), batch=2), strict=True)
    assert [len(tiles) for tiles in shown] == [2, 1, 2, 1]  # row by row
    np.testing.assert_array_equal(shown[2][1], image[64:, 64:128])
    rows = np.concatenate(shown).reshape(2, 3, 64, 64, 3).transpose(0, 2, 1, 3, 4)
    np.testing.assert_array_equal(rows.reshape(image.shape), image)
    np.testing.assert_array_equal(np.concatenate(boxes), [[0, 0, 64, 64]] * 6)


@pytest.mark.parametrize("hw", [(100, 333), (64, 64), (20, 33), (1, 700), (97, 129)])
@pytest.mark.parametrize("tiling", [Tiling((64, 96), 32), Tiling((160, 128), 32, context=32)])
def test_tiles_that_overlap_share_the_picture_out(hw, tiling):
    """Oracle: what the boxes hold, tile after tile, is every pixel of the picture once."""
    places = np.arange(hw[0] * hw[1], dtype=np.int32).reshape(hw)
    image = np.stack([places & 255, places >> 8, np.zeros_like(places)], axis=2).astype(np.uint8)
    seen = []
    for tiles, boxes in side_by_side(image, tiling.within(hw), batch=2):
        for tile, (x1, y1, x2, y2) in zip(tiles.astype(np.int32), boxes.astype(int), strict=True):
            assert 0 <= x1 < x2 <= tile.shape[1]
            assert 0 <= y1 < y2 <= tile.shape[0]
            own = tile[y1:y2, x1:x2]
            seen.append((own[..., 0] + 256 * own[..., 1]).ravel())
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(places.size))


def test_what_two_tiles_show_belongs_to_that_in_which_it_lies_deeper():
    ((_, boxes),) = side_by_side(picture(96, 192), Tiling((96, 128), 0), batch=2)
    np.testing.assert_array_equal(boxes, [[0, 0, 96, 96], [32, 0, 128, 96]])  # 64 are shown by both


@pytest.mark.parametrize("length", [1, 64, 65, 200, 1000, 1003])
@pytest.mark.parametrize(("size", "overlap"), [(64, 0), (64, 32), (128, 96), (224, 64)])
def test_tiles_lie_evenly_within_the_picture(length, size, overlap):
    starts = Tiling((size, size), overlap).starts(length, 0)
    steps = np.diff(starts)
    assert starts[0] == 0
    assert length <= starts[-1] + size < max(length, size) + 32
    assert not (np.array(starts) % 32).any()
    assert not len(steps) or (steps.max() <= size - overlap and steps.max() - steps.min() <= 32)


def test_where_tiles_overlap_the_one_that_sees_more_decides():
    """What a tile says within 40 pixels of its edge is wrong; only the picture's own border shows it."""
    image = picture(160, 160)

    def ask(frames: np.ndarray) -> np.ndarray:
        answers = np.zeros((len(frames), 2, *frames.shape[1:3]), np.float32)
        answers[:, 0] = 1
        answers[:, 0, 40:-40, 40:-40], answers[:, 1, 40:-40, 40:-40] = 0.2, 0.8
        return answers

    found, _ = segment_tiled(image, Tiling((128, 128), 96), ask)
    np.testing.assert_array_equal(found, np.pad(np.ones((80, 80), np.uint8), 40))


@pytest.mark.parametrize(
    ("tiling", "hw", "size_hw"),
    [
        (Tiling((128, 128), 64), (300, 300), (128, 128)),
        (Tiling((128, 128), 64), (50, 300), (64, 128)),
        (Tiling((128, 128), 64), (300, 1), (128, 32)),
        (Tiling((128, 160), 0, context=32), (60, 70), (128, 160)),
        (Tiling((256, 256), 64, context=32), (60, 70), (128, 160)),
    ],
)
def test_a_picture_gets_tiles_no_larger_than_itself(tiling, hw, size_hw):
    fitting = tiling.within(hw)
    assert fitting.size_hw == size_hw
    assert (fitting.overlap, fitting.context) == (tiling.overlap, tiling.context)
    image = picture(*hw)
    whole = each_pixel_alone(image[None])[0].argmax(axis=0)
    np.testing.assert_array_equal(segment_tiled(image, fitting, of_shares(each_pixel_alone))[0], whole)
    for axis in (0, 1):  # along a side that holds several tiles, they share what was asked for
        starts, core = fitting.starts(hw[axis], axis), fitting.core_hw[axis]
        assert all(second - first <= core - tiling.overlap for first, second in pairwise(starts))


@pytest.mark.parametrize("wrong", [((100, 64), 0, 0), ((64, 64), 64, 0), ((64, 64), 0, 32), ((64, 64), 10, 0)])
def test_tiles_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=r"multiples of 32|leave nothing"):
        Tiling.usual(*wrong)
