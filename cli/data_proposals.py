"""`detseg data proposals`: places where objects may be, and how many of a data set's objects they cover."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import data_arguments, options
from .exits import Exit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from detseg.annotations import AnnotationSet
    from detseg.errors import ImageError
    from detseg.proposals import ProposalCache, Proposals, SelectiveSearch
    from detseg.proposals.recall import Coverage

_EPILOG = """\b
Examples:
  detseg data proposals VOC2012/ --split train --out proposals.npz    for detseg train
  detseg data proposals VOC2012/ --split val --limit 50               how good they are, and how long they take
  detseg data proposals VOC2012/ --mode quality --max 1000
  detseg data proposals VOC2012/ --proposals theirs.json              how good those of a file are

Recall: the share of objects that a proposal overlaps by an IoU of 0.5 (0.7). ABO: the average over objects of the best
overlap; MABO: its mean over classes. Crowds and difficult objects do not count."""


@dataclass
class _Tally:
    """What is counted on the way: overlaps of all annotations, and a number a picture that was done."""

    overlaps: list[NDArray[np.float64]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of those searched for, not those known
    faults: list[ImageError] = field(default_factory=list)
    known: int = 0


@click.command(cls=options.Command, epilog=_EPILOG)
@data_arguments.data()
@data_arguments.split()
@click.option(
    "--mode", type=click.Choice(["fast", "quality"]), default="fast", show_default=True,
    help="Selective search as its paper's: 8 ways of grouping, or 80.",
)  # fmt: skip
@click.option(
    "--max", "most", type=click.IntRange(1), default=2000, show_default=True, help="Proposals a picture, the best."
)
@click.option("--limit", type=click.IntRange(1), help="Only the first so many pictures.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the random part of the order.")
@click.option(
    "-o", "--out", type=click.Path(dir_okay=False, path_type=Path),
    help="Write the proposals to this .npz or .json file, too.",
)  # fmt: skip
@click.option(
    "--proposals", "brought", type=click.Path(dir_okay=False, path_type=Path),
    help="Measure the proposals of this file instead.",
)  # fmt: skip
@click.option(
    "--cache", type=click.Path(file_okay=False, path_type=Path),
    help="Folder to keep proposals in.  [default: in the user's cache folder]",
)  # fmt: skip
@click.option("--no-cache", is_flag=True, help="Neither read proposals that are known nor keep new ones.")
@options.workers()
@options.json_output()
@options.quiet
def command(
    data: Path,
    split: str | None,
    mode: str,
    most: int,
    limit: int | None,
    seed: int,
    out: Path | None,
    brought: Path | None,
    cache: Path | None,
    no_cache: bool,
    workers: int,
    as_json: bool,
    quiet: bool,
) -> Exit:
    """Places where objects may be, by selective search, and how well they cover the objects of a data set.

    They are what R-CNN and Fast R-CNN look at. Each picture's are kept, and found again by its content: training, or
    this command again, does not search twice.
    """
    from dataclasses import replace

    from detseg import annotations
    from detseg.proposals import MODES, table

    if out is not None:
        table.check_suffix(out)
    truth = annotations.load(data, split)
    if limit is not None:
        truth = truth.subset(range(min(limit, len(truth))))
    tally = _Tally()
    if brought is not None:
        named = _of_file(brought, truth, most, tally)
    else:
        settings = replace(MODES[mode], max_boxes=most, seed=seed)
        named = _searched(truth, settings, _cache(cache, no_cache), workers, quiet, tally)
    if out is not None:
        table.write(out, named)
    else:
        for _ in named:
            pass
    made = {"proposals": str(brought)} if brought else {"mode": mode, "seed": seed}
    about = {"data": str(data), "split": split, **made, "max": most, "out": None if out is None else str(out)}
    _tell(truth, about, tally, as_json)
    return _tell_faults(tally)


def _cache(folder: Path | None, no_cache: bool) -> ProposalCache | None:
    from detseg.proposals import ProposalCache

    if no_cache:
        return None
    return ProposalCache() if folder is None else ProposalCache(folder)


def _searched(
    truth: AnnotationSet,
    settings: SelectiveSearch,
    cache: ProposalCache | None,
    workers: int,
    quiet: bool,
    tally: _Tally,
) -> Iterator[tuple[str, Proposals]]:
    """Name and proposals of each picture that could be read; `tally` counts."""
    from detseg.proposals import propose
    from detseg.proposals.recall import best_overlaps

    from .progress import track

    paths = [truth.image_path(i) for i in range(len(truth))]
    with _closing(propose(paths, settings, cache, workers)) as found:
        for i, proposed in enumerate(track(found, "searching", len(paths), quiet=quiet)):
            tally.overlaps.append(best_overlaps(truth, i, proposed.proposals))
            if proposed.fault is not None:
                tally.faults.append(proposed.fault)
                continue
            tally.counts.append(len(proposed.proposals))
            if proposed.known:
                tally.known += 1
            else:
                tally.seconds.append(proposed.seconds)
            yield truth.image_files[i], proposed.proposals


@contextmanager
def _closing(found: Any) -> Iterator[Any]:
    """Ends the workers at once where the command is interrupted."""
    try:
        yield found
    finally:
        found.close()


def _of_file(file: Path, truth: AnnotationSet, most: int, tally: _Tally) -> Iterator[tuple[str, Proposals]]:
    """Name and proposals of each picture, from a file; `tally` counts."""
    from detseg.proposals import read
    from detseg.proposals.recall import best_overlaps

    table = read(file, truth)
    if table.left_out:
        click.echo(f"{file}: {table.left_out} boxes outside their pictures are left out", err=True)
    for i, (name, proposals) in enumerate(zip(table.names, table.proposals, strict=True)):
        best = proposals.best(most)
        tally.overlaps.append(best_overlaps(truth, i, best))
        tally.counts.append(len(best))
        yield name, best


def _tell(truth: AnnotationSet, about: dict[str, Any], tally: _Tally, as_json: bool) -> None:
    import numpy as np

    from detseg.proposals.recall import coverage, mean_over_classes

    whole, by_class = coverage(truth, np.concatenate([*tally.overlaps, np.zeros(0)]))
    facts = {
        **about,
        "pictures": len(truth),
        "boxes_per_picture": float(np.mean(tally.counts)) if tally.counts else None,
        "seconds_per_picture": float(np.mean(tally.seconds)) if tally.seconds else None,
        "known_before": tally.known,
        "failed": [{"path": str(fault.path), "cause": fault.cause} for fault in tally.faults],
    }
    mean = mean_over_classes(by_class)
    if as_json:
        numbers = {**whole.to_json(), "best_overlap_over_classes": None if math.isnan(mean) else mean}
        classes = {name: covered.to_json() for name, covered in by_class.items()}
        click.echo(json.dumps({**facts, **numbers, "classes": classes}, indent=2))
    else:
        _show(facts, whole, by_class, mean)


def _show(facts: dict[str, Any], whole: Coverage, by_class: dict[str, Coverage], mean: float) -> None:
    from .tables import printable, table

    boxes, seconds = facts["boxes_per_picture"], facts["seconds_per_picture"]
    words = [f"{facts['pictures']} pictures"]
    words += [] if boxes is None else [f"{boxes:.0f} boxes a picture"]
    words += [] if seconds is None else [f"{seconds:.3f} s a picture and process"]
    words += [f"{facts['known_before']} known before"] if facts["known_before"] else []
    click.echo(f"{', '.join(words)}\n")
    if not whole.objects:
        click.echo("no objects: recall cannot be told")
    else:
        rows = [_row(name, covered) for name, covered in by_class.items()]
        if len(rows) > 1:
            rows.append(_row("all", whole))
        click.echo(table(["class", "objects", "recall@0.5", "recall@0.7", "ABO"], rows, right=(1, 2, 3, 4)))
        click.echo(f"\nmean of the classes' ABO (MABO): {mean:.3f}")
    if facts["out"]:
        click.echo(f"written: {printable(facts['out'])}", err=True)


def _row(name: str, covered: Coverage) -> list[object]:
    return [name, covered.objects, *(f"{v:.3f}" for v in (covered.recall_50, covered.recall_70, covered.best_overlap))]


def _tell_faults(tally: _Tally) -> Exit:
    from .tables import printable

    for fault in tally.faults:
        click.echo(f"skipped: {printable(str(fault))}", err=True)
    if not tally.faults:
        return Exit.OK
    click.echo("objects of skipped pictures count as not covered", err=True)
    return Exit.SOME_FAILED if tally.counts else Exit.BAD_DATA
