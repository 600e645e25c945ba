"""Decoded pictures are kept within the budget, shared by all workers, and change nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detseg.annotations import load, load_label_maps
from detseg.annotations.sample import write_sample
from detseg.errors import DetsegError, ImageError
from detseg.preprocess import Preprocess
from detseg.training.config import TrainConfig
from detseg.training.data import Batch, EpochBatches, MapSet, TrainingSet, loader
from detseg.training.picture_cache import PictureCache, budget_of, bytes_of, free_memory

COUNT, PIXELS = 6, 48 * 64
HEADER = 8 * COUNT


def data_set(root: Path, task: str, cache: int) -> TrainingSet | MapSet:
    values = {"data": str(root), "imgsz": 32, "batch": 3, "mosaic": 0.5, "seed": 1, "cache": cache}
    config = TrainConfig(**values, model="yolo" if task == "detect" else "unet")
    if task == "segment":
        return MapSet(load_label_maps(root), config, Preprocess((32, 32)))
    return TrainingSet(load(root), config, Preprocess((32, 32)))


def batches(data: TrainingSet | MapSet, workers: int, between=lambda: None) -> list[Batch]:
    """Of two epochs; what is done `between` them."""
    order = EpochBatches(len(data), data.config, data.truth.image_hw)
    feed, found = loader(data, order, workers), []
    for order.epoch in (0, 1):
        found += list(feed)
        between()
    return found


def same(mine: list[Batch], theirs: list[Batch]) -> bool:
    def maps(batch: Batch) -> torch.Tensor:
        return torch.zeros(0) if batch.label_maps is None else batch.label_maps

    return all(
        torch.equal(a.frames, b.frames)
        and torch.equal(maps(a), maps(b))
        and all(torch.equal(s.boxes, t.boxes) for s, t in zip(a.plain_targets, b.plain_targets, strict=True))
        for a, b in zip(mine, theirs, strict=True)
    )


@pytest.mark.parametrize(("task", "workers"), [("detect", 2), ("segment", 0)])
def test_frames_are_the_same_without_their_files(tmp_path: Path, task: str, workers: int) -> None:
    root = write_sample(tmp_path / "data", images=COUNT, seed=1, hw=(48, 64))
    plain = batches(data_set(root, task, 0), 0)
    data = data_set(root, task, 10**9)
    data.keep_pictures()
    assert data.cache is not None
    assert data.cache.filled == 0

    def forget() -> None:  # whatever the first epoch did not need comes in here
        assert data.cache.filled > 0  # by workers: this process has read none
        for index in range(COUNT):
            data.read(index)
        for path in root.rglob("*.*"):
            if path.suffix in (".jpg", ".png"):
                path.unlink()

    kept = batches(data, workers, forget)
    assert data.cache.filled == data.cache.count == COUNT
    assert len(plain) == 4
    assert same(plain, kept)
    assert not any(batch.unreadable for batch in kept)


def test_no_more_than_the_budget_is_taken(tmp_path: Path) -> None:
    root = write_sample(tmp_path / "data", images=COUNT, seed=1, hw=(48, 64))
    data = data_set(root, "detect", HEADER + 3 * PIXELS * 4 + 1)
    data.keep_pictures()
    assert data.cache is not None
    assert (data.cache.count, data.cache.bytes) == (4, 4 * 3 * PIXELS)
    pictures = [data.read(index).image for index in range(COUNT)]
    assert [data.cache.get(index) is not None for index in range(COUNT)] == [True] * 4 + [False] * 2
    assert all(np.array_equal(data.read(index).image, pictures[index]) for index in range(COUNT))


def test_what_is_kept_cannot_be_altered_by_its_reader() -> None:
    cache = PictureCache(np.array([[2, 3]]), 1000, maps=True)
    image, label_map = np.arange(18, dtype=np.uint8).reshape(2, 3, 3), np.full((2, 3), 7, np.uint8)
    cache.put(0, image, label_map)
    kept = cache.get(0)
    assert kept is not None
    kept.image[:], kept.label_map[:] = 0, 0
    again = cache.get(0)
    assert again is not None
    assert np.array_equal(again.image, image)
    assert np.array_equal(again.label_map, label_map)


def test_a_picture_of_another_size_than_annotated_spoils_none() -> None:
    cache = PictureCache(np.array([[2, 2], [2, 2], [0, 0]]), 1000)
    second = np.full((2, 2, 3), 5, np.uint8)
    cache.put(1, second)
    cache.put(0, np.full((4, 4, 3), 9, np.uint8))  # too large for its place
    cache.put(2, np.full((1, 1, 3), 9, np.uint8))  # of no known size
    assert cache.get(0) is None
    assert cache.get(2) is None
    assert np.array_equal(cache.get(1).image, second)
    cache.put(0, np.full((1, 3, 3), 4, np.uint8))  # a smaller one fits
    assert cache.get(0).image.tolist() == np.full((1, 3, 3), 4).tolist()


def test_a_damaged_picture_is_never_kept(tmp_path: Path) -> None:
    root = write_sample(tmp_path / "data", images=COUNT, seed=1, hw=(48, 64))
    data = data_set(root, "detect", 10**9)
    data.keep_pictures()
    path = data.truth.image_path(2)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        with pytest.raises(ImageError):
            data.read(2)
    assert data.cache.get(2) is None
    cv2.imwrite(str(path), np.full((48, 64, 3), 200, np.uint8))
    assert data.read(2).image.mean() > 190


def test_a_killed_process_leaves_nothing_behind() -> None:
    program = (
        "import sys, time, numpy as np; from detseg.training.picture_cache import PictureCache\n"
        "cache = PictureCache(np.array([[64, 64]]), 10**6); cache.put(0, np.zeros((64, 64, 3), np.uint8))\n"
        "print('kept', flush=True); time.sleep(60)"
    )
    places = [place for place in (Path("/dev/shm"), Path("/tmp")) if place.is_dir()]
    before = [{path.name for path in place.iterdir()} for place in places]
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "kept\n"
        held = [str(fd.readlink()) for fd in Path(f"/proc/{process.pid}/fd").glob("*")]  # none but on Linux
        process.send_signal(signal.SIGKILL)
    assert not held or any("detseg-pictures (deleted)" in target for target in held)
    for place, names in zip(places, before, strict=True):
        assert not [p for p in {path.name for path in place.iterdir()} - names if "detseg-pictures" in p]


@pytest.mark.parametrize(
    ("text", "bytes_"), [("2GB", 2e9), ("500mb", 5e8), ("1.5 GiB", 1.5 * 2**30), ("0", 0), ("7", 7), ("3K", 3000)]
)
def test_sizes_are_read(text: str, bytes_: float) -> None:
    assert bytes_of(text) == TrainConfig(data="x", cache=text).cache == bytes_


@pytest.mark.parametrize("wrong", ["much", "2XB", "-1", -1, "GB"])
def test_what_is_no_size_is_refused(wrong: object) -> None:
    with pytest.raises(DetsegError, match="cache: "):
        TrainConfig.checked({"data": "x", "cache": wrong}, "options")


def test_the_budget_leaves_memory_to_others() -> None:
    assert budget_of("auto", 10_000, free=1000) == 250
    assert budget_of("auto", 100, free=1000) == 100
    assert budget_of("auto", 100, free=None) == 0
    assert budget_of(10_000, 300, free=1000) == 300
    assert budget_of(600, 10_000, free=1000, processes=2) == 300
    with pytest.raises(DetsegError, match="give it"):
        budget_of(900, 10_000, free=1000)


def test_free_memory_is_that_of_the_container(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup"
    (tmp_path / "proc").mkdir()
    group.mkdir(parents=True)
    assert free_memory(tmp_path) is None
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert free_memory(tmp_path) == 5000 * 1024
    (group / "memory.stat").write_text("anon 1\ninactive_file 1000\n")
    (group / "memory.current").write_text("90000\n")
    (group / "memory.max").write_text("max\n")
    assert free_memory(tmp_path) == 5000 * 1024
    (group / "memory.max").write_text("100000\n")
    assert free_memory(tmp_path) == 100000 - 90000 + 1000
