"""`detseg data check`: everything that is wrong with a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import data_arguments, options
from .exits import Exit

if TYPE_CHECKING:
    from detseg.checks import Finding, Report

_EPILOG = """\b
Examples:
  detseg data check shapes/
  detseg data check VOC2012/ --split train --max 20
  detseg data check cells/ --json > findings.json

Exit codes: 0 without errors, 3 with errors (with --strict, also with warnings). Errors lose or falsify truth or
measurements, warnings may, notes are for knowing."""


@click.command(cls=options.Command, epilog=_EPILOG)
@data_arguments.data()
@data_arguments.split()
@click.option("--strict", is_flag=True, help="Warnings count as errors do: exit code 3.")
@click.option("--fast", is_flag=True, help="Read only the headers of pictures; find no damaged or similar ones.")
@click.option("--max", "most", type=click.IntRange(1), default=5, show_default=True, help="Findings shown of a kind.")
@options.workers()
@options.json_output("Print all findings as JSON on stdout.")
@options.quiet
def command(
    data: Path, split: str | None, strict: bool, fast: bool, most: int, workers: int, as_json: bool, quiet: bool
) -> Exit:
    """Everything that is wrong with a data set, each with its file, its annotation, and what helps.

    Pictures are decoded, sizes compared, boxes, outlines and label maps looked at; the same picture is found in two
    splits, also under another name, encoding or size. Nothing is changed: `detseg data fix` writes a repaired copy.
    """
    from detseg.checks import check

    from .progress import Progress

    with Progress("checking", unit="files", quiet=quiet) as bar:

        def on_progress(done: int, total: int) -> None:
            bar.total = total
            bar.advance(done - bar.done)

        report = check(data, split, decode=not fast, workers=workers, on_progress=on_progress)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1))
    else:
        show_report(report, most)
    return Exit.BAD_DATA if report.count("error") or (strict and report.count("warning")) else Exit.OK


def show_report(report: Report, most: int) -> None:
    """The findings on stdout, by kind, `most` of each."""
    from .tables import printable, table

    parts = f", splits {', '.join(report.splits)}" if report.splits else ""
    click.echo(f"{printable(report.data)}: {report.format.upper()}{printable(parts)}")
    maps = f", {report.label_maps} label maps" if report.label_maps else ""
    click.echo(f"{report.pictures} pictures, {report.objects} objects{maps}")
    for severity, kind in report.by_kind:
        _show_kind(report, severity, kind, most)
    if not report.findings:
        click.echo("nothing is wrong")
        return
    rows = [(severity, kind, count) for (severity, kind), count in report.by_kind.items()]
    click.echo("\n" + table(["severity", "kind", "findings"], rows, right=(2,)))
    errors, warnings, notes = (report.count(s) for s in ("error", "warning", "note"))
    click.echo(f"\n{_many(errors, 'error')}, {_many(warnings, 'warning')}, {_many(notes, 'note')}")


def _show_kind(report: Report, severity: str, kind: str, most: int) -> None:
    from detseg.checks.kinds import kind_of

    found = [f for f in report.findings if (f.severity, f.kind) == (severity, kind)]
    click.echo(f"\n{severity} {kind}: {kind_of(kind).meaning} ({len(found)})")
    for finding in found[:most]:
        click.echo(f"  {_line(finding, report.data)}")
    if len(found) > most:
        click.echo(f"  ... and {len(found) - most} more (--max {len(found)}, or --json, shows all)")
    click.echo(f"  what helps: {kind_of(kind).remedy}")


def _line(finding: Finding, data: str) -> str:
    """File, annotation, message; files by their place in the data set."""
    from .tables import printable

    inside = str(Path(data)) + "/"
    return printable(str(finding).replace(inside, ""))


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
