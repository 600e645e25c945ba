"""The run behind `detseg detect`: what is asked for, the pictures, the stream through network and writers."""

from __future__ import annotations

import difflib
import errno
import hashlib
import shlex
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click
import cv2

from detseg.annotations.categories import Categories
from detseg.checkpoints import Card
from detseg.errors import DataError, DetsegError, ImageError
from detseg.images import ImageFile, find_images
from detseg.pipeline import Outcome, detect_files, ordered, threads
from detseg.postprocess import Selection, Views
from detseg.postprocess.select import NMS
from detseg.proposals import Proposer
from detseg.runtimes import Runtime, open_runtime
from detseg.writers import Writers, open_writers

from . import chosen_weights, run_folder, tta
from .detect_report import Tally, counted, json_line, plain_line, tell_failures, write_failures
from .exits import Exit
from .journal import FILE_NAME as JOURNAL
from .journal import Journal
from .progress import Progress
from .tables import printable

LISTED_AHEAD = 10_000  # pictures up to which their number is known before the first is done


@dataclass(frozen=True, kw_only=True)
class Request:
    """The command line, as it was given."""

    sources: tuple[str, ...]
    weights: Path | None
    conf: float
    iou: float
    classes: tuple[str, ...]
    max_det: int
    agnostic: bool
    nms: NMS | None
    tta: bool
    tta_scales: tuple[float, ...]
    tta_flips: str
    tta_merge: str
    imgsz: tuple[int, int] | None
    proposals: Path | None
    batch: int
    device: str
    runtime: str
    workers: int
    formats: tuple[str, ...]
    save_conf: bool
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


@dataclass(frozen=True, eq=False)
class Model:
    """The weights of a run and how they are used."""

    weights: Path
    kind: str  # "onnx" or "safetensors"
    card: Card
    selection: Selection
    views: Views | None
    proposer: Proposer | None = None

    def side_by_side(self, device: str) -> bool:
        """Whether each call of the network keeps to one core, so that several run at once (wasting less)."""
        return self.kind == "onnx" and device in ("auto", "cpu")


def run(request: Request) -> Exit:
    """Does the whole command."""
    folder = _folder(request, make=False)
    pictures, total = _listed(request, folder)
    model = _model(request)
    if request.dry_run:
        return _dry_run(request, model, pictures, folder)
    cv2.setNumThreads(1)  # the route has its own threads, one picture each
    runtime = _runtime(request, model)
    folder = _folder(request, make=True)
    journal = Journal(folder, _settings(request, model), resume=request.resume)
    tally, started = Tally(model.card.categories), time.monotonic()
    try:
        with open_writers(request.formats, folder, model.card.categories, save_conf=request.save_conf) as writers:
            is_whole = _stream(Bench(request, model, runtime, writers, journal), pictures, total, tally)
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


def _model(request: Request) -> Model:
    """The weights, checked, and the selection in terms of their classes."""
    weights, kind, card = chosen_weights.choose(
        request.weights,
        runtime=request.runtime,
        device=request.device,
        imgsz=request.imgsz,
        several_sizes=tta.wants_scales(request),
    )
    classes = _class_indices(request.classes, card.categories)
    kind_of_nms = tta.suppression(request, card)
    chosen = Selection(
        request.conf, request.iou, request.max_det, agnostic=request.agnostic, classes=classes, nms=kind_of_nms
    )
    views, note = tta.views(request, kind)
    proposer, another = chosen_weights.proposer(card, request.proposals)
    for told in filter(None, (note, another)):
        click.echo(f"note: {told}", err=True)
    return Model(weights, kind, card, chosen, views, proposer)


def _class_indices(words: tuple[str, ...], categories: Categories) -> tuple[int, ...] | None:
    """Names or numbers from 0, several with commas -> class indices; None for all."""
    known = categories.index_of_name
    singles = [part.strip() for word in words for part in ([word] if word in known else word.strip("[]").split(","))]
    indices = []
    for single in filter(None, singles):
        if single not in known and not (single.isdecimal() and int(single) < len(categories)):
            close = difflib.get_close_matches(single, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(categories.names)}"
            raise click.BadParameter(f"'{single}' is no class of these weights; {hint}", param_hint="--classes")
        indices.append(known.get(single, int(single) if single.isdecimal() else -1))
    return tuple(sorted(set(indices))) if indices else None


def _settings(request: Request, model: Model) -> dict[str, Any]:
    """What decides the results: a run goes on only with the same."""
    with model.weights.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()[:12]
    names = ("sources", "conf", "iou", "max_det", "agnostic", "imgsz", "formats", "save_conf")
    same = {name: getattr(request, name) for name in names}
    chosen = {"classes": model.selection.classes, "nms": model.selection.nms, "views": str(model.views)}
    chosen |= {"proposals": str(request.proposals)} if request.proposals else {}
    return {"weights": f"{model.weights.name} {digest}"} | chosen | same


