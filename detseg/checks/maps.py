"""What is wrong with label maps: values that are no class, masks of another size, classes that are never painted."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detseg.annotations.mask_files import MaskFiles, read_pixels
from detseg.annotations.semantic import IGNORE, SemanticSet
from detseg.checks.finding import Findings
from detseg.errors import DataError


@dataclass(frozen=True, eq=False)
class MapFacts:
    """One mask file: pixels of each class (K,), pixels that do not count, and (kind, message) of what is wrong."""

    file: Path
    pixels: NDArray[np.int64]
    ignored: int
    faults: tuple[tuple[str, str], ...]


def look_at_maps(maps: SemanticSet, *, workers: int = 4, on_map: Callable[[], None] | None = None) -> list[MapFacts]:
    """Reads every mask, in threads. The set's masks must lie in files."""
    facts = []
    with ThreadPoolExecutor(workers, thread_name_prefix="maps") as pool:
        for fact in pool.map(lambda image: _look(maps, image), range(len(maps))):
            facts.append(fact)
            if on_map is not None:
                on_map()
    return facts


def check_maps(facts: list[MapFacts], split: str | None, source: str, found: Findings) -> None:
    """Records what the masks of one part tell."""
    for fact in facts:
        for kind, message in fact.faults:
            found.add(kind, fact.file, message, split=split)
    empty = [fact.file.name for fact in facts if not fact.faults and not fact.pixels.sum()]
    if empty:
        names = ", ".join(empty[:8]) + (", ..." if len(empty) > 8 else "")
        message = f"in {len(empty)} of {len(facts)} label maps no pixel counts: {names}"
        found.add("empty-mask", source, message, split=split, count=len(empty))


def _look(maps: SemanticSet, image: int) -> MapFacts:
    assert isinstance(maps.source, MaskFiles)
    file, k = maps.source.files[image], len(maps.categories)
    none = np.zeros(k, np.int64)
    try:
        pixels = read_pixels(file, by_colour=maps.source.values.by_colour)
    except DataError as error:
        return MapFacts(file, none, 0, (("unreadable-mask", str(error).removeprefix(f"{file}: ")),))
    faults = []
    h, w = maps.source.sizes[image].tolist()
    if min(h, w) > 0 and pixels.shape[:2] != (h, w):
        faults.append(("mask-size", f"it is {pixels.shape[1]}x{pixels.shape[0]}, its picture {w}x{h}"))
    indices = maps.source.values.decode(pixels)
    unknown = indices < 0
    if unknown.any():
        faults.append(("mask-values", _unknown(pixels, unknown)))
    counts = np.bincount(indices[~unknown].ravel(), minlength=IGNORE + 1)
    return MapFacts(file, counts[:k].astype(np.int64), int(counts[IGNORE]), tuple(faults))


def _unknown(pixels: NDArray[np.integer], where: NDArray[np.bool_]) -> str:
    values, counts = np.unique(pixels[where], axis=0, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:8]
    pairs = zip(values[most].tolist(), counts[most].tolist(), strict=True)
    shown = ", ".join(f"{tuple(value) if isinstance(value, list) else value} ({count})" for value, count in pairs)
    more = f" and {len(values) - 8} more" if len(values) > 8 else ""
    return f"{int(where.sum())} pixels have values that are no class: {shown}{more}"
