"""Names of splits, and the spellings people use for the same one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detseg.errors import DataError

SPLITS = ("train", "val", "test", "trainval", "minival", "testdev")  # the names that files are searched for

_SYNONYMS = {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
}


def canonical(split: str) -> str:
    """`valid`, `Validation`, `dev` -> `val`, and so on; another name stays as it is."""
    lower = split.lower()
    return _SYNONYMS.get(lower, lower)


def choose_split(where: Path, asked: str, available: Sequence[str], shown: Sequence[str] | None = None) -> str:
    """The available name that means `asked`: itself, or a synonym of it.

    Raises DataError naming the splits there are (`shown`, where not all are worth showing).
    """
    if asked in available:
        return asked
    for name in available:
        if canonical(name) == canonical(asked):
            return name
    names = ", ".join(available if shown is None else shown)
    there = f"it has {names}" if names else "it has no splits at all: leave the split out to use everything"
    raise DataError(f"{where}: there is no split {asked!r}; {there}")
