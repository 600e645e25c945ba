"""Where a run writes: the folder that was asked for, or the next free number under `runs/`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from detseg.errors import DetsegError


def choose(out: Path | None, project: Path, name: str | None, *, reuse: bool, make: bool = True) -> Path:
    """The folder of a new run; it is made here, so that two runs started at once never share one.

    `out` given: that folder, refused when it holds something already unless `reuse`. Else project/name,
    numbered when taken (exp, exp2, exp3, ...) unless `reuse`. With `make` False nothing is made: only told.
    Raises DetsegError when the folder cannot be used.
    """
    if out is not None or reuse:
        folder = out if out is not None else project / (name or "exp")
        _expect_usable(folder, reuse)
        if make:
            _make(folder, exist_ok=True)
        return folder
    for folder in _numbered(project / (name or "exp")):
        if not folder.exists() and (not make or _make(folder, exist_ok=False)):
            return folder
    raise AssertionError("the numbers have no end")


def latest(project: Path, name: str | None) -> Path | None:
    """The last numbered folder of the runs that `choose` made, None when there is none."""
    last = None
    for folder in _numbered(project / (name or "exp")):
        if not folder.exists():
            return last
        last = folder
    return last


def _numbered(first: Path) -> Iterator[Path]:
    """exp, exp2, exp3, ..."""
    return (first if number == 1 else first.with_name(f"{first.name}{number}") for number in count(1))


def _expect_usable(folder: Path, reuse: bool) -> None:
    try:
        if folder.exists() and not folder.is_dir():
            raise DetsegError(f"{folder}: is a file, not a folder; choose another place")
        if not reuse and folder.exists() and any(folder.iterdir()):
            raise DetsegError(f"{folder}: the folder is not empty; add --exist-ok to write into it, or choose another")
    except OSError as error:
        raise DetsegError(f"{folder}: cannot be used: {error.strerror}; choose another folder") from error


def _make(folder: Path, *, exist_ok: bool) -> bool:
    """Makes the folder; False when it was there and must not be."""
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        return False
    except OSError as error:
        raise DetsegError(f"{folder}: cannot be made: {error.strerror}; choose another folder") from error
    return True
