"""What the picture files themselves say: are they readable, how large, which way up, and which of them are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg.errors import ImageError
from detseg.images import read_hw, read_image_and_hw
from detseg.images.header import read_header

SIDE = 16  # of the small copy by which pictures are compared
_DECODED_AT = (4 * SIDE, 4 * SIDE)  # large enough for a small copy that does not depend on the file's size
_NEAR = 2.0  # grey levels (of 255) that two small copies of one picture differ on average, at most
_ALIKE = 0.996  # and how far they are correlated, at least
_FLAT = 2.0  # a small copy that varies less holds nothing to compare


@dataclass(frozen=True, eq=False)
class PictureFacts:
    """One picture file.

    hw: of the upright picture, (0, 0) where it cannot be read; cause: why not; orientation: EXIF's, 1 to 8; bytes: size
    of the file; small (16, 16, 3) float32: the picture made small, None where it was not decoded.
    """

    path: Path
    hw: tuple[int, int] = (0, 0)
    cause: str = ""
    orientation: int = 1
    bytes: int = 0
    small: NDArray[np.float32] | None = None

    @property
    def turned(self) -> bool:
        """Does EXIF swap width and height?"""
        return self.orientation >= 5


def survey(
    paths: Sequence[Path], *, decode: bool = True, workers: int = 4, on_picture: Callable[[], None] | None = None
) -> dict[Path, PictureFacts]:
    """The facts of every file, in threads; `decode` False reads headers only. `on_picture` is called after each."""
    facts: dict[Path, PictureFacts] = {}
    with ThreadPoolExecutor(workers, thread_name_prefix="survey") as pool:
        for fact in pool.map(look if decode else glance, paths):
            facts[fact.path] = fact
            if on_picture is not None:
                on_picture()
    return facts


def look(path: Path) -> PictureFacts:
    """Decodes the picture."""
    try:
        image, hw = read_image_and_hw(path, target_hw=_DECODED_AT)
    except ImageError as error:
        return PictureFacts(path, cause=error.cause)
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    return PictureFacts(path, hw, "", _orientation(path), path.stat().st_size, small)


def glance(path: Path) -> PictureFacts:
    """Reads the header."""
    try:
        hw = read_hw(path)
    except ImageError as error:
        return PictureFacts(path, cause=error.cause)
    return PictureFacts(path, hw, "", _orientation(path), path.stat().st_size)


def _orientation(path: Path) -> int:
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        header = read_header(data)
    return 1 if header is None else header.orientation


# ---- the same picture ----


def same_bytes(facts: Sequence[PictureFacts]) -> list[list[int]]:
    """Groups (two and more, ascending) of files with the same content; only files of one size are read."""
    by_size = _grouped((fact.bytes for fact in facts), skip=0)
    groups = []
    for members in by_size:
        digests = _grouped((_digest(facts[i].path) for i in members), skip=b"")
        groups += [[members[j] for j in group] for group in digests]
    return sorted(groups)


def _grouped(keys: Iterator[object], skip: object) -> list[list[int]]:
    groups: dict[object, list[int]] = {}
    for i, key in enumerate(keys):
        if key != skip:
            groups.setdefault(key, []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""


def alike(facts: Sequence[PictureFacts]) -> list[tuple[int, int]]:
    """Pairs i < j of files that show the same picture, whatever their encoding and size.

    Small copies are compared: on average within 2 of 255 levels of each other, and correlated to 0.996. Pictures
    are sorted by their mean level, so that only neighbours need comparing. Flat pictures are alike to nothing.
    """
    usable = [i for i, fact in enumerate(facts) if fact.small is not None and _varies(fact.small)]
    if len(usable) < 2:
        return []
    small = np.stack([np.asarray(facts[i].small).reshape(-1) for i in usable])  # (n, 768)
    coarse = small.reshape(len(usable), 2, SIDE // 2, 2, SIDE // 2, 3).mean(axis=(2, 4)).reshape(len(usable), -1)
    order = np.argsort(coarse.mean(axis=1), kind="stable")
    small, coarse, level = small[order], coarse[order], coarse.mean(axis=1)[order]
    ends = np.searchsorted(level, level + _NEAR, side="right")
    pairs = []
    for first, end in enumerate(ends.tolist()):
        others = np.arange(first + 1, end)
        # the mean of differences is no smaller than the difference of means, so nothing near is passed over
        others = others[np.abs(coarse[others] - coarse[first]).mean(axis=1) <= _NEAR]
        others = others[np.abs(small[others] - small[first]).mean(axis=1) <= _NEAR]
        for second in others.tolist():
            if _correlation(small[first], small[second]) >= _ALIKE:
                pair = usable[order[first]], usable[order[second]]
                pairs.append((min(pair), max(pair)))
    return sorted(pairs)


def _varies(small: NDArray[np.float32]) -> bool:
    return float(small.std(axis=(0, 1)).max()) > _FLAT


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-9))
