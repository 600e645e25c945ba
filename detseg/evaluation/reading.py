"""What the readers of results share: `Objects`, what they give, and files as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.annotations.outlines import Outlines
from detseg.errors import DataError

_LONGEST = 60  # characters of a value that are shown
_LARGEST = 1e300


@dataclass(frozen=True, eq=False)
class Objects:
    """Detections of a file: rows (n, 7) as `evaluate_rows` takes them, -1 for an unknown picture or class.

    outlines (n) and areas (n,) where masks are given; `notes` what a user must know; `text` the JSON where the file
    is COCO's plain list already, with the data set's own ids.
    """

    rows: NDArray[np.float64]
    outlines: Outlines | None = None
    areas: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()
    text: bytes | None = None

    @classmethod
    def of(cls, rows: Sequence[Sequence[float]], *notes: str) -> Objects:
        """Boxes without masks."""
        return cls(np.array(rows, np.float64).reshape(-1, 7), notes=tuple(note for note in notes if note))


def read_bytes(file: Path) -> bytes:
    """The file without a byte order mark. Raises DataError when it cannot be read."""
    try:
        return file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of the lines that are not empty. Raises DataError where a line is not UTF-8."""
    for number, line in enumerate(read_bytes(file).splitlines(), 1):
        try:
            text = line.decode().strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{file}, line {number}: is not UTF-8 text; save the file as UTF-8") from error
        if text:
            yield number, text


def numbers(words: Sequence[str], where: str) -> list[float]:
    """Finite numbers of words. Raises DataError naming `where` and the word that is none."""
    values = []
    for word in words:
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not -_LARGEST < value < _LARGEST:
            raise DataError(f"{where}: {shown(word)} is no usable number")
        values.append(value)
    return values


def is_number(value: Any) -> bool:
    """Is the value of a JSON file a finite number?"""
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST


def shown(value: Any) -> str:
    """A value as an error shows it: in one line, and not too long."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def files_in(folder: Path, suffix: str) -> list[Path]:
    """The folder's files of this ending, at any depth, sorted. Raises DataError when it cannot be listed."""
    try:
        return sorted(p for p in folder.rglob("*") if p.suffix.lower() == suffix and p.is_file())
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from error
