"""A run over pictures, whatever is found in them: listed, streamed through network and writers, resumed, told.

`detseg detect` and `detseg segment` differ in their `Job`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shlex
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click
import cv2

from detseg.annotations.categories import Categories
from detseg.errors import DataError, DetsegError, ImageError
from detseg.images import ImageFile, find_images
from detseg.pipeline import Outcome, ordered, threads
from detseg.runtimes import Runtime
from detseg.writers import Writers

from . import run_folder
from .chosen_weights import Chosen
from .exits import Exit
from .failures import tell_failures, write_failures
from .journal import FILE_NAME as JOURNAL
from .journal import Journal
from .progress import Progress
from .tables import counted, printable

LISTED_AHEAD = 10_000  # pictures up to which their number is known before the first is done


@dataclass(frozen=True, kw_only=True)
class Request:
    """What every such command line says; as it was given."""

    sources: tuple[str, ...]
    weights: tuple[Path, ...]
    ensemble_weights: tuple[float, ...]
    imgsz: tuple[int, int] | None
    batch: int
    device: str
    runtime: str
    workers: int
    formats: tuple[str, ...]
    out: Path | None
    project: Path
    name: str | None
    exist_ok: bool
    resume: bool
    limit: int | None
    dry_run: bool
    as_json: bool
    quiet: bool
    verbose: bool


class Tally(ABC):
    """What was found so far, counted."""

    def __init__(self, categories: Categories) -> None:
        self.categories = categories
        self.pictures = 0
        self.faults: list[tuple[ImageFile, ImageError]] = []

    def add(self, outcome: Outcome[Any]) -> None:
        """Counts one picture."""
        if outcome.found is None:
            assert outcome.fault is not None
            self.faults.append((outcome.file, outcome.fault))
            return
        self.pictures += 1
        self.count(outcome.file, outcome.found)

    @abstractmethod
    def count(self, file: ImageFile, found: Any) -> None:
        """Counts what was found in one picture."""

    @abstractmethod
    def table(self) -> str:
        """All of it, for stdout."""

    @abstractmethod
    def sentence(self) -> str:
        """The counts in words."""


class Job(ABC):
    """What is done with each picture. `doing` says so: "detecting"."""

    doing: str

    def __init__(self, chosen: Chosen) -> None:
        self.chosen = chosen

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What decides the results besides weights and sources, as plain JSON values."""

    @abstractmethod
    def outcomes(
        self, files: Iterator[ImageFile], runtimes: Sequence[Runtime], keep_images: bool
    ) -> Iterator[Outcome[Any]]:
        """What becomes of each file, in order, when these look at it."""

    @abstractmethod
    def open_writers(self, folder: Path) -> Writers:
        """The formats that were asked for."""

    @abstractmethod
    def tally(self) -> Tally:
        """An empty one."""

    @abstractmethod
    def row(self, file: ImageFile, found: Any) -> dict[str, Any]:
        """What was found in one picture as plain JSON values."""

    @abstractmethod
    def words(self, file: ImageFile, found: Any) -> str:
        """What was found in one picture, for people."""

    def json_line(self, outcome: Outcome[Any]) -> str:
        """One picture as a line of JSON; with its cause where it could not be done."""
        file = outcome.file
        if outcome.found is not None:
            return json.dumps(self.row(file, outcome.found))
        assert outcome.fault is not None
        return json.dumps({"file": file.name.as_posix(), "path": str(file.path), "error": outcome.fault.cause})

    def plain_line(self, outcome: Outcome[Any]) -> str:
        """One picture as a line for people: what it holds, or why it could not be done."""
        file = outcome.file
        if outcome.found is not None:
            told = self.words(file, outcome.found)
        else:
            told = printable(outcome.fault.cause) if outcome.fault else "not done"
        return f"{printable(file.name)}: {told}"


def run(request: Request, take_on: Callable[[], Job]) -> Exit:
    """Does the whole command; `take_on` reads the weights, once there are pictures."""
    folder = _folder(request, make=False)
    pictures, total = _listed(request, folder)
    job = take_on()
    if request.dry_run:
        return _dry_run(request, job, pictures, folder)
    cv2.setNumThreads(1)  # the route has its own threads, one picture each
    runtimes = job.chosen.open(request)
    folder = _folder(request, make=True)
    journal = Journal(folder, _settings(request, job), resume=request.resume)
    tally, started = job.tally(), time.monotonic()
    try:
        with job.open_writers(folder) as writers:
            is_whole = _stream(_Bench(request, job, runtimes, writers, journal), pictures, total, tally)
        write_failures(folder, tally.faults)
    except DetsegError:
        if len(journal):
            click.echo(f"{len(journal)} pictures are finished; go on with: {_resume_words(folder)}", err=True)
        raise
    finally:
        journal.close()
    _tell(request, tally, folder, time.monotonic() - started, is_whole)
    if not is_whole:
        return Exit.INTERRUPTED
    return Exit.SOME_FAILED if tally.faults else Exit.OK


# ---- what is asked for ----


def _folder(request: Request, *, make: bool) -> Path:
    """Where the results go. With --resume that is the folder of the run to go on with, if there is one."""
    out, reuse = request.out, request.exist_ok
    if request.resume:
        out = out or run_folder.latest(request.project, request.name)
        reuse = reuse or (out is not None and (out / JOURNAL).exists())
    return run_folder.choose(out, request.project, request.name, reuse=reuse, make=make)


def _listed(request: Request, folder: Path) -> tuple[Iterator[ImageFile], int | None]:
    """The pictures, and how many they are unless they are very many. Raises DataError when there is none."""
    found = _outside(folder, request.sources)
    pictures = islice(found, request.limit)
    first = list(islice(pictures, LISTED_AHEAD + 1))
    if not first:
        raise DataError(f"no pictures found in {', '.join(request.sources)}")
    return chain(first, pictures), len(first) if len(first) <= LISTED_AHEAD else None


