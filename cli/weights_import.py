"""`detseg weights import`: the weights of another program as a checkpoint of detseg."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detseg.errors import WeightsError

from . import options

if TYPE_CHECKING:
    from detseg.detectors.darknet import Imported

_EPILOG = """\b
Examples:
  detseg weights import yolov4-tiny.cfg yolov4-tiny.weights --names coco.names
  detseg weights import net.cfg net.weights --names voc.names -o pets.safetensors --imgsz 416
  detseg train data/ -w pets.safetensors           fine-tune it on other classes

Darknet's detectors: YOLOv2, v3, v4, v7-tiny and what else a .cfg with [region] or [yolo] layers describes. The
checkpoint stands alone: it detects, evaluates, exports and trains like any other. Pictures are stretched to its
size, as Darknet does, unless the cfg says letter_box=1 or --fit another."""

_MAX_NAMES = 1_000_000  # bytes


@click.command(cls=options.Command, epilog=_EPILOG, short_help="Make a checkpoint of a Darknet network.")
@click.argument("cfg", metavar="NET.cfg", type=click.Path(path_type=Path))
@click.argument("weights", metavar="NET.weights", type=click.Path(path_type=Path))
@click.option(
    "--names",
    type=click.Path(path_type=Path),
    help="Names of the classes, one a line, such as coco.names.  [default: their numbers]",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="File or folder to write to.  [default: NET.safetensors beside NET.weights]",
)
@options.imgsz("Size of the network's frame: 320, or 320x416 (height x width).  [default: the cfg's]")
@click.option(
    "--fit",
    type=click.Choice(["stretch", "letterbox"]),
    help="Pictures fill the frame, or keep their shape in it.  [default: as the cfg says, else stretch]",
)
@options.json_output("Print a JSON report on stdout.")
def command(
    cfg: Path,
    weights: Path,
    names: Path | None,
    out: Path | None,
    imgsz: tuple[int, int] | None,
    fit: Any,
    as_json: bool,
) -> None:
    """Make a detseg checkpoint of a Darknet network and its weights."""
    target = _target(weights, out)
    for source in (cfg, weights, names):
        if source is not None and target.exists() and source.exists() and target.samefile(source):
            raise click.BadParameter(f"{source} itself would be overwritten", param_hint="--out")
    listed = read_names(names) if names else None
    from detseg.checkpoints import save
    from detseg.detectors.darknet import import_network

    imported = import_network(cfg, weights, listed, frame_hw=imgsz, fit=fit)
    save(target, imported.card, imported.state)
    for line in imported.unused:
        click.echo(f"{cfg}, {line}: not known, so not used", err=True)
    if names is None:
        click.echo("the classes are called by their numbers; --names FILE gives them names", err=True)
    click.echo(json.dumps(_report(imported, target), indent=2) if as_json else _told(imported, target))


def read_names(path: Path) -> list[str]:
    """The names of a .names file, one a line. Raises WeightsError when it is none."""
    from detseg.checkpoints.header import expect_file

    expect_file(path)
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_NAMES + 1).decode("utf-8-sig")
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise WeightsError(f"{path}: not a list of names: {error}") from error
    if len(text) >= _MAX_NAMES or "\0" in text:
        raise WeightsError(f"{path}: not a list of names, one class a line")
    return [name for line in text.splitlines() if (name := line.strip())]


def _target(weights: Path, out: Path | None) -> Path:
    if out is None:
        return weights.with_suffix(".safetensors")
    return out / f"{weights.stem}.safetensors" if out.is_dir() else out


def _report(imported: Imported, target: Path) -> dict[str, Any]:
    return {
        "file": str(target),
        "bytes": target.stat().st_size,
        "layers": len(imported.plan.layers),
        "parameters": imported.plan.numbers,
        "frame_hw": list(imported.plan.frame_hw),
        "fit": imported.card.preprocess.fit,
        "classes": len(imported.card.categories),
        **imported.card.training["imported"],
        "unused": list(imported.unused),
    }


def _told(imported: Imported, target: Path) -> str:
    from .tables import printable

    (height, width), card = imported.plan.frame_hw, imported.card
    heads = ", ".join(head.kind for _, head in imported.plan.heads)
    return "\n".join(
        [
            f"{printable(target)}: {target.stat().st_size / 1e6:.1f} MB, {height}x{width}, {card.preprocess.fit}",
            f"{len(imported.plan.layers)} layers, {imported.plan.numbers:,} numbers; answers: {heads}; "
            f"{len(card.categories)} classes",
            f"Darknet {imported.header.version}, {imported.header.seen:,} pictures seen in training",
        ]
    )
