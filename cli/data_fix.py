"""`detseg data fix`: a repaired copy of a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import data_arguments, options
from .exits import Exit

if TYPE_CHECKING:
    from detseg.checks import Report
    from detseg.checks.repair import Repair
    from detseg.checks.rewriting import Pictures

_EPILOG = """\b
Examples:
  detseg data fix cells/ --out cells-fixed/
  detseg data fix VOC2012/ --out fixed/ --keep-duplicates --json

changes.jsonl in OUT lists every change. What cannot be repaired is told, as detseg data check tells it; exit code 3
when errors are left."""


@click.command(cls=options.Command, epilog=_EPILOG)
@data_arguments.data()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder for the repaired copy.")
@click.option("--keep-duplicates", is_flag=True, help="Keep pictures that are there twice, or in two splits.")
@click.option("--merge-names", is_flag=True, help="Merge classes whose names differ only by case or blanks.")
@click.option("--max", "most", type=click.IntRange(1), default=3, show_default=True, help="Changes shown of a kind.")
@data_arguments.pictures()
@options.workers()
@options.json_output("Print all changes, and what is left, as JSON on stdout.")
@options.quiet
def command(
    data: Path,
    out: Path,
    keep_duplicates: bool,
    merge_names: bool,
    most: int,
    pictures: Pictures,
    workers: int,
    as_json: bool,
    quiet: bool,
) -> Exit:
    """Write a repaired copy of a data set, in its own format; DATA is never touched.

    Left out are pictures and annotations that cannot be used, and what is there twice; boxes are cut to their
    pictures, or turned and scaled where the size that was said is not the picture's. Fields that detseg does not
    know stay. A picture in two splits stays where models are tested.
    """
    from detseg.checks import check
    from detseg.checks.repair import Wishes, repair

    from .progress import Progress

    wishes = Wishes(pictures, keep_duplicates, merge_names, workers)
    with Progress("looking at pictures", quiet=quiet) as bar:

        def on_progress(done: int, total: int) -> None:
            bar.total = total
            bar.advance(done - bar.done)

        done = repair(data, out, wishes, on_progress)
    left = check(out, workers=workers) if pictures != "none" else None
    if as_json:
        click.echo(json.dumps({**done.to_json(), "left": None if left is None else left.to_json()}, indent=1))
    else:
        _show(done, left, most)
    return Exit.BAD_DATA if left is not None and left.count("error") else Exit.OK


def _show(done: Repair, left: Report | None, most: int) -> None:
    from detseg.checks.repair import CHANGES

    from .data_check import show_report
    from .tables import printable

    for kind, count in done.by_kind.items():
        click.echo(f"{kind} ({count})")
        changes = [change for change in done.changes if change.kind == kind]
        for change in changes[:most]:
            where = change.file if change.annotation is None else f"{change.file}, annotation {change.annotation}"
            click.echo(f"  {printable(where.removeprefix(f'{done.data}/'))}: {printable(change.message)}")
        if count > most:
            click.echo(f"  ... and {count - most} more")
    words = f"{len(done.changes)} changes" if done.changes else "nothing was to be repaired"
    click.echo(f"{words}; {done.pictures} pictures, {done.objects} objects in {printable(done.out)}")
    if done.changes:
        click.echo(f"every change: {printable(Path(done.out) / CHANGES)}")
    if left is not None and (left.count("error") or left.count("warning")):
        click.echo("\nwhat is left:\n")
        show_report(left, most)
