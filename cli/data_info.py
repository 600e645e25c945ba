"""`detseg data info`: what is in a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import data_arguments, options

if TYPE_CHECKING:
    from detseg.annotations.summary import Summary


@click.command(cls=options.Command, epilog="\b\nExample:\n  detseg data info VOC2012/ --split train --json")
@data_arguments.data()
@data_arguments.split()
@options.json_output()
def command(data: Path, split: str | None, as_json: bool) -> None:
    """What is in a data set: pictures, objects of each class, sizes, and what is wrong with it."""
    from detseg import annotations
    from detseg.annotations.summary import summarise

    summary = summarise(annotations.load(data, split))
    parts = annotations.splits(data)
    if as_json:
        about = {"data": str(data), "split": split, "splits": list(parts)}
        click.echo(json.dumps({**about, **summary.to_json()}, indent=2))
    else:
        _show(data, split, parts, summary)


def _show(data: Path, split: str | None, parts: tuple[str, ...], summary: Summary) -> None:
    from .tables import printable, table

    part = f", split {split}" if split else f", splits {', '.join(parts)}" if parts else ""
    click.echo(f"{printable(data)}: {summary.format.upper()}{printable(part)}")
    ignored = f", {summary.ignored} ignored" if summary.ignored else ""
    empty = summary.images_without_objects
    click.echo(f"{summary.images} pictures ({empty} without objects), {summary.objects} objects{ignored}")
    sizes = ", ".join(f"{w}x{h} ({n})" for h, w, n in summary.image_sizes)
    more = ", ..." if summary.distinct_image_sizes > len(summary.image_sizes) else ""
    click.echo(
        f"pictures: width x height (how many) {sizes}{more}; sides {summary.shortest_side} to {summary.longest_side}"
    )
    boxes = ", ".join(f"{count} {name}" for name, count in summary.box_sizes.items())
    click.echo(f"objects: {boxes} (limits of area 32x32 and 96x96)")
    rows = [(c.id, c.name, c.objects, c.images, c.ignored) for c in summary.classes]
    click.echo("\n" + table(["id", "class", "objects", "pictures", "ignored"], rows, right=(0, 2, 3, 4)))
    click.echo()
    for fault in summary.faults:
        count = f"{fault.severity} {fault.kind}: {fault.count}"
        click.echo(f"{count}, the first: {printable(fault.first)}")
    if not summary.faults:
        click.echo("no faults")
