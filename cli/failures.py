"""Pictures that could not be done: in failures.csv, and the first of them on stderr."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import click

from detseg import files
from detseg.errors import ImageError
from detseg.images import ImageFile
from detseg.writers.text import readable

from .exits import Exit
from .tables import counted, printable

FAILURES = "failures.csv"
NAMED_FAILURES = 10


def write_failures(folder: Path, faults: Sequence[tuple[ImageFile, ImageError]]) -> None:
    """failures.csv: file, path and cause of every picture that could not be done; gone when there is none."""
    target = folder / FAILURES
    if not faults:
        target.unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("file", "path", "cause"))
    told = ((file.name.as_posix(), str(fault.path), fault.cause) for file, fault in faults)
    rows.writerows([readable(text) for text in row] for row in told)
    files.write_text(target, text.getvalue())


def tell_failures(folder: Path, faults: Sequence[tuple[ImageFile, ImageError]]) -> None:
    """The first failures on stderr, and where all of them stand."""
    if not faults:
        return
    click.echo(f"{counted(len(faults), 'picture')} could not be done ({folder / FAILURES}):", err=True)
    for _, fault in faults[:NAMED_FAILURES]:
        click.echo(f"  {printable(fault.path)}: {printable(fault.cause)}", err=True)
    if len(faults) > NAMED_FAILURES:
        click.echo(f"  ... and {len(faults) - NAMED_FAILURES} more", err=True)


def tell_faults(folder: Path, faults: Sequence[tuple[ImageFile, ImageError]]) -> Exit:
    """Both of the above, and the exit code."""
    write_failures(folder, faults)
    tell_failures(folder, faults)
    return Exit.SOME_FAILED if faults else Exit.OK
