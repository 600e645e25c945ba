"""`detseg data info`: what is in a data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import data_arguments, options

if TYPE_CHECKING:
    from detseg.annotations.map_summary import MapSummary
    from detseg.annotations.semantic import SemanticSet
    from detseg.annotations.summary import Summary

_EPILOG = """\b
Examples:
  detseg data info shapes/
  detseg data info VOC2012/ --split train --json"""

_CLASSES = 100  # shown; --json has all


@click.command(cls=options.Command, epilog=_EPILOG)
@data_arguments.data()
@data_arguments.split()
@options.workers()
@options.json_output()
@options.quiet
def command(data: Path, split: str | None, workers: int, as_json: bool, quiet: bool) -> None:
    """What is in a data set: pictures, objects of each class, sizes, and which classes are seen together.

    Without --split its parts stand side by side. Of label maps the pixels of each class are counted. What is wrong
    with the set: detseg data check.
    """
    from detseg.annotations import find_format, splits

    format = find_format(data)
    parts = splits(data)
    whole, each = _objects(data, split, parts, format)
    maps = _maps(data, split, format, workers, quiet, needed=whole is None)
    if as_json:
        about: dict[str, Any] = {"data": str(data), "split": split, "splits": list(parts), "format": format}
        about |= {} if whole is None else whole.to_json()
        about |= {} if maps is None else {"label_maps": maps.to_json()}
        about |= {"by_split": {name: summary.to_json() for name, summary in each.items()}} if each else {}
        click.echo(json.dumps(about, indent=2))
        return
    _show_head(data, split, parts, format)
    if whole is not None:
        _show_objects(whole, each)
    if maps is not None:
        _show_maps(maps)


def _objects(
    data: Path, split: str | None, parts: Sequence[str], format: str
) -> tuple[Summary | None, dict[str, Summary]]:
    """The objects of what was asked for, and of each part where nothing was; None of a set of label maps."""
    from detseg.annotations import load
    from detseg.annotations.summary import summarise
    from detseg.errors import DataError

    try:
        whole = summarise(load(data, split))
    except DataError:
        if format != "masks":
            raise
        return None, {}
    each = {name: summarise(load(data, name)) for name in parts} if split is None and len(parts) > 1 else {}
    return whole, each


def _maps(data: Path, split: str | None, format: str, workers: int, quiet: bool, needed: bool) -> MapSummary | None:
    """The label maps that lie in files, where there are any."""
    if format not in ("masks", "voc"):
        return None
    from detseg.annotations import load_label_maps
    from detseg.annotations.map_summary import summarise_maps
    from detseg.annotations.semantic import Painted
    from detseg.errors import DataError

    from .progress import Progress

    try:
        maps: SemanticSet = load_label_maps(data, split)
    except DataError:
        if needed:
            raise
        return None
    if isinstance(maps.source, Painted):
        return None
    with Progress("reading label maps", len(maps), unit="maps", quiet=quiet) as bar:
        return summarise_maps(maps, workers=workers, on_map=bar.advance)


# ---- text ----


def _show_head(data: Path, split: str | None, parts: Sequence[str], format: str) -> None:
    from .tables import printable

    part = f", split {split}" if split else f", splits {', '.join(parts)}" if parts else ""
    click.echo(f"{printable(data)}: {format.upper()}{printable(part)}")


def _show_objects(whole: Summary, each: dict[str, Summary]) -> None:
    from .tables import table

    ignored = f", {whole.ignored} ignored" if whole.ignored else ""
    outlined = f", {whole.outlined} with outlines" if whole.outlined else ""
    empty = whole.images_without_objects
    click.echo(f"{whole.images} pictures ({empty} without objects), {whole.objects} objects{ignored}{outlined}")
    _show_sizes(whole.image_sizes, whole.distinct_image_sizes, whole.shortest_side, whole.longest_side)
    per = whole.objects_per_image
    click.echo(
        f"objects a picture: {per['mean']:.1f} on average, {per['median']:g} in the middle, {per['max']:g} at most"
    )
    boxes = ", ".join(f"{count} {name}" for name, count in whole.box_sizes.items())
    click.echo(f"objects: {boxes} (limits of area 32x32 and 96x96)")
    _show_quantiles(whole)
    header = ["id", "class", "objects", "pictures", "ignored", "small", "medium", "large", "median size"]
    rows = [
        (c.id, c.name, c.objects, c.images, c.ignored, *c.sizes.values(), f"{c.median_wh[0]:.0f}x{c.median_wh[1]:.0f}")
        for c in whole.classes[:_CLASSES]
    ]
    click.echo("\n" + table(header, rows, right=(0, 2, 3, 4, 5, 6, 7, 8)))
    _show_rest(len(whole.classes))
    if each:
        _show_parts(each)
    _show_pairs(whole)
    _show_faults(whole)


def _show_sizes(sizes: Sequence[tuple[int, int, int]], distinct: int, shortest: int, longest: int) -> None:
    shown = ", ".join(f"{w}x{h} ({n})" for h, w, n in sizes)
    more = ", ..." if distinct > len(sizes) else ""
    click.echo(f"pictures: width x height (how many) {shown}{more}; sides {shortest} to {longest}")


def _show_quantiles(whole: Summary) -> None:
    from detseg.annotations.summary import QUANTILES

    from .tables import table

    names = {"width": "width", "height": "height", "aspect": "width / height", "scale": "share of the picture's side"}
    digits = {"width": 0, "height": 0, "aspect": 2, "scale": 3}
    rows = [
        (names[key], *(f"{value:.{digits[key]}f}" for value in values))
        for key, values in whole.quantiles.items()
        if values
    ]
    if rows:
        header = ["boxes", *("least" if q == 0 else "most" if q == 1 else f"{q:.0%}" for q in QUANTILES)]
        click.echo("\n" + table(header, rows, right=range(1, 8)))


def _show_parts(each: dict[str, Summary]) -> None:
    """Pictures, objects and each class's objects of the parts, side by side, with the class's share in each."""
    from .tables import table

    names = list(each)
    rows: list[list[object]] = [
        ["pictures", *(str(each[name].images) for name in names)],
        ["without objects", *(str(each[name].images_without_objects) for name in names)],
        ["objects", *(str(each[name].objects) for name in names)],
    ]
    counts = {name: {c.name: c.objects for c in each[name].classes} for name in names}
    classes = list(dict.fromkeys(c.name for name in names for c in each[name].classes))
    for label in classes[:_CLASSES]:
        cells = []
        for name in names:
            count = counts[name].get(label, 0)
            cells.append(f"{count} ({count / max(1, each[name].objects):6.1%})")
        rows.append([label, *cells])
    click.echo("\n" + table(["", *names], rows, right=range(1, len(names) + 1)))
    _show_rest(len(classes))


def _show_rest(count: int) -> None:
    if count > _CLASSES:
        click.echo(f"... and {count - _CLASSES} more classes (--json shows all)")


def _show_pairs(whole: Summary) -> None:
    from .tables import printable

    pairs = whole.pairs(5)
    if pairs:
        words = ", ".join(f"{printable(a)} + {printable(b)} ({n})" for a, b, n in pairs)
        click.echo(f"\nmost often in one picture: {words}")


def _show_faults(whole: Summary) -> None:
    from .tables import printable

    click.echo()
    for fault in whole.faults:
        click.echo(f"{fault.severity} {fault.kind}: {fault.count}, the first: {printable(fault.first)}")
    click.echo("detseg data check tells more" if whole.faults else "no faults; detseg data check looks closer")


def _show_maps(maps: MapSummary) -> None:
    from .tables import table

    bad = f", {maps.unreadable} of them unreadable" if maps.unreadable else ""
    total = sum(c.pixels for c in maps.classes) + maps.ignored
    click.echo(f"\n{maps.images} label maps{bad}; {maps.ignored / max(1, total):.1%} of the pixels do not count")
    sizes = ", ".join(f"{w}x{h} ({n})" for h, w, n in maps.image_sizes)
    more = ", ..." if maps.distinct_image_sizes > len(maps.image_sizes) else ""
    click.echo(f"label maps: width x height (how many) {sizes}{more}")
    rows = [(c.id, c.name, c.pixels, f"{c.share:.2%}", c.images) for c in maps.classes[:_CLASSES]]
    click.echo("\n" + table(["value", "class", "pixels", "share", "pictures"], rows, right=(0, 2, 3, 4)))
    _show_rest(len(maps.classes))
