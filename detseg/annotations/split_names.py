"""Names of splits, and the spellings people use for the same one."""

from __future__ import annotations

import re
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


def split_of(file: Path) -> str:
    """The split a name tells (`instances_val2017.json`, `train/_annotations.coco.json`), else its stem."""
    words = [word for word in re.split(r"[^a-z]+", file.stem.lower()) if word]
    named = next((word for word in words if canonical(word) in SPLITS), None)
    if named is None and canonical(file.parent.name) in SPLITS:
        return file.parent.name
    return named or file.stem