def _runtime(request: Request, model: Model) -> Runtime:
    """The network, ready."""
    limit = 1 if model.side_by_side(request.device) else None
    return open_runtime(model.weights, runtime=request.runtime, device=request.device, threads=limit)


# ---- the stream ----


@dataclass(frozen=True, eq=False)
class Bench:
    """What a run works with."""

    request: Request
    model: Model
    runtime: Runtime
    writers: Writers
    journal: Journal


def _stream(bench: Bench, pictures: Iterator[ImageFile], total: int | None, tally: Tally) -> bool:
    """Every picture through network and writers, in order, each noted when done; False if interrupted."""
    request, categories = bench.request, bench.model.card.categories
    try:
        with (
            Progress("detecting", total, quiet=request.quiet) as progress,
            threads(request.workers, "write") as pool,
        ):
            outcomes = _outcomes(bench, pictures)
            for outcome, is_new in ordered(pool, _writing(bench), outcomes, ahead=2 * request.workers):
                if outcome.detections is not None:
                    bench.writers.append(outcome.file, outcome.detections)
                    if is_new:
                        bench.journal.add(outcome.file, outcome.detections)
                tally.add(outcome)
                if request.as_json:
                    click.echo(json_line(outcome, categories))
                if request.verbose:
                    progress.say(plain_line(outcome, categories))
                progress.advance()
    except KeyboardInterrupt:
        return False
    return True


def _outcomes(bench: Bench, pictures: Iterator[ImageFile]) -> Iterator[tuple[Outcome, bool]]:
    """Each picture's outcome, in order, and whether it is new or known from the journal."""
    request, journal = bench.request, bench.journal
    drawn: deque[ImageFile] = deque()  # by the network, or passed over because they are finished

    def unfinished() -> Iterator[ImageFile]:
        for picture in pictures:
            drawn.append(picture)
            if picture not in journal:
                yield picture

    def finished() -> Iterator[tuple[Outcome, bool]]:
        while drawn and drawn[0] in journal:
            picture = drawn.popleft()
            yield Outcome(picture, None, journal.detections(picture), None), False

    recipe = bench.model.card.preprocess
    fresh = detect_files(
        unfinished(),
        bench.runtime,
        bench.model.selection,
        batch=request.batch,
        workers=request.workers,
        network_threads=request.workers if bench.model.side_by_side(request.device) else 1,
        keep_images=bench.writers.needs_image,
        recipe=replace(recipe, frame_hw=request.imgsz) if request.imgsz else recipe,
        views=bench.model.views,
        proposals=bench.model.proposer,
    )
    for outcome in fresh:
        yield from finished()
        drawn.popleft()
        yield outcome, True
    yield from finished()


def _writing(bench: Bench) -> Callable[[tuple[Outcome, bool]], tuple[Outcome, bool]]:
    """Writes the files of one picture; a name too long for the file system is that picture's fault alone."""

    def write(item: tuple[Outcome, bool]) -> tuple[Outcome, bool]:
        outcome, is_new = item
        if outcome.detections is None or not is_new:
            return item
        try:
            bench.writers.write_files(outcome.file, outcome.image, outcome.detections)
        except DetsegError as error:
            if not (isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENAMETOOLONG):
                raise
            fault = ImageError(outcome.file.path, "its name is too long to name a result after it")
            return Outcome(outcome.file, None, None, fault), True
        # the pixels are let go of here, not when the picture's turn comes to be counted
        return replace(outcome, image=None), True

    return write


# ---- what is told ----


def _dry_run(request: Request, model: Model, pictures: Iterator[ImageFile], folder: Path) -> Exit:
    """Names every picture on stdout and tells what would be done with them; nothing is written."""
    number = 0
    for picture in pictures:
        click.echo(printable(picture.path))
        number += 1
    formats = ", ".join(request.formats) or "nothing"
    click.echo(f"would detect on {counted(number, 'picture')} with {printable(model.weights)}", err=True)
    click.echo(f"would write {formats} to {printable(folder)}", err=True)
    return Exit.OK


def _tell(request: Request, tally: Tally, folder: Path, seconds: float, is_whole: bool) -> None:
    """The table on stdout; counts, place and failures on stderr."""
    if not request.as_json:
        click.echo(tally.table())
    if not request.quiet:
        click.echo(f"{tally.sentence()} ({seconds:.1f} s); results are in {printable(folder)}", err=True)
    tell_failures(folder, tally.faults)
    if not is_whole:
        click.echo(f"interrupted: what is finished is kept; go on with: {_resume_words(folder)}", err=True)


def _resume_words(folder: Path) -> str:
    return f"the same command and --resume --out {shlex.quote(str(folder))}"
