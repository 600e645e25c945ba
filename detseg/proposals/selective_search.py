"""Selective search. J. Uijlings, K. van de Sande, T. Gevers, A. Smeulders: *Selective Search for Object Recognition*,
International Journal of Computer Vision 104, 2013.

| section | here |
|---|---|
| 3.1 hierarchical grouping | `grouping.group` |
| 3.2 colour spaces | `colour_space` |
| 3.2 similarities (equations 2 to 6) | `grouping.similarities`, on histograms of `regions.describe` |
| 3.2 starting regions | `segments`: graph segmentation of Felzenszwalb and Huttenlocher, 2004 |
| 3.3 combining hierarchies | `search`, `_ranked` |
| 5.1.4 fast and quality | `MODES` |

Differences from the paper are listed in selective_search.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg.proposals.contract import Proposals
from detseg.proposals.grouping import Strategy, group
from detseg.proposals.regions import describe, pixel_bins

ColourSpace = Literal["hsv", "lab", "rgi", "hue", "grey"]

ALL_FOUR = Strategy(colour=True, texture=True, size=True, fill=True)
NO_COLOUR = Strategy(texture=True, size=True, fill=True)


@dataclass(frozen=True)
class SelectiveSearch:
    """How proposals are made; each combination of colour space, k and strategy gives a hierarchy of its own.

    k: how large the starting regions are, in the units of the graph segmentation's paper for values 0 .. 255, and
    their least size in pixels; sigma: blur before it; max_side: larger pictures are shrunk to this longer side first
    (0: never), since k counts pixels; min_side: boxes narrower or lower than this many pixels are left out;
    max_boxes: at most so many (0: all); seed: of the random order (section 3.3).
    """

    colour_spaces: tuple[ColourSpace, ...] = ("hsv", "lab")
    k: tuple[float, ...] = (50.0, 100.0)
    strategies: tuple[Strategy, ...] = (ALL_FOUR, NO_COLOUR)
    sigma: float = 0.8
    max_side: int = 500
    min_side: float = 1.0
    max_boxes: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = set(self.colour_spaces) - set(get_args(ColourSpace))
        if unknown:
            raise ValueError(f"no such colour space: {', '.join(sorted(unknown))}; {', '.join(get_args(ColourSpace))}")
        if not (self.colour_spaces and self.k and self.strategies):
            raise ValueError("at least one colour space, k and strategy are needed")
        if min(self.k) < 1 or self.sigma < 0 or self.max_side < 0 or self.max_boxes < 0:
            raise ValueError("k must be at least 1; sigma, max_side and max_boxes must not be negative")


MODES: dict[str, SelectiveSearch] = {
    "fast": SelectiveSearch(),
    "quality": SelectiveSearch(
        colour_spaces=("hsv", "lab", "rgi", "hue", "grey"),
        k=(50.0, 100.0, 150.0, 300.0),
        strategies=(ALL_FOUR, NO_COLOUR, Strategy(fill=True), Strategy(size=True)),
    ),
}


def search(
    image: NDArray[np.uint8], settings: SelectiveSearch = MODES["fast"], threads: int | None = None
) -> Proposals:
    """The proposals of a picture, (h, w, 3) RGB; boxes in its pixels, each once, scores above 0 up to 1.

    `threads` work on its segmentations, as many as there are cores if None; they change nothing but the time.
    """
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 1:
        raise ValueError(f"a picture is (h, w, 3), got {image.shape}")
    h, w = image.shape[:2]
    small = _shrunk(image, settings.max_side)
    chains = list(_hierarchies(small, settings, threads or os.cpu_count() or 1))
    boxes, scores = _ranked(chains, np.random.default_rng(settings.seed))
    scaled = boxes * (np.array([w, h, w, h]) / np.array([small.shape[1], small.shape[0]] * 2))
    large = (scaled[:, 2:] - scaled[:, :2] >= settings.min_side).all(axis=1)
    kept = np.flatnonzero(large)[: settings.max_boxes or None]
    return Proposals(scaled[kept].astype(np.float32), scores[kept])


def colour_space(image: NDArray[np.uint8], name: ColourSpace) -> NDArray[np.uint8]:
    """(h, w, 3) RGB -> (h, w, C) of 0 .. 255, one of the spaces of section 3.2."""
    if name == "hsv":
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL), np.uint8)
    if name == "lab":
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2Lab), np.uint8)
    if name == "hue":
        return np.ascontiguousarray(colour_space(image, "hsv")[..., :1])
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)[..., None]
    if name == "grey":
        return grey
    total = np.maximum(image.sum(axis=2, dtype=np.float32, keepdims=True), 1)
    shares = image[..., :2] * (255 / total)  # red and green as shares of the brightness, and the brightness
    return np.concatenate([np.rint(shares).astype(np.uint8), grey], axis=2)


def segments(image: NDArray[np.uint8], k: float, sigma: float) -> NDArray[np.int64]:
    """(h, w, C) -> (h, w) the starting region 0 .. R - 1 of each pixel."""
    from skimage.segmentation import felzenszwalb

    if min(image.shape[:2]) < 2:  # nothing to the side that could differ: scikit-image needs two rows and columns
        return np.zeros(image.shape[:2], np.int64)
    found: NDArray[np.int64] = felzenszwalb(image, scale=k, sigma=sigma, min_size=int(k))
    return found


def _shrunk(image: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    h, w = image.shape[:2]
    if not max_side or max(h, w) <= max_side:
        return image
    scale = max_side / max(h, w)
    size = (max(round(w * scale), 1), max(round(h * scale), 1))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _hierarchies(image: NDArray[np.uint8], settings: SelectiveSearch, threads: int) -> Iterator[NDArray[np.int64]]:
    """The boxes of one hierarchy after the other, each (2 R - 1, 4) with the whole picture last."""
    views = [colour_space(image, name) for name in settings.colour_spaces]
    found = _segmentations(views, settings, threads)
    for view in views:
        bins = pixel_bins(view)
        for _ in settings.k:
            regions = describe(next(found), bins)
            for strategy in settings.strategies:
                yield group(regions, strategy)


def _segmentations(
    views: list[NDArray[np.uint8]], settings: SelectiveSearch, threads: int
) -> Iterator[NDArray[np.int64]]:
    """The starting regions of each view for each k. They take most of the time, and leave the interpreter alone."""
    wanted = [(view, k) for view in views for k in settings.k]
    if threads == 1:
        yield from (segments(view, k, settings.sigma) for view, k in wanted)
        return
    pool = ThreadPoolExecutor(threads)
    try:
        yield from pool.map(lambda one: segments(one[0], one[1], settings.sigma), wanted)
    finally:
        pool.shutdown(cancel_futures=True)  # where somebody interrupts, what waits is not begun


def _ranked(chains: list[NDArray[np.int64]], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """All boxes once, best first: by the place in the hierarchy (the whole is 1) times a random number (section 3.3).

    The random number keeps large boxes from always coming first. A box that several hierarchies give has the best of
    its places.
    """
    places = np.concatenate([np.arange(len(chain), 0, -1) for chain in chains])
    boxes = np.concatenate(chains)
    values = places * rng.random(len(places))
    order = np.argsort(values, kind="stable")
    _, first = np.unique(boxes[order], axis=0, return_index=True)
    kept = order[np.sort(first)]
    return boxes[kept], (1 / (1 + values[kept])).astype(np.float32)
