"""`detseg data split`: a data set divided into train, val and test."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import data_arguments, options

if TYPE_CHECKING:
    from detseg.checks.division import Division
    from detseg.checks.rewriting import Pictures

_EPILOG = """\b
Examples:
  detseg data split shapes/ --out shapes-split/ --fractions 0.8,0.1,0.1
  detseg data split films/ --out split/ --fractions 0.9,0.1 --group-by '^(film\\d+)_'
  detseg data split VOC2012/ --out lists/ --lists --seed 7

With --lists pictures stay where they are. Written are then, as each format has it: ImageSets/Main/PART.txt (VOC),
PART.txt and a data.yaml to train on (YOLO), instances_PART.json (COCO), PART.txt (mask folders)."""

_NAMES = {2: ("train", "val"), 3: ("train", "val", "test")}
_CLASSES = 100  # shown; --json has all


class Fractions(click.ParamType):
    """`0.8,0.1,0.1` or `80,10,10` -> numbers above 0."""

    name = "fractions"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """The numbers."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(word) for word in str(value).split(","))
        except ValueError:
            self.fail(f"'{value}' is not a list of numbers such as 0.8,0.1,0.1", param, ctx)
        if len(numbers) < 2 or not all(0 < number < float("inf") for number in numbers):
            self.fail(f"'{value}': two or more numbers above 0 are needed, such as 0.8,0.2", param, ctx)
        if abs(sum(numbers) - 1) > 1e-6 and not (abs(sum(numbers) - 100) < 1e-6):
            self.fail(f"'{value}' adds up to {sum(numbers):g}, not to 1 or 100", param, ctx)
        return numbers


@click.command(cls=options.Command, epilog=_EPILOG)
@data_arguments.data()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder for the divided data set.")
@click.option(
    "--fractions",
    type=Fractions(),
    default="0.8,0.1,0.1",
    show_default=True,
    help="The share of pictures of each part.",
)
@click.option("--names", help="Names of the parts, parted by commas.  [default: train,val,test]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another division.")
@click.option("--group-by", metavar="REGEX", help="Pictures for whose names this gives the same text stay together.")
@data_arguments.split("Divide only this part of the data set.  [default: everything]")
@click.option("--lists", is_flag=True, help="Write only lists; pictures and annotations stay where they are.")
@data_arguments.pictures()
@options.workers()
@options.json_output("Print what is in each part as JSON on stdout.")
@options.quiet
def command(
    data: Path,
    out: Path,
    fractions: tuple[float, ...],
    names: str | None,
    seed: int,
    group_by: str | None,
    split: str | None,
    lists: bool,
    pictures: Pictures,
    workers: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Divide a data set so that every class has its share in every part.

    By iterative stratification (Sechidis and others, 2011). The same picture under two names, or in two sizes, stays
    in one part; --group-by keeps together what else belongs together, such as the frames of one film. DATA stays as
    it is, and the same seed gives the same parts.
    """
    from detseg.annotations.formats import place_of_data
    from detseg.checks import division_files
    from detseg.checks.division import divide
    from detseg.checks.rewriting import check_format

    from .progress import Progress

    parts = _names(names, len(fractions))
    pattern = _pattern(group_by)
    data = place_of_data(data)
    whole = division_files.load_whole(data, split, check_format(data))
    with Progress("looking at pictures", len(whole), quiet=quiet) as bar:
        division = divide(whole, parts, fractions, seed=seed, group_by=pattern, workers=workers, on_picture=bar.advance)
    if lists:
        division_files.write_lists(data, whole, division, out)
    else:
        division_files.write_copy(data, whole, division, out, pictures)
    if as_json:
        about = {"data": str(data), "out": str(out), "seed": seed, "fractions": fractions}
        click.echo(json.dumps({**about, **division.to_json()}, indent=2))
    else:
        _show(division, out)


def _names(names: str | None, count: int) -> tuple[str, ...]:
    if names is None:
        if count not in _NAMES:
            raise click.UsageError(f"{count} fractions need {count} names: --names a,b,...")
        return _NAMES[count]
    words = tuple(word.strip() for word in names.split(","))
    if len(words) != count or len(set(words)) < count or not all(re.fullmatch(r"[\w.-]*\w[\w.-]*", w) for w in words):
        raise click.UsageError(f"--names '{names}': {count} different words of letters and digits are needed")
    return words


def _pattern(group_by: str | None) -> re.Pattern[str] | None:
    try:
        return None if group_by is None else re.compile(group_by)
    except re.error as error:
        raise click.BadParameter(f"is no regular expression: {error}", param_hint="--group-by") from None


def _show(division: Division, out: Path) -> None:
    """Pictures of each part, and of each class its pictures and their share of the class."""
    from .tables import printable, table

    counts = division.table
    totals = counts.sum(axis=0)
    rows = []
    for column, label in enumerate(("all pictures", *division.classes[:_CLASSES])):
        shares = [f"{n} ({n / max(1, totals[column]):5.1%})" for n in counts[:, column].tolist()]
        rows.append((label, *shares))
    click.echo(table(["pictures with", *division.names], rows, right=range(1, len(division.names) + 1)))
    if len(division.classes) > _CLASSES:
        click.echo(f"... and {len(division.classes) - _CLASSES} more classes (--json shows all)")
    if division.groups:
        click.echo(f"\n{division.together} pictures in {division.groups} groups were kept together")
    click.echo(f"\nwritten: {printable(out)}")
