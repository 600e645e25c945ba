"""Where a model that looks at proposals gets them from, picture by picture: a search, or a file that somebody made.

A model says in its config what it wants (`ProposalSettings`, as `proposals.mode` and `proposals.count`); training,
evaluation and detection all ask a `Proposer`, so that they look at the same places.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet
from detseg.errors import ImageError
from detseg.images import ImageFile
from detseg.proposals import table
from detseg.proposals.cache import ProposalCache
from detseg.proposals.contract import Proposals
from detseg.proposals.picture_files import proposals_of
from detseg.proposals.selective_search import MODES, SelectiveSearch

_GROUP = "proposals"  # of a model's config
_SAME = ("mode", "count")


@dataclass(frozen=True)
class ProposalSettings:
    """What a model wants to look at: the mode of selective search, and how many of the best of each picture."""

    mode: Literal["fast", "quality"] = "fast"
    count: int = 2000

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")

    @property
    def search(self) -> SelectiveSearch:
        """The search that answers to this."""
        return replace(MODES[self.mode], max_boxes=self.count)

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> ProposalSettings | None:
        """What a model with this config wants, as its checkpoint stores it; None for one that finds all by itself."""
        given = {name: config[f"{_GROUP}.{name}"] for name in _SAME if f"{_GROUP}.{name}" in config}
        return cls(**given) if given else None


class Proposer(Protocol):
    """Boxes (P, 4) float32 xyxy, best first, for a picture of this size, in its own upright pixels."""

    def __call__(self, file: ImageFile, image_hw: tuple[int, int]) -> NDArray[np.float32]:
        """Raises ImageError where there is nothing to be had for this picture."""


@dataclass(frozen=True)
class Searcher:
    """Proposals by selective search; what was searched for once is kept in the cache, where that can be written."""

    settings: ProposalSettings
    cache: ProposalCache | None = field(default_factory=lambda: usual_cache())

    def __call__(self, file: ImageFile, image_hw: tuple[int, int]) -> NDArray[np.float32]:
        """See `Proposer`."""
        return proposals_of(file.path, self.settings.search, self.cache).boxes


@dataclass(frozen=True, eq=False)
class FileProposer:
    """Proposals as a file has them: by the picture's path in the data set, or its name where only one has it."""

    file: Path
    entries: Mapping[str, Proposals]
    count: int | None = None  # at most so many, the best

    @classmethod
    def of_sets(cls, file: Path, sets: Iterable[AnnotationSet], count: int | None = None) -> FileProposer:
        """For the pictures of data sets. Raises DataError, see `table.read`, where one of them is not in the file."""
        tables = [table.read(file, truth) for truth in sets]
        return cls(file, {n: p for t in tables for n, p in zip(t.names, t.proposals, strict=True)}, count)

    @classmethod
    def of_any(cls, file: Path, count: int | None = None) -> FileProposer:
        """For pictures that are yet to come. Raises DataError where the file is none of proposals by names."""
        return cls(file, table.read_by_name(file), count)

    def __call__(self, file: ImageFile, image_hw: tuple[int, int]) -> NDArray[np.float32]:
        """See `Proposer`; a picture that the file does not know is an ImageError."""
        name = table.posix(str(file.name))
        found = self.entries.get(name, self.entries.get(name.rsplit("/", 1)[-1]))
        if found is None:
            raise ImageError(file.path, f"{self.file} has no proposals for it; make a file that has: "
                             "detseg data proposals DATA --out FILE, or leave --proposals out")  # fmt: skip
        return table.cut(found, image_hw).best(self.count).boxes


def usual_cache() -> ProposalCache | None:
    """The user's cache, or None where it cannot be written."""
    cache = ProposalCache()
    near = cache.folder
    while not near.exists() and near != near.parent:
        near = near.parent
    return cache if os.access(near, os.W_OK) else None
