"""`detseg weights`: which weights come with detseg, and what is in a weight file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from . import options, weights_compress, weights_import, weights_pull
from .subcommands import SubcommandGroup

_LONGEST = 200  # characters of one setting that people want to see
_EPILOG = """\b
Examples:
  detseg weights list
  detseg weights info runs/train/exp/best.safetensors
  detseg weights pull fasterrcnn_resnet50_fpn-coco
  detseg weights import yolov4-tiny.cfg yolov4-tiny.weights --names coco.names
  detseg weights compress best.safetensors --ranks 64,32
  detseg weights verify"""


@click.group(cls=SubcommandGroup, epilog=_EPILOG)
def command() -> None:
    """List weight files, show what is in them, get or import those of torchvision and Darknet."""


command.add_command(weights_compress.command, "compress")
command.add_command(weights_import.command, "import")
command.add_command(weights_pull.command, "pull")


@command.command("list", cls=options.Command, epilog="\b\nExample:\n  detseg weights list --json")
@options.json_output()
def list_(as_json: bool) -> None:
    """The weights that come with detseg."""
    from detseg.checkpoints import zoo

    entries = zoo.entries()
    if as_json:
        click.echo(json.dumps([_entry_json(entry) for entry in entries], indent=2))
    elif not entries:
        click.echo("no weights come with this detseg", err=True)
    else:
        from .tables import table

        rows = [
            [
                entry.name,
                entry.task + (" (default)" if entry.default else ""),
                ", ".join(f"{kind} {_size(file.bytes)}" for kind, file in entry.files.items()),
                entry.summary,
            ]
            for entry in entries
        ]
        click.echo(table(["name", "task", "files", ""], rows))


@command.command(cls=options.Command, epilog="\b\nExample:\n  detseg weights info best.safetensors --json")
@click.argument("file", type=click.Path(path_type=Path))
@options.json_output("Print the card as JSON on stdout.")
def info(file: Path, as_json: bool) -> None:
    """What a weight file is: its model, classes, input and training.

    FILE is a .safetensors or .onnx file of detseg, or a name that `detseg weights list` shows.
    """
    from detseg.checkpoints import zoo
    from detseg.checkpoints.header import open_header

    path = zoo.resolve(file)
    kind, card = open_header(path)
    block = json.loads(card.to_json_text())
    if as_json:
        about = {"file": str(path), "kind": kind, "bytes": path.stat().st_size}
        click.echo(json.dumps({**about, "card": block}, indent=2))
        return
    from .tables import printable

    click.echo(f"{printable(path)}: {kind}, {_size(path.stat().st_size)}")
    rows = list(_rows(block))
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        click.echo(f"  {name:{width}}  {printable(text)}")


@command.command(cls=options.Command, epilog="\b\nExample:\n  detseg weights verify")
@click.argument("names", metavar="[NAME]...", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Check that the weights of `list` are as published."""
    from detseg.checkpoints import zoo
    from detseg.errors import WeightsError

    problems = []
    for entry in _chosen(names):
        try:
            zoo.verify(entry)
            click.echo(f"{entry.name}: as published")
        except WeightsError as error:
            problems.append(str(error))
    if problems:
        raise WeightsError("; ".join(problems))


def _chosen(names: tuple[str, ...]) -> list[Any]:
    from detseg.checkpoints import zoo
    from detseg.errors import WeightsError

    known = {entry.name: entry for entry in zoo.entries()}
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "see: detseg weights list"
            raise WeightsError(f"{name}: no weights of this name come with detseg; {hint}")
    return [known[name] for name in names or known]


def _rows(card: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A card for people: the short facts first, then settings and training, one line each."""
    frame, names = card["preprocess"], [category["name"] for category in card["categories"]]
    yield "model", f"{card['model']} ({card['task']})"
    yield "frames", f"{frame['frame_hw'][0]}x{frame['frame_hw'][1]}, {frame['fit']}"
    yield "classes", f"{len(names)}: {', '.join(names)}"
    yield "written by", f"detseg {card['written_by']}, format {card['format_version']}"
    for part in ("training", "config"):
        yield from _flat(part, card[part])


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(f"{name}.{key}", item)
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        yield name, text if len(text) <= _LONGEST else f"{text[:100]} ... ({len(text):,} characters: see --json)"


def _entry_json(entry: Any) -> dict[str, Any]:
    files = {
        kind: {"file": str(file.path), "sha256": file.sha256, "bytes": file.bytes} for kind, file in entry.files.items()
    }
    about = {name: getattr(entry, name) for name in ("name", "task", "default", "summary")}
    return {**about, "files": files}


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
