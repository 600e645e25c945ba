"""`detseg data download`: which public data sets there are, and one of them fetched, checked and unpacked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from . import options
from .tables import printable, table

if TYPE_CHECKING:
    from detseg.annotations.descriptors import Descriptor
    from detseg.public_sets import Plan
    from detseg.public_sets.install import Report

_EPILOG = """\b
Examples:
  detseg data download                        which sets there are
  detseg data download bccd                   get one; then: detseg data info bccd
  detseg data download coco2017 --dry-run     how much it is, its licence, how to get it by hand

An interrupted download goes on where it stopped. DETSEG_DATA names another data folder for good."""


@click.command(cls=options.Command, epilog=_EPILOG)
@click.argument("name", required=False)
@click.option(
    "-o", "--out", type=click.Path(file_okay=False, path_type=Path),
    help="Data folder: the set becomes OUT/NAME.  [default: $DETSEG_DATA, or the user's own data folder]",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only tell what would be done, and how to do it by hand.")
@click.option("--keep-archives", is_flag=True, help="Do not delete downloaded archives once they are unpacked.")
@options.json_output()
@options.quiet
def command(name: str | None, out: Path | None, dry_run: bool, keep_archives: bool, as_json: bool, quiet: bool) -> None:
    """Get the public data set NAME: download, check, unpack and lay it out; without NAME, list all sets.

    Prints the folder, which detseg reads; so does its NAME, in every command that takes a data set. Licences are
    those of the publishers, and what follows from them is told.
    """
    from detseg.annotations import descriptors

    folder = descriptors.data_folder(out)
    if name is None:
        _list(folder, as_json)
        return
    descriptor = descriptors.read(name)
    if dry_run:
        _tell_plan(descriptor, folder, as_json)
        return
    path = _get(descriptor, folder, keep_archives, quiet)
    if as_json:
        click.echo(json.dumps({"name": name, "path": str(path), "read_as": descriptor.read_as}, indent=2))
    else:
        click.echo(printable(path))


def _get(descriptor: Descriptor, folder: Path, keep_archives: bool, quiet: bool) -> Path:
    from detseg import public_sets

    def say(line: str) -> None:
        if not quiet:
            click.echo(printable(line), err=True)

    if public_sets.plan(descriptor, folder).is_complete:
        say(f"{descriptor.name}: complete already")
        return folder / descriptor.name
    say(f"licence: {descriptor.licence.name}: {descriptor.licence.means}")
    try:
        path = public_sets.install(descriptor, folder, watcher=_watcher(quiet), keep_archives=keep_archives)
    except public_sets.ByHandError as error:
        for line in ("", "by hand:", *(f"  {i}. {step}" for i, step in enumerate(error.steps, 1)), ""):
            click.echo(printable(line), err=True)
        raise
    except KeyboardInterrupt:
        say("what has arrived is kept: the same command goes on from there")
        raise
    say(f"{descriptor.read_as}; use it by its name: detseg data info {descriptor.name}")
    return path


def _watcher(quiet: bool) -> Any:
    from detseg.public_sets import Watcher

    from .progress import Progress

    class OnStderr(Watcher):
        """Tells people how it goes."""

        def __init__(self) -> None:
            self._bar: Progress | None = None

        @contextmanager
        def bar(self, label: str, unit: Literal["bytes", "files"]) -> Iterator[Report]:
            """A bar that counts megabytes, or files."""
            per_step = 1_000_000 if unit == "bytes" else 1
            with Progress(printable(label), unit="MB" if unit == "bytes" else "files", quiet=quiet) as bar:

                def report(done: int, total: int | None) -> None:
                    bar.total = None if total is None else total // per_step
                    bar.advance(done // per_step - bar.done)

                self._bar = bar
                yield report
            self._bar = None

        def say(self, line: str) -> None:
            """A line above the bar."""
            if quiet:
                return
            if self._bar is not None:
                self._bar.say(printable(line))
            else:
                click.echo(printable(line), err=True)

    return OnStderr()


def _list(folder: Path, as_json: bool) -> None:
    from detseg import public_sets
    from detseg.annotations import descriptors

    known = [descriptors.read(name) for name in descriptors.names()]
    here = {d.name: (folder / d.name).is_dir() for d in known}
    if as_json:
        complete = {d.name: public_sets.plan(d, folder).is_complete for d in known}
        listed = [{**_facts(d), "path": str(folder / d.name), "complete": complete[d.name]} for d in known]
        click.echo(json.dumps({"data_folder": str(folder), "sets": listed}, indent=2))
        return
    rows = [
        [
            d.name,
            ", ".join(d.task),
            f"{sum(d.pictures.values()):,}",
            d.class_count,
            _size(d.size),
            "restricted" if d.licence.restricted else "free",
            d.licence.name,
            "yes" if here[d.name] else "by hand" if _is_by_hand(d) else "",
        ]
        for d in known
    ]
    header = ["name", "truth", "pictures", "classes", "download", "use", "licence", "here"]
    click.echo(table(header, rows, right=(2, 3, 4)))
    click.echo(f"\ndata folder: {printable(folder)}; more on a set: detseg data download NAME --dry-run", err=True)


def _is_by_hand(descriptor: Descriptor) -> bool:
    return not descriptor.files or any(not file.urls for file in descriptor.files)


def _facts(descriptor: Descriptor) -> dict[str, Any]:
    import msgspec

    facts: dict[str, Any] = msgspec.to_builtins(descriptor)
    kept = ("name", "title", "task", "classes", "pictures", "page", "licence", "citation", "read_as", "files", "notes")
    return {**{key: facts[key] for key in kept}, "bytes": descriptor.size, "by_hand": _is_by_hand(descriptor)}


def _tell_plan(descriptor: Descriptor, folder: Path, as_json: bool) -> None:
    from detseg.public_sets import plan
    from detseg.public_sets.install import instructions

    planned = plan(descriptor, folder)
    steps = () if planned.is_complete else instructions(planned)
    if as_json:
        files = [
            {"name": w.file.name, "path": str(w.path), "bytes": w.file.size, "have": w.have} for w in planned.wanted
        ]
        about = {"path": str(planned.target), "complete": planned.is_complete, "missing_bytes": planned.missing}
        click.echo(json.dumps({**_facts(descriptor), **about, "wanted": files, "steps": steps}, indent=2))
        return
    for label, text in _plan_rows(descriptor, planned):
        click.echo(f"{label:9} {printable(text)}")
    for number, step in enumerate(steps, 1):
        click.echo(f"{'by hand' if number == 1 else '':9} {number}. {printable(step)}")


def _plan_rows(descriptor: Descriptor, planned: Plan) -> Iterator[tuple[str, str]]:
    yield descriptor.name, descriptor.title
    pictures = ", ".join(f"{count:,} {split}" for split, count in descriptor.pictures.items())
    yield "pictures", f"{pictures}; {descriptor.class_count} classes; {', '.join(descriptor.task)}"
    yield "licence", f"{descriptor.licence.name}: {descriptor.licence.means}"
    yield "cite", descriptor.citation
    yield "page", descriptor.page
    yield "read as", descriptor.read_as
    for note in descriptor.notes:
        yield "note", note
    if planned.is_complete:
        yield "folder", f"{planned.target}: complete already"
        return
    for wanted in planned.wanted:
        state = "there" if wanted.is_there else f"{_size(wanted.have)} are there" if wanted.have else "missing"
        known = wanted.file.hash or "no published hash"
        yield "file", f"{wanted.file.name}, {_size(wanted.file.size)}, {state}; {known} ({wanted.file.hash_from})"
    unpacked = f"; takes {_size(descriptor.unpacked)} there" if descriptor.unpacked else ""
    yield "folder", f"{planned.target}{unpacked}"


def _size(count: int | None) -> str:
    """20.4 GB; powers of ten, as download pages count."""
    if count is None:
        return "?"
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} B"
