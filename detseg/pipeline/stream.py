"""Pictures streamed through threads, in order, a bounded number under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from detseg.errors import ImageError
from detseg.images import ImageFile
from detseg.pipeline.members import Found, Outcome

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Pace:
    """How many pictures at a time: `batch` of them go through the network at once, `workers` threads decode, and
    `network_threads` calls of the network run side by side (for a runtime that uses one core per call).
    """

    batch: int = 1
    workers: int = 2
    network_threads: int = 1


ONE_BY_ONE = Pace()


def streamed(
    files: Iterable[ImageFile],
    decode: Callable[[ImageFile], T],
    answer: Callable[[list[tuple[ImageFile, T]]], list[Outcome[Found]]],
    pace: Pace,
) -> Iterator[Outcome[Found]]:
    """Every file through `decode` and then, a batch at once, through `answer`; in order, a bounded number under way.

    A file whose `decode` raises ImageError has an outcome that says so, and `answer` never sees it.
    """

    def attempt(file: ImageFile) -> T | ImageError:
        try:
            return decode(file)
        except ImageError as fault:
            return fault

    def infer(group: list[tuple[ImageFile, Future[T | ImageError]]]) -> list[Outcome[Found]]:
        done = [(file, future.result()) for file, future in group]
        readable = [(file, made) for file, made in done if not isinstance(made, ImageError)]
        answers = iter(answer(readable) if readable else [])
        return [
            Outcome(file, None, None, made) if isinstance(made, ImageError) else next(answers) for file, made in done
        ]

    with threads(pace.workers, "decode") as decoders, threads(pace.network_threads, "network") as network:
        groups = ([(file, decoders.submit(attempt, file)) for file in group] for group in _groups(files, pace.batch))
        ahead = pace.network_threads + 1 + pace.workers // pace.batch
        for outcomes in ordered(network, infer, groups, ahead=ahead):
            yield from outcomes


def ordered(pool: ThreadPoolExecutor, work: Callable[[T], U], items: Iterable[T], *, ahead: int) -> Iterator[U]:
    """`work(item)` of every item, in order, done in `pool`; at most `ahead` items are under way."""
    under_way: deque[Future[U]] = deque()
    for item in items:
        under_way.append(pool.submit(work, item))
        if len(under_way) >= ahead:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


@contextmanager
def threads(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Threads that drop what has not begun when the block ends, however it ends."""
    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group
