"""A data set divided into parts: classes in their shares, copies of a picture together.

N: pictures, K: classes, P: parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet
from detseg.annotations.semantic import SemanticSet
from detseg.annotations.stratify import joined, stratify
from detseg.checks.maps import look_at_maps
from detseg.checks.parts import has_own_maps
from detseg.checks.survey import alike, same_bytes, survey
from detseg.errors import DataError


@dataclass(frozen=True, eq=False)
class Division:
    """names (P,); part (N,): the part of each picture; has (N, K): is the class in the picture; `together` pictures
    that stay with others because they are alike or of one group, in `groups` groups."""

    names: tuple[str, ...]
    classes: tuple[str, ...]
    part: NDArray[np.int64]
    has: NDArray[np.bool_]
    objects: NDArray[np.int64]
    together: int
    groups: int

    def pictures(self, name: str) -> NDArray[np.int64]:
        """The pictures of a part, in their order."""
        return np.flatnonzero(self.part == self.names.index(name))

    @property
    def table(self) -> NDArray[np.int64]:
        """(P, 1 + K): pictures of each part, and those with each class."""
        mine = self.part[None] == np.arange(len(self.names))[:, None]
        return np.concatenate([mine.sum(axis=1)[:, None], mine.astype(np.int64) @ self.has.astype(np.int64)], axis=1)

    def to_json(self) -> dict[str, Any]:
        """Pictures and classes of every part, and what was kept together."""
        rows = dict(zip(self.names, self.table.tolist(), strict=True))
        parts = [
            {
                "name": name,
                "pictures": row[0],
                "objects": int(self.objects[self.part == p].sum()),
                "pictures_with": dict(zip(self.classes, row[1:], strict=True)),
            }
            for p, (name, row) in enumerate(rows.items())
        ]
        return {"parts": parts, "pictures_kept_together": self.together, "groups": self.groups}


def divide(
    pictures: AnnotationSet | SemanticSet,
    names: Sequence[str],
    fractions: Sequence[float],
    *,
    seed: int = 0,
    group_by: re.Pattern[str] | None = None,
    workers: int = 4,
    on_picture: Callable[[], None] | None = None,
) -> Division:
    """Deals the pictures out to parts; the same seed and pictures give the same parts.

    Pictures with the same bytes, or that look the same, stay together, as do those whose file names give the same
    text for `group_by` (its first group, else all that it matches). Raises DataError where a part stays empty.
    """
    paths = [pictures.image_path(i) for i in range(len(pictures))]
    has, objects = _classes(pictures, workers)
    group = joined(len(paths), [*_alike(paths, workers, on_picture), *_named_alike(pictures.image_files, group_by)])
    sizes = np.bincount(group)
    of_group = np.zeros((len(sizes), has.shape[1]), np.int64)
    np.add.at(of_group, group, has)
    part = stratify(of_group, sizes, fractions, seed)[group]
    empty = [name for p, name in enumerate(names) if not (part == p).any()]
    if empty:
        raise DataError(
            f"{pictures.root}: {len(paths)} pictures in {len(sizes)} groups leave nothing for {', '.join(empty)}; "
            "ask for fewer parts or larger fractions"
        )
    many = sizes > 1
    return Division(
        tuple(names), pictures.categories.names, part, has, objects, int(sizes[many].sum()), int(many.sum())
    )


def _classes(pictures: AnnotationSet | SemanticSet, workers: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """(N, K) is the class in the picture; (N,) its objects."""
    has = np.zeros((len(pictures), len(pictures.categories)), np.bool_)
    if isinstance(pictures, AnnotationSet):
        has[pictures.image_index, pictures.labels] = True
        return has, np.diff(pictures.starts)
    if has_own_maps(pictures):
        for i, fact in enumerate(look_at_maps(pictures, workers=workers)):
            has[i] = fact.pixels > 0
    return has, np.zeros(len(pictures), np.int64)


def _alike(paths: list[Path], workers: int, on_picture: Callable[[], None] | None) -> list[tuple[int, int]]:
    """Pairs of pictures that are the same, or look so."""
    seen = survey(paths, workers=workers, on_picture=on_picture)
    facts = [seen[path] for path in paths]
    chains = [pair for group in same_bytes(facts) for pair in pairwise(group)]
    return [*chains, *alike(facts)]


def _named_alike(files: Sequence[str], pattern: re.Pattern[str] | None) -> list[tuple[int, int]]:
    if pattern is None:
        return []
    first: dict[str, int] = {}
    links = []
    for i, file in enumerate(files):
        match = pattern.search(file)
        if match is not None:
            key = match[1] if pattern.groups else match[0]
            links.append((first.setdefault(key or "", i), i))
    return links
