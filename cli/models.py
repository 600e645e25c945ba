"""`detseg models`: what can be trained, and what it costs."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from . import options

_MOST_RUNS = 10
_GFLOPS_IN_ALL = 500.0  # of the measured runs of one model: seconds, where ten frames of a large one take minutes
_EPILOG = """\b
Examples:
  detseg models
  detseg models yolo yolov2 --measure
  detseg models --json

GFLOPs: operations of one picture at the model's own size, in 10^9; a multiplication and an addition are
two. Parameters and GFLOPs are for 80 classes, as COCO has. A model of two stages is counted with as many
regions as it judges at most; what proposes them from outside is not counted (detseg data proposals times it).

--measure runs each model on random numbers: the median of up to ten frames, fewer of large models, with torch
and all cores. The processor is named on stderr, and in the JSON."""


@click.command(cls=options.Command, epilog=_EPILOG)
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option("--measure", is_flag=True, help="Also the time of one picture on this CPU (random weights).")
@options.json_output()
def command(names: tuple[str, ...], measure: bool, as_json: bool) -> None:
    """List the models that can be trained: paper, size, parameters, operations."""
    from detseg import catalog

    from .progress import track

    entries = [catalog.entry(name) for name in names or catalog.names()]
    label = "measuring" if measure else "counting"
    listed = [_about(entry, measure) for entry in track(entries, label, len(entries), unit="models")]
    if measure:
        click.echo(f"ms: {listed[0]['machine']}", err=True)
    click.echo(json.dumps(listed, indent=2) if as_json else _table(listed, measure))


def _table(listed: list[dict[str, Any]], measure: bool) -> str:
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
    return table(header, rows, right=(3, 4, 5, 6) if measure else (3, 4, 5))


def _about(entry: Any, measure: bool) -> dict[str, Any]:
    from detseg.runtimes import cost

    about = {name: getattr(entry, name) for name in ("name", "paper", "summary", "backbone", "imgsz")}
    about |= asdict(cost.count(entry.name))
    if not measure:
        return about
    runs = max(1, min(_MOST_RUNS, round(_GFLOPS_IN_ALL / max(about["gflops"], 1.0))))
    return {**about, "ms": cost.milliseconds(entry.name, runs=runs), "machine": _machine()}


def _machine() -> str:
    """The processor, as its maker calls it where the system tells, and the threads that torch takes."""
    import torch

    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass  # another system than Linux
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'' if threads == 1 else 's'}"
