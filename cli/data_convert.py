"""`detseg data convert`: a data set in another format."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import data_arguments, options
from .exits import Exit

if TYPE_CHECKING:
    from detseg.annotations.convert import Conversion, Objects, Pictures, Target

_TARGETS = ("coco", "voc", "yolo", "masks", "cvat", "dota", "openimages")


@click.command(
    cls=options.Command,
    epilog="\b\nExamples:\n  detseg data convert VOC2012/ voc-as-coco/ --to coco"
    "\n  detseg data convert instances_val.json yolo/ --to yolo --link"
    "\n  detseg data convert camvid/ camvid-objects/ --to coco --objects parts",
)
@data_arguments.data()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(_TARGETS), required=True, help="The format to write.")
@data_arguments.split()
@data_arguments.pictures()
@click.option("--outlines/--no-outlines", default=True, help="Write outlines where the format can.  [default: yes]")
@click.option(
    "--objects",
    type=click.Choice(["parts", "values"]),
    help="Make objects of masks: of the connected parts of each class, or of each value.",
)
@click.option("--renumber", is_flag=True, help="Number the classes 0, 1, ... (many trainers of YOLO want that).")
@click.option("--exist-ok", is_flag=True, help="Write into OUT though it holds files; those of the same name go.")
@options.json_output()
@options.quiet
def command(
    data: Path,
    out: Path,
    to: Target,
    split: str | None,
    pictures: Pictures,
    outlines: bool,
    objects: Objects | None,
    renumber: bool,
    exist_ok: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a data set in another format, with its pictures and all its splits.

    DATA stays as it is; OUT must be new or empty. What the new format cannot say (crowds, difficult objects, ids,
    outlines, fractions of pixels) is told on stderr, and with --json.
    """
    from detseg.annotations.convert import Plan, convert

    from .progress import Progress

    plan = Plan(to, split, pictures, exist_ok, outlines, objects, renumber)
    with Progress("converting", quiet=quiet) as bar:
        done = convert(data, out, plan, bar.advance)
    _tell_faults(done)
    if as_json:
        click.echo(json.dumps(done.to_json(), indent=2))
    else:
        _show(done)
    if any(fault.severity == "error" for fault in done.faults):
        click.get_current_context().exit(Exit.SOME_FAILED)


def _tell_faults(done: Conversion) -> None:
    from .tables import printable

    for loss in done.not_kept:
        click.echo(f"warning: {printable(str(loss))}", err=True)
    counts = Counter((fault.severity, fault.kind) for fault in done.faults)
    for (severity, kind), count in counts.items():
        first = next(fault for fault in done.faults if (fault.severity, fault.kind) == (severity, kind))
        click.echo(f"{severity}: {count} {kind}, the first: {printable(str(first))}", err=True)


def _show(done: Conversion) -> None:
    from .tables import printable, table

    rows = [(part.name or "(all)", part.images, part.objects) for part in done.parts]
    click.echo(table(["split", "pictures", "objects"], rows, right=(1, 2)))
    click.echo(f"\n{done.format} data set: {printable(done.out)}")
