"""What is in a set of label maps, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.annotations.semantic import IGNORE, SemanticSet
from detseg.errors import DataError


@dataclass(frozen=True)
class MapClass:
    """A class: its value in the masks, its name, the pixels it covers, their share of all that count, its pictures."""

    id: int
    name: str
    pixels: int
    share: float
    images: int


@dataclass(frozen=True)
class MapSummary:
    """Label maps in numbers; `unreadable` ones are counted in no other number, `ignored` are pixels."""

    format: str
    root: str
    images: int
    unreadable: int
    classes: tuple[MapClass, ...]
    ignored: int
    image_sizes: tuple[tuple[int, int, int], ...]
    distinct_image_sizes: int

    def to_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return asdict(self)


def summarise_maps(
    maps: SemanticSet, *, workers: int = 4, most_frequent: int = 5, on_map: Callable[[], None] | None = None
) -> MapSummary:
    """Reads every label map, in threads, and counts its pixels; `on_map` is called after each."""
    k = len(maps.categories)
    pixels, images, unreadable, ignored = np.zeros(k, np.int64), np.zeros(k, np.int64), 0, 0
    with ThreadPoolExecutor(workers, thread_name_prefix="maps") as pool:
        for counts in pool.map(lambda image: _counts(maps, image), range(len(maps))):
            if counts is None:
                unreadable += 1
            else:
                pixels += counts[:k]
                images += counts[:k] > 0
                ignored += int(counts[IGNORE])
            if on_map is not None:
                on_map()
    sizes = Counter((h, w) for h, w in maps.image_hw.tolist())
    shares = (pixels / max(1, pixels.sum())).tolist()
    rows = zip(maps.categories.ids, maps.categories.names, pixels.tolist(), shares, images.tolist(), strict=True)
    return MapSummary(
        format=maps.format,
        root=str(maps.root),
        images=len(maps),
        unreadable=unreadable,
        classes=tuple(MapClass(*row) for row in rows),
        ignored=ignored,
        image_sizes=tuple((h, w, n) for (h, w), n in sizes.most_common(most_frequent)),
        distinct_image_sizes=len(sizes),
    )


def pixel_counts(maps: SemanticSet, *, workers: int = 4) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(K,) pixels of each class; (K,) all pixels that count of the pictures which show it. Reads every map that can be.

    From them come the weights by which rare classes are learnt, such as median frequency.
    """
    k = len(maps.categories)
    pixels, in_pictures = np.zeros(k, np.int64), np.zeros(k, np.int64)
    with ThreadPoolExecutor(workers, thread_name_prefix="maps") as pool:
        for counts in pool.map(lambda image: _counts(maps, image), range(len(maps))):
            if counts is not None:
                pixels += counts[:k]
                in_pictures += np.where(counts[:k] > 0, counts[:k].sum(), 0)
    return pixels, in_pictures


def _counts(maps: SemanticSet, image: int) -> NDArray[np.int64] | None:
    """(256,) pixels of each value; None where the map cannot be read."""
    try:
        return np.bincount(maps.label_map(image).ravel(), minlength=256)
    except DataError:
        return None
