"""Proposals of many picture files: from the cache where they are known, else searched for, in worker processes."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import cv2

from detseg.errors import DetsegError, ImageError
from detseg.images import read_image
from detseg.proposals.cache import ProposalCache
from detseg.proposals.contract import Proposals
from detseg.proposals.selective_search import SelectiveSearch, search


@dataclass(frozen=True, eq=False)
class Proposed:
    """What came of one picture file.

    seconds: of the search; known: the search was not needed; cause: why the picture cannot be read, where it cannot.
    """

    path: Path
    proposals: Proposals
    seconds: float = 0.0
    known: bool = False
    cause: str = ""

    @property
    def fault(self) -> ImageError | None:
        """What is wrong with the picture, None where nothing is."""
        return ImageError(self.path, self.cause) if self.cause else None


def proposals_of(path: str | Path, settings: SelectiveSearch, cache: ProposalCache | None = None) -> Proposals:
    """The proposals of a picture file. Raises ImageError where it cannot be read; DetsegError, see `ProposalCache`."""
    return _proposed(Path(path), settings, cache).proposals


def propose(
    paths: Sequence[Path], settings: SelectiveSearch, cache: ProposalCache | None = None, workers: int = 1
) -> Iterator[Proposed]:
    """The proposals of picture files, in their order; more than one worker are processes of their own.

    A picture that cannot be read is told in `fault`, the others are done. Raises DetsegError where the cache cannot be
    written or a worker was killed.
    """
    if min(workers, len(paths)) <= 1:
        yield from (_work(path, settings, cache) for path in paths)
        return
    context = multiprocessing.get_context("spawn")  # forked threads may hold locks for ever
    pool = ProcessPoolExecutor(min(workers, len(paths)), mp_context=context, initializer=_begin)
    try:
        waiting: deque[Future[Proposed]] = deque()
        for path in paths:
            waiting.append(pool.submit(_work, path, settings, cache, 1))  # a core each
            if len(waiting) >= 4 * workers:  # enough to keep all busy, few enough to keep memory flat
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DetsegError("a worker process was ended from outside, maybe for lack of memory; fewer --workers need "
                          "less; what was found is kept in the cache") from error  # fmt: skip
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """A worker's start: one thread each, and interruptions are for the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def _work(path: Path, settings: SelectiveSearch, cache: ProposalCache | None, threads: int | None = None) -> Proposed:
    try:
        return _proposed(path, settings, cache, threads)
    except ImageError as error:
        return Proposed(path, Proposals(), cause=error.cause)


def _proposed(
    path: Path, settings: SelectiveSearch, cache: ProposalCache | None, threads: int | None = None
) -> Proposed:
    """The cache holds all boxes, so that another limit needs no search."""
    whole = replace(settings, max_boxes=0)
    limit = settings.max_boxes or None
    place = _place(path, whole, cache)
    found = cache.get(place) if cache and place else None
    if found is not None:
        return Proposed(path, found.best(limit), known=True)
    image = read_image(path)
    start = time.perf_counter()
    found = search(image, whole, threads)
    seconds = time.perf_counter() - start
    if cache and place:
        cache.put(place, found)
    return Proposed(path, found.best(limit), seconds)


def _place(path: Path, settings: SelectiveSearch, cache: ProposalCache | None) -> Path | None:
    """The picture's place in the cache; None where there is no cache, or no file whose content could be read."""
    if cache is None:
        return None
    try:
        return cache.place(path.read_bytes(), settings) if path.is_file() else None
    except (OSError, ValueError):
        return None  # reading the picture says what is wrong
