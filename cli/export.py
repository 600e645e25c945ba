"""`detseg export`: a trained model as a file that other programs run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from . import options

_EPILOG = """\b
Examples:
  detseg export runs/train/exp/best.safetensors
  detseg export best.safetensors --out animals.onnx --imgsz 416 --no-half

The ONNX model takes uint8 pictures `frames` (N, H, W, 3) RGB of one size, any number at once, and answers
`boxes` (N, A, 4) in pixels of the frame and `scores` (N, A, classes); what was trained is noted inside. It is
compared with its source before it is kept: where they differ the exit code is 5 and nothing is written."""


@click.command(cls=options.Command, epilog=_EPILOG)
@click.argument("source", metavar="WEIGHTS", type=click.Path(path_type=Path), required=False)
@options.weights("The same as WEIGHTS.")
@click.option(
    "--format",
    "kind",
    cls=options.Option,
    aliases=("--include",),
    type=click.Choice(["onnx"]),
    default="onnx",
    show_default=True,
    help="What to write.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="File or folder to write to.  [default: beside WEIGHTS, with the format's ending]",
)
@click.option(
    "--half/--no-half",
    default=True,
    show_default=True,
    help="Store weights in 16 bits: half the size, the same speed.",
)
@options.imgsz()
@options.json_output("Print a JSON report on stdout.")
def command(
    source: Path | None,
    weights: Path | None,
    kind: str,
    out: Path | None,
    half: bool,
    imgsz: tuple[int, int] | None,
    as_json: bool,
) -> None:
    """Write a trained model as ONNX, checked against its source."""
    named = source or weights
    if named is None:
        raise click.UsageError("name the weights to export: detseg export WEIGHTS")
    from detseg.checkpoints import read_card, zoo

    path = zoo.resolve(named, kind="safetensors")
    read_card(path)  # what is no weight file is told before the exporter is loaded
    target = _target(path, out, kind)
    if target.exists() and target.samefile(path):
        raise click.BadParameter("the weights themselves would be overwritten", param_hint="--out")
    from detseg.runtimes.export import export_onnx

    report = export_onnx(path, target, half=half, frame_hw=imgsz)
    click.echo(json.dumps(asdict(report), default=str, indent=2) if as_json else _told(report))


def _target(path: Path, out: Path | None, kind: str) -> Path:
    """Where to write; what came with detseg is exported to the working folder, not into the installation."""
    from detseg.checkpoints import zoo

    if out is not None:
        return out / f"{path.stem}.{kind}" if out.is_dir() else out
    beside = path.with_suffix(f".{kind}")
    return Path(beside.name) if path.resolve().parent == zoo.folder().resolve() else beside


def _told(report: Any) -> str:
    from .tables import printable

    height, width = report.frame_hw
    lines = [
        f"{printable(report.path)}: {report.bytes / 1e6:.1f} MB, {height}x{width}, opset {report.opset}",
        f"against torch on {report.frames_checked} frames: {report.graph}",
    ]
    if report.half:
        lines.append(f"by storing 16 bits:          {report.rounding}")
    return "\n".join(lines)
