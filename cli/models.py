"""`detseg models`: what can be trained, and what it costs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from . import options

_EPILOG = """\b
Examples:
  detseg models
  detseg models yolo yolov2 --measure
  detseg models --json

GFLOPs: operations of one picture at the model's own size, in 10^9; a multiplication and an addition are
two. Parameters and GFLOPs are for 80 classes, as COCO has."""


@click.command(cls=options.Command, epilog=_EPILOG)
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option("--measure", is_flag=True, help="Also the time of one picture on this CPU (random weights).")
@options.json_output()
def command(names: tuple[str, ...], measure: bool, as_json: bool) -> None:
    """List the models that can be trained: paper, size, parameters, operations."""
    from detseg.detectors import catalog

    entries = [catalog.entry(name) for name in names or catalog.names()]
    listed = [_about(entry, measure) for entry in entries]
    if as_json:
        click.echo(json.dumps(listed, indent=2))
        return
    from .tables import table

    header = ["model", "paper", "backbone", "size", "parameters", "GFLOPs", *(["ms"] if measure else []), ""]
    rows = [
        [
            model["name"],
            model["paper"],
            model["backbone"],
            model["imgsz"],
            f"{model['parameters'] / 1e6:.2f} M",
            f"{model['gflops']:.2f}",
            *([f"{model['ms']:.1f}"] if measure else []),
            model["summary"],
        ]
        for model in listed
    ]
    click.echo(table(header, rows, right=(3, 4, 5, 6) if measure else (3, 4, 5)))


def _about(entry: Any, measure: bool) -> dict[str, Any]:
    from detseg.runtimes import cost

    about = {name: getattr(entry, name) for name in ("name", "paper", "summary", "backbone", "imgsz")}
    about |= asdict(cost.count(entry.name))
    return {**about, "ms": cost.milliseconds(entry.name)} if measure else about
