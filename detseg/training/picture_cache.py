"""Decoded pictures in memory that all worker processes share, within a budget: later epochs need not decode them.

The memory has no name, so that nothing is left of it when a run is killed; it is taken only as pictures come. Which
pictures are kept is settled at the start, by their sizes in the annotations: those that fit, in their order. Each has a
place of its own, so that processes need not agree on places, only on whether one is filled.

Pictures are kept whole, as they were decoded: frames are the same with and without, bit for bit. A file that changes
during a run is seen as it was. Several processes of a run each keep their own share of the budget.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detseg.errors import DetsegError

AUTO_SHARE = 0.25  # of the memory that is free, for `auto`
MOST_SHARE = 0.8  # of it, for a budget that is given: what is kept cannot be dropped, and would be swapped
_UNITS = {"": 1, "b": 1} | {f"{p}{end}": 1000 ** (i + 1) for i, p in enumerate("kmgt") for end in ("", "b")}
_UNITS |= {f"{p}ib": 1024 ** (i + 1) for i, p in enumerate("kmgt")}


class Kept(NamedTuple):
    """image (h, w, 3) uint8, and label_map (h, w) uint8 where such are kept; the reader's own copies."""

    image: NDArray[np.uint8]
    label_map: NDArray[np.uint8] | None


class PictureCache:
    """Places for the pictures whose decoded sizes `image_hw` (n, 2) fit into `budget` bytes.

    `maps`: each has a label map, too. Goes to worker processes by handing them the memory, as processes start.
    """

    def __init__(self, image_hw: NDArray[Any], budget: int, *, maps: bool = False) -> None:
        self.depth = 4 if maps else 3  # bytes a pixel
        sizes = _sizes(image_hw, self.depth)
        self._lengths, self.bytes = _places(sizes, budget - 8 * len(sizes))
        self._starts = 8 * len(sizes) + np.cumsum(self._lengths) - self._lengths
        self._open(_nameless(8 * len(sizes) + self.bytes))

    @staticmethod
    def needed(image_hw: NDArray[Any], *, maps: bool = False) -> int:
        """The budget that all pictures fit into."""
        return PictureCache.decoded(image_hw, maps=maps) + 8 * len(image_hw)

    @staticmethod
    def decoded(image_hw: NDArray[Any], *, maps: bool = False) -> int:
        """The bytes of all pictures."""
        return int(_sizes(image_hw, 4 if maps else 3).sum())

    @property
    def count(self) -> int:
        """How many pictures have a place."""
        return int((self._lengths > 0).sum())

    @property
    def filled(self) -> int:
        """How many of them are there."""
        return int((self._sizes_hw.prod(axis=1) > 0).sum())

    def get(self, index: int) -> Kept | None:
        """The picture; None where it was not put, or has no place."""
        if not self._lengths[index]:
            return None
        with self._agreed():
            height, width = self._sizes_hw[index].tolist()
        if not height:
            return None
        pixels, start = height * width, int(self._starts[index])
        image = np.frombuffer(self._memory, np.uint8, 3 * pixels, start).reshape(height, width, 3).copy()
        if self.depth == 3:
            return Kept(image, None)
        label_map = np.frombuffer(self._memory, np.uint8, pixels, start + 3 * pixels)
        return Kept(image, label_map.reshape(height, width).copy())

    def put(self, index: int, image: NDArray[np.uint8], label_map: NDArray[np.uint8] | None = None) -> None:
        """Keeps a picture, where it has a place and is no larger than the annotations say."""
        height, width = image.shape[:2]
        pixels, start = height * width, int(self._starts[index])
        if not 0 < pixels * self.depth <= self._lengths[index]:
            return
        # who puts the same picture at the same time writes the same bytes
        np.frombuffer(self._memory, np.uint8, 3 * pixels, start)[:] = image.reshape(-1)
        if label_map is not None:
            np.frombuffer(self._memory, np.uint8, pixels, start + 3 * pixels)[:] = label_map.reshape(-1)
        with self._agreed():
            self._sizes_hw[index] = height, width

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in ("depth", "bytes", "_lengths", "_starts")}
        return {**kept, "handle": DupFd(self._handle)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        handle = state.pop("handle")
        self.__dict__ |= state
        self._open(handle.detach())

    def _open(self, handle: int) -> None:
        """Looks at the memory behind `handle`, which is closed with this object."""
        self._handle = handle
        weakref.finalize(self, os.close, handle)
        self._memory = mmap.mmap(handle, max(1, os.fstat(handle).st_size))
        self._sizes_hw = np.frombuffer(self._memory, np.int32, 2 * len(self._lengths)).reshape(-1, 2)

    @contextmanager
    def _agreed(self) -> Iterator[None]:
        """No other process looks at sizes meanwhile; a lock that goes with a process that dies."""
        fcntl.lockf(self._handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._handle, fcntl.LOCK_UN)


def _sizes(image_hw: NDArray[Any], depth: int) -> NDArray[np.int64]:
    """The bytes of each picture, decoded."""
    return image_hw.astype(np.int64).prod(axis=1) * depth


def _places(sizes: NDArray[np.int64], budget: int) -> tuple[NDArray[np.int64], int]:
    """How many bytes each picture has, 0 where it has no place: in their order, those that still fit."""
    lengths, taken = np.zeros_like(sizes), 0
    for index, size in enumerate(sizes.tolist()):
        if taken + size <= budget:
            lengths[index] = size
            taken += size
    return lengths, taken


def _nameless(size: int) -> int:
    """A handle of so much memory, zeros, which is taken only where it is written to."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("detseg-pictures")
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.ftruncate(handle, max(1, size))
    return handle


def bytes_of(text: str) -> int:
    """ "2GB", "500 MiB", "0" -> bytes. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"'{text}' is no size: such as 2GB, 500MB, auto, or 0 for none")
    return round(float(match[1]) * _UNITS[match[2]])


def budget_of(wanted: int | str, needed: int, free: int | None, processes: int = 1) -> int:
    """The bytes that each of so many processes on a machine may use: of `wanted`, a number or auto.

    `needed`: by all pictures of the set, which every process may come to see; `free`: memory, None where it is not
    known. Raises DetsegError where as much would make the machine swap.
    """
    if wanted == "auto":
        return 0 if free is None else min(needed, int(free * AUTO_SHARE) // processes)
    each = min(needed, int(wanted) // processes)
    if free is not None and each * processes > free * MOST_SHARE:
        raise DetsegError(
            f"--cache: {each * processes / 1e9:.1f} GB of pictures, and {free / 1e9:.1f} GB of memory are free; give "
            f"it {free * MOST_SHARE / 1e9:.1f}GB or less, or auto"
        )
    return each


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be taken without swapping, of the machine and of the container; None where it is not known."""
    found: list[int] = []
    try:
        rows = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
        found.append(int(rows["MemAvailable"].split()[0]) * 1024)
        # of version 2, as containers have it at the root; "max" where there is no limit
        group = root / "sys/fs/cgroup"
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        parts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        found.append(max(0, limit - used + int(parts["inactive_file"])))  # files that were read are dropped at need
    except (OSError, ValueError, KeyError):
        pass
    return min(found, default=None)
