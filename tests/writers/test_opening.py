"""Several formats at once: threads, interruption, a full disk, wrong names."""

from __future__ import annotations

import csv
import errno
import json
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from detseg.annotations import Categories
from detseg.errors import DetsegError
from detseg.images import ImageFile
from detseg.results import Detections
from detseg.writers import FORMATS, growing, open_writers

CATEGORIES = Categories.from_names(["cat", "dog"])
IMAGE = np.zeros((50, 60, 3), np.uint8)
FOUND = Detections((50, 60), np.array([[1, 2, 30, 40]], np.float32), np.array([0.5], np.float32), np.array([1]))


def picture(number: int) -> ImageFile:
    return ImageFile(Path(f"{number}.jpg"), PurePosixPath(f"{number % 3}/{number}.jpg"))


@pytest.mark.parametrize("labels", ["yolo", "yolo-seg"])  # the same files: one of them
def test_all_formats_at_once_from_many_threads(tmp_path: Path, labels: str) -> None:
    formats = [name for name in FORMATS if not name.startswith("yolo") or name == labels]
    with open_writers(formats, tmp_path, CATEGORIES) as writers, ThreadPoolExecutor(8) as pool:
        files = [picture(number) for number in range(60)]
        for file, _ in zip(files, pool.map(lambda f: writers.write_files(f, IMAGE, FOUND), files), strict=True):
            writers.append(file, FOUND)
    for folder in ("images", "labels", "voc", "crops"):
        assert sum(path.is_file() for path in (tmp_path / folder).rglob("*")) == 60
    assert len(json.loads((tmp_path / "predictions.json").read_bytes())) == 60
    assert (tmp_path / "predictions.jsonl").read_bytes().count(b"\n") == 60
    assert not list(tmp_path.rglob(".part-*"))
    assert all(place.exists() for place in writers.places.values())
    assert set(writers.places) == set(formats)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_finished_is_kept_when_a_run_is_cut_short(tmp_path: Path, error: type[BaseException]) -> None:
    def cut_short() -> None:
        with open_writers(["coco", "csv", "jsonl"], tmp_path, CATEGORIES) as writers:
            writers.append(picture(1), FOUND)
            assert not (tmp_path / "predictions.json").exists()  # not before it is whole
            raise error

    with pytest.raises(error):
        cut_short()
    assert len(json.loads((tmp_path / "predictions.json").read_bytes())) == 1
    assert len(json.loads((tmp_path / "images.json").read_bytes())["images"]) == 1
    with (tmp_path / "predictions.csv").open(newline="") as lines:
        assert len(list(csv.reader(lines))) == 2
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 1


class _FullDisk:
    """A file on a disk that has room for `room` bytes."""

    def __init__(self, file: object, room: int) -> None:
        self._file, self.room = file, room

    def write(self, block: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = block[: self.room]
        self.room -= len(part)
        return self._file.write(part)  # type: ignore[attr-defined, no-any-return]

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def test_a_full_disk_leaves_whole_records_only(tmp_path: Path) -> None:
    file = growing.GrowingFile(tmp_path / "a.txt")
    disk = file._file = _FullDisk(file._file, 300_000)  # type: ignore[assignment]
    record = b"x" * 9_999 + b"\n"
    with pytest.raises(DetsegError, match=r"a\.txt: cannot be written: No space"):
        deque(map(file.write, [record] * 100))
    disk.room = 10  # what the incomplete block had taken is free again
    file.close(b"end")
    content = (tmp_path / "a.txt").read_bytes()
    assert content.endswith(b"\nend")
    assert len(content[:-3]) % len(record) == 0
    assert len(content) > 200_000


def test_a_disk_too_full_for_the_end_leaves_nothing(tmp_path: Path) -> None:
    file = growing.GrowingFile(tmp_path / "a.txt")
    file._file = _FullDisk(file._file, 0)  # type: ignore[assignment]
    file.write(b"x")
    with pytest.raises(DetsegError, match="the disk is full"):
        file.close(b"end")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_format_is_named_with_a_near_one(tmp_path: Path) -> None:
    with pytest.raises(DetsegError, match=r"'jsnl' is no format; did you mean 'jsonl'\?"):
        open_writers(["csv", "jsnl"], tmp_path, CATEGORIES)
    assert list(tmp_path.iterdir()) == []


def test_two_formats_that_write_the_same_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DetsegError, match="the same files in labels/; choose one of them"):
        open_writers(["csv", "yolo", "yolo-seg"], tmp_path, CATEGORIES)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    for name in FORMATS:
        with (
            pytest.raises(DetsegError, match="out"),
            open_writers([name], tmp_path / "out", CATEGORIES) as writers,
        ):
            writers.write(picture(1), IMAGE, FOUND)


def test_pictures_are_asked_for_only_where_needed(tmp_path: Path) -> None:
    assert not open_writers(["coco", "yolo", "voc", "csv", "jsonl"], tmp_path, CATEGORIES).needs_image
    with open_writers(["image"], tmp_path, CATEGORIES) as writers:
        assert writers.needs_image
        with pytest.raises(ValueError, match="need the picture in full"):
            writers.write(picture(1), IMAGE[::2], FOUND)
