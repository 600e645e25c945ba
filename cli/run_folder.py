"""Where a run writes: the folder that was asked for, or the next free number under `runs/`."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from detseg.errors import DetsegError


def choose(out: Path | None, project: Path, name: str | None, *, reuse: bool) -> Path:
    """The folder of a new run; it is made here, so that two runs started at once never share one.

    `out` given: that folder, refused when it holds something already unless `reuse`. Else project/name,
    numbered when taken (exp, exp2, exp3, ...) unless `reuse`. Raises DetsegError when the folder cannot be made.
    """
    if out is not None:
        _make(out, exist_ok=True)
        if not reuse and any(out.iterdir()):
            raise DetsegError(
                f"{out}: the folder is not empty; add --exist-ok to write into it, or choose another"
            )
        return out
    first = project / (name or "exp")
    if reuse:
        _make(first, exist_ok=True)
        return first
    for number in count(1):
        folder = first if number == 1 else first.with_name(f"{first.name}{number}")
        if _make(folder, exist_ok=False):
            return folder
    raise AssertionError("unreachable")


def _make(folder: Path, *, exist_ok: bool) -> bool:
    """Makes the folder; False when it was there and must not be."""
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError as error:
        if exist_ok:
            raise DetsegError(
                f"{folder}: is a file, not a folder; choose another place with --out"
            ) from error
        return False
    except OSError as error:
        raise DetsegError(
            f"{folder}: the folder cannot be made: {error.strerror}; choose another with --out"
        ) from error
    return True
