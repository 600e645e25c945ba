"""What tiles are told of their picture. Oracle: the picture in one piece, for a network of single pixels and means."""

from __future__ import annotations

import threading
from pathlib import PurePosixPath

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from detseg.annotations import Categories
from detseg.checkpoints import Card
from detseg.images import ImageFile
from detseg.pipeline import Pace, segment_files
from detseg.postprocess import View, Views
from detseg.postprocess.tiles import Tiling
from detseg.preprocess import Preprocess
from detseg.runtimes.picture_means import PictureMeans
from detseg.runtimes.torch_runtime import TorchRuntime


class Pixels(nn.Module):
    """Scores of a pixel, gated by a mean over all, plus others by the mean of what came of that."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.gate, self.whole = (nn.Conv2d(3, 3, 1, bias=False) for _ in range(3))
        self.first, self.second = nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((1, 1))
        generator = torch.Generator().manual_seed(0)
        for layer in (self.own, self.gate, self.whole):
            nn.init.normal_(layer.weight, generator=generator)

    def forward(self, frames, sizes_hw=None, proposals=None):
        x = frames.permute(0, 3, 1, 2) / 50 - 2.5
        y = self.own(x) * self.gate(self.first(x)).sigmoid()
        return (y + self.whole(self.second(x)),)


class OfPixels(TorchRuntime):
    """A runtime of `Pixels` that counts the frames it is shown."""

    def __init__(self) -> None:
        names = Categories.from_names(("a", "b", "c"))
        self.card = Card(model="unet", config={}, categories=names, preprocess=Preprocess((64, 64)), task="segment")
        self.device, self.shown, self._network = "cpu", 0, Pixels().eval()
        self._picture_means = PictureMeans(self._network)

    def _run(self, frames, sizes_hw, proposals):
        self.shown += len(frames)
        return super()._run(frames, sizes_hw, proposals)


@pytest.fixture
def large(tmp_path) -> tuple[np.ndarray, ImageFile]:
    """A picture whose tiles differ much in their means."""
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (2, 3, 3)).repeat(64, 0).repeat(64, 1)
    image = np.clip(patches + rng.normal(0, 40, patches.shape), 0, 255).astype(np.uint8)
    assert cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    return image, ImageFile(tmp_path / "a.png", PurePosixPath("a.png"))


def labels(file: ImageFile, runtime: TorchRuntime, **how) -> np.ndarray:
    (outcome,) = segment_files([file], runtime, **how)
    return outcome.found.labels


@pytest.mark.parametrize("tile", [64, 160, 512])
def test_tiles_larger_than_the_picture_are_the_picture(large, tile):
    image, file = large
    runtime, shown = OfPixels(), []
    runtime._run = lambda frames, *_: shown.append(frames) or OfPixels._run(runtime, frames, None, None)
    labels(file, runtime, tiling=Tiling.usual((tile, tile), None, 0))
    assert {frames.shape[1:3] for frames in shown} == {(min(tile, 128), min(tile, 192))}
    if tile == 512:  # nothing is looked at twice
        np.testing.assert_array_equal(shown, image[None, None])


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("views", [None, Views((View(1.0), View(1.0, mirror_x=True, mirror_y=True)))])
@pytest.mark.parametrize("size_hw", [(64, 64), (96, 160)])  # the second do not divide the picture
def test_tiles_answer_as_the_picture_whose_means_they_are_told(large, batch, views, size_hw):
    image, file = large
    runtime = OfPixels()
    whole = runtime.segment(image[None])[0].argmax(axis=0)
    found = labels(file, runtime, tiling=Tiling(size_hw, 32), pace=Pace(batch), views=views)
    assert (found == whole).mean() > 0.999  # but for the last digit


def test_without_the_means_of_the_picture_they_would_not(large):
    """So that the test before this one can fail."""
    image, file = large
    runtime = OfPixels()
    whole = runtime.segment(image[None])[0].argmax(axis=0)
    runtime.picture_means = lambda parts: ()
    assert (labels(file, runtime, tiling=Tiling((64, 64), 32)) == whole).mean() < 0.98


def test_each_part_is_looked_at_once_and_its_means_are_the_pictures(large):
    image, _ = large
    runtime = OfPixels()
    counted = np.array([[0, 0, 64, 128]], np.float32)
    parts = [(image[None, :, :64], counted), (np.stack([image[:, 64:128], image[:, 128:]]), counted.repeat(2, 0))]
    means = runtime.picture_means(parts)
    assert runtime.shown == 3
    expected = (image / 50 - 2.5).mean(axis=(0, 1))
    assert [mean.shape for mean in means] == [(3,), (3,)]
    np.testing.assert_allclose(means, [expected, expected], atol=1e-4)


@pytest.mark.parametrize("stride", [1, 4, 24])
def test_of_a_map_each_cell_counts_as_much_as_its_box_covers(large, stride):
    """Oracle: the picture's pixels, enlarged cell by cell from what the pool is shown."""
    cells = nn.AvgPool2d(stride)
    means = PictureMeans(nn.Sequential(pool := nn.AdaptiveAvgPool2d(1)))
    frames = np.stack([large[0][:96, :48], large[0][32:, 100:148]])
    boxes = np.array([[0, 10, 29, 96], [13, 0, 48, 71]], np.float32)
    told = means.average(
        lambda shown: pool(cells(torch.from_numpy(shown).float().permute(0, 3, 1, 2))), [(frames, boxes)]
    )
    small = cells(torch.from_numpy(frames).float().permute(0, 3, 1, 2)).numpy()
    fine = small.repeat(stride, 2).repeat(stride, 3)
    counted = np.concatenate([fine[0, :, 10:, :29].reshape(3, -1), fine[1, :, :71, 13:].reshape(3, -1)], axis=1)
    np.testing.assert_allclose(told, [counted.mean(axis=1)], rtol=1e-5)


def test_a_network_without_such_layers_looks_at_nothing(large):
    runtime = OfPixels()
    runtime._picture_means = PictureMeans(nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.AvgPool2d(1)))
    assert runtime.picture_means(iter([(large[0][None], np.array([[0, 0, 192, 128]], np.float32))])) == ()
    assert runtime.shown == 0


def test_threads_do_not_hear_what_others_are_told(large):
    image, _ = large
    runtime = OfPixels()
    alone = runtime.segment(image[None])
    told, plain = {}, {}
    ready = threading.Barrier(4)

    def ask(index: int) -> None:
        means = (np.full(3, index, np.float32),) * 2
        ready.wait()
        for _ in range(20):
            told[index] = runtime.segment(image[None], means=means)
            plain[index] = runtime.segment(image[None])

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(4):
        np.testing.assert_array_equal(plain[index], alone)
        means = (np.full(3, index, np.float32),) * 2
        np.testing.assert_array_equal(told[index], runtime.segment(image[None], means=means))
    assert not np.allclose(told[0], told[1])
