"""The route, streamed: path -> image -> network's frame -> candidates -> detections, in input order.

Decoding and selecting run in threads beside the network (all of them leave the interpreter lock alone while
they work), and only a bounded number of pictures is under way: memory is flat however long the folder.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from detseg.errors import ImageError
from detseg.images import ImageFile, read_image, read_image_and_hw
from detseg.postprocess import Selection, restore, select
from detseg.preprocess import Placement, Preprocess
from detseg.preprocess.recipe import lay_in
from detseg.results import Detections, RawDetections
from detseg.runtimes import Runtime

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one picture: `detections`, or the `fault` that kept it from being read; never both.

    `image` (h, w, 3) uint8 RGB upright, only where it was asked for.
    """

    file: ImageFile
    image: NDArray[np.uint8] | None
    detections: Detections | None
    fault: ImageError | None


@dataclass(frozen=True, eq=False)
class Laid:
    """A picture in the network's frame: `frame` (H, W, 3), how it was laid in, and itself if asked for."""

    frame: NDArray[np.uint8]
    placement: Placement
    image: NDArray[np.uint8] | None


def detect_files(
    files: Iterable[ImageFile],
    runtime: Runtime,
    selection: Selection,
    *,
    batch: int = 1,
    workers: int = 2,
    network_threads: int = 1,
    keep_images: bool = False,
    recipe: Preprocess | None = None,
) -> Iterator[Outcome]:
    """Detects on every file, in order; a file that cannot be read gives an outcome with its fault.

    `batch` pictures go through the network at once; `workers` threads decode; `network_threads` calls of
    `runtime.predict` run side by side (for a runtime that uses one core per call). Without `keep_images` a
    large JPEG may be decoded at a fraction of its size; boxes are in the pixels of the full picture all the
    same. `recipe` takes the place of the card's, for frames of another size. `files` is drawn on as needed, a
    bounded number ahead.
    """
    wanted = recipe or runtime.card.preprocess

    def decode(file: ImageFile) -> Laid | ImageError:
        try:
            return lay(file, wanted, keep_images)
        except ImageError as fault:
            return fault

    def infer(group: list[tuple[ImageFile, Future[Laid | ImageError]]]) -> list[Outcome]:
        return detect_laid([(file, laid.result()) for file, laid in group], runtime, selection)

    with threads(workers, "decode") as decoders, threads(network_threads, "network") as network:
        groups = ([(file, decoders.submit(decode, file)) for file in group] for group in _groups(files, batch))
        for outcomes in ordered(network, infer, groups, ahead=network_threads + 1 + workers // batch):
            yield from outcomes


def lay(file: ImageFile, recipe: Preprocess, keep_image: bool) -> Laid:
    """Reads one picture into the network's frame. Raises ImageError."""
    if file.fault is not None:
        raise ImageError(file.path, file.fault)
    if keep_image:
        image = read_image(file.path)
        frame, placement = recipe.place(image)
        return Laid(frame, placement, image)
    small, full_hw = read_image_and_hw(file.path, target_hw=recipe.frame_hw)
    placement = recipe.placement(full_hw)
    return Laid(lay_in(small, placement, recipe.fill), placement, None)


def detect_laid(
    group: list[tuple[ImageFile, Laid | ImageError]], runtime: Runtime, selection: Selection
) -> list[Outcome]:
    """One call of the network for the pictures that could be read; outcomes in the order of `group`."""
    frames = [laid.frame for _, laid in group if isinstance(laid, Laid)]
    raw = runtime.predict(np.stack(frames)) if frames else RawDetections((), ())
    candidates = iter(zip(raw.boxes, raw.scores, strict=True))
    outcomes = []
    for file, laid in group:
        if isinstance(laid, ImageError):
            outcomes.append(Outcome(file, None, None, laid))
            continue
        found = select(*next(candidates), selection)
        outcomes.append(Outcome(file, laid.image, restore(*found, laid.placement, file.path), None))
    return outcomes


def ordered(pool: ThreadPoolExecutor, work: Callable[[T], U], items: Iterable[T], *, ahead: int) -> Iterator[U]:
    """`work(item)` of every item, in order, done in `pool`; at most `ahead` items are under way."""
    under_way: deque[Future[U]] = deque()
    for item in items:
        under_way.append(pool.submit(work, item))
        if len(under_way) >= ahead:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group


@contextmanager
def threads(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Threads that drop what has not begun when the block ends, however it ends."""
    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