def _outside(folder: Path, sources: tuple[str, ...]) -> Iterator[ImageFile]:
    """The pictures that do not lie in the folder that is written to: a run never reads its own results.

    Raises DetsegError when a source itself lies there: results could take the place of pictures.
    """
    home = folder.resolve()
    for source in sources:
        if Path(source).exists() and Path(source).resolve().is_relative_to(home):
            raise DetsegError(f"{folder}: {source} lies in it; choose another folder with --out")
    # a folder that is there already is skipped; one that is made only while pictures are listed is sieved out
    found, inside = find_images(sources, stdin=sys.stdin, skip=(home,)), folder.absolute()
    return (picture for picture in found if not picture.path.absolute().is_relative_to(inside))


def _settings(request: Request, job: Job) -> dict[str, Any]:
    """What decides the results: a run goes on only with the same."""
    same = {name: getattr(request, name) for name in ("sources", "imgsz", "formats")}
    weights = [_digested(model.weights) for model in job.chosen.models]
    ensemble = {"ensemble_weights": job.chosen.shares} if len(weights) > 1 else {}
    return {"weights": weights, **ensemble} | job.settings() | same


def _digested(weights: Path) -> str:
    """A file's name, and what tells it from others of that name."""
    with weights.open("rb") as content:
        return f"{weights.name} {hashlib.file_digest(content, 'sha256').hexdigest()[:12]}"


# ---- the stream ----


@dataclass(frozen=True, eq=False)
class _Bench:
    """What a run works with."""

    request: Request
    job: Job
    runtimes: Sequence[Runtime]
    writers: Writers
    journal: Journal


def _stream(bench: _Bench, pictures: Iterator[ImageFile], total: int | None, tally: Tally) -> bool:
    """Every picture through network and writers, in order, each noted when done; False if interrupted."""
    request, job = bench.request, bench.job
    try:
        with (
            Progress(job.doing, total, quiet=request.quiet) as progress,
            threads(request.workers, "write") as pool,
        ):
            outcomes = _outcomes(bench, pictures)
            for outcome, is_new in ordered(pool, _writing(bench), outcomes, ahead=2 * request.workers):
                if outcome.found is not None:
                    bench.writers.append(outcome.file, outcome.found)
                    if is_new:
                        bench.journal.add(outcome.file, outcome.found)
                tally.add(outcome)
                if request.as_json:
                    click.echo(job.json_line(outcome))
                if request.verbose:
                    progress.say(job.plain_line(outcome))
                progress.advance()
    except KeyboardInterrupt:
        return False
    return True


def _outcomes(bench: _Bench, pictures: Iterator[ImageFile]) -> Iterator[tuple[Outcome[Any], bool]]:
    """Each picture's outcome, in order, and whether it is new or known from the journal."""
    journal = bench.journal
    drawn: deque[ImageFile] = deque()  # by the network, or passed over because they are finished

    def unfinished() -> Iterator[ImageFile]:
        for picture in pictures:
            drawn.append(picture)
            if picture not in journal:
                yield picture

    def finished() -> Iterator[tuple[Outcome[Any], bool]]:
        while drawn and drawn[0] in journal:
            picture = drawn.popleft()
            yield Outcome[Any](picture, None, journal.found(picture), None), False

    for outcome in bench.job.outcomes(unfinished(), bench.runtimes, bench.writers.needs_image):
        yield from finished()
        drawn.popleft()
        yield outcome, True
    yield from finished()


def _writing(bench: _Bench) -> Callable[[tuple[Outcome[Any], bool]], tuple[Outcome[Any], bool]]:
    """Writes the files of one picture; a name too long for the file system is that picture's fault alone."""

    def write(item: tuple[Outcome[Any], bool]) -> tuple[Outcome[Any], bool]:
        outcome, is_new = item
        if outcome.found is None or not is_new:
            return item
        try:
            bench.writers.write_files(outcome.file, outcome.image, outcome.found)
        except DetsegError as error:
            if not (isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENAMETOOLONG):
                raise
            fault = ImageError(outcome.file.path, "its name is too long to name a result after it")
            return Outcome[Any](outcome.file, None, None, fault), True
        # the pixels are let go of here, not when the picture's turn comes to be counted
        return replace(outcome, image=None), True

    return write


# ---- what is told ----


def _dry_run(request: Request, job: Job, pictures: Iterator[ImageFile], folder: Path) -> Exit:
    """Names every picture on stdout and tells what would be done with them; nothing is written."""
    number = 0
    for picture in pictures:
        click.echo(printable(picture.path))
        number += 1
    formats = ", ".join(request.formats) or "nothing"
    verb = job.doing.removesuffix("ing")
    click.echo(f"would {verb} on {counted(number, 'picture')} with {printable(job.chosen.name)}", err=True)
    click.echo(f"would write {formats} to {printable(folder)}", err=True)
    return Exit.OK


def _tell(request: Request, tally: Tally, folder: Path, seconds: float, is_whole: bool) -> None:
    """The table on stdout; counts, place and failures on stderr."""
    if not request.as_json:
        click.echo(tally.table())
    if not request.quiet:
        told = tally.sentence() + (f", {len(tally.faults)} not read" if tally.faults else "")
        click.echo(f"{told} ({seconds:.1f} s); results are in {printable(folder)}", err=True)
    tell_failures(folder, tally.faults)
    if not is_whole:
        click.echo(f"interrupted: what is finished is kept; go on with: {_resume_words(folder)}", err=True)


def _resume_words(folder: Path) -> str:
    return f"the same command and --resume --out {shlex.quote(str(folder))}"
