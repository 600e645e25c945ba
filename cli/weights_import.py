"""`detseg weights import`: the weights of another program as a checkpoint of detseg."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detseg.errors import WeightsError

from . import options

if TYPE_CHECKING:
    from detseg.checkpoints.torchvision_files import Imported as FromTorchvision
    from detseg.detectors.darknet import Imported

_EPILOG = """\b
Examples:
  detseg weights import yolov4-tiny.cfg yolov4-tiny.weights --names coco.names
  detseg weights import net.cfg net.weights --names voc.names -o pets.safetensors --imgsz 416
  detseg weights import fasterrcnn_resnet50_fpn_coco-258fb6c6.pth
  detseg weights import my_maskrcnn.pth --names classes.txt -o mine.safetensors
  detseg train data/ -w pets.safetensors           fine-tune it on other classes

Darknet's detectors: YOLOv2, v3, v4, v7-tiny and what else a .cfg with [region] or [yolo] layers describes. Pictures
are stretched to its size, as Darknet does, unless the cfg says letter_box=1 or --fit another.

torchvision's models, as published or trained by its script: SSD300, SSDLite320, Faster R-CNN on ResNet-50-FPN (v1 and
v2) and MobileNetV3-FPN (and 320), Mask R-CNN on ResNet-50-FPN (v1 and v2); FCN and DeepLabV3 on ResNet-50 and 101,
DeepLabV3 and LR-ASPP on MobileNetV3. Which one a file is of is seen from its tensors; 90 classes of objects are COCO's
and 21 of pixels PASCAL VOC's unless --names says otherwise. Nothing in a file is run.

The checkpoint stands alone: it is used, measured and trained like any other."""

_MAX_NAMES = 1_000_000  # bytes


@click.command(cls=options.Command, epilog=_EPILOG, short_help="Make a checkpoint of a Darknet or torchvision network.")
@click.argument("files", metavar="NET.cfg NET.weights | FILE.pth", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--names",
    type=click.Path(path_type=Path),
    help="Names of the classes, one a line, such as coco.names.  [default: COCO's, or their numbers]",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="File or folder to write to.  [default: NET.safetensors beside NET.weights, FILE.safetensors beside FILE.pth]",
)
@click.option("--model", help="torchvision: its name of the model, where several have the same tensors.")
@options.imgsz("Darknet: size of the network's frame: 320, or 320x416 (height x width).  [default: the cfg's]")
@click.option(
    "--fit",
    type=click.Choice(["stretch", "letterbox"]),
    help="Darknet: pictures fill the frame, or keep their shape in it.  [default: as the cfg says, else stretch]",
)
@options.json_output("Print a JSON report on stdout.")
def command(
    files: tuple[Path, ...],
    names: Path | None,
    out: Path | None,
    model: str | None,
    imgsz: tuple[int, int] | None,
    fit: Any,
    as_json: bool,
) -> None:
    """Make a detseg checkpoint of a network and its weights that another program made: Darknet, or torchvision."""
    of_darknet = len(files) == 2
    if not files or len(files) > 2 or (not of_darknet and files[0].suffix in (".cfg", ".weights")):
        raise click.UsageError("give NET.cfg and NET.weights of a Darknet network, or one FILE.pth of torchvision's")
    if of_darknet and model is not None:
        raise click.UsageError("--model is for torchvision's files; what a Darknet network is, its cfg says")
    if not of_darknet and (imgsz is not None or fit is not None):
        raise click.UsageError("--imgsz and --fit are for Darknet networks; give detect and eval another size instead")
    target = _target(files[-1], out)
    for source in (*files, names):
        if source is not None and target.exists() and source.exists() and target.samefile(source):
            raise click.BadParameter(f"{source} itself would be overwritten", param_hint="--out")
    listed = read_names(names) if names else None
    if of_darknet:
        _import_darknet(files[0], files[1], target, listed, imgsz, fit, as_json)
    else:
        _import_torchvision(files[0], target, listed, model, as_json)


def _import_darknet(
    cfg: Path,
    weights: Path,
    target: Path,
    names: list[str] | None,
    imgsz: tuple[int, int] | None,
    fit: Any,
    as_json: bool,
) -> None:
    from detseg.checkpoints import save
    from detseg.detectors.darknet import import_network

    imported = import_network(cfg, weights, names, frame_hw=imgsz, fit=fit)
    save(target, imported.card, imported.state)
    for line in imported.unused:
        click.echo(f"{cfg}, {line}: not known, so not used", err=True)
    if names is None:
        click.echo("the classes are called by their numbers; --names FILE gives them names", err=True)
    click.echo(json.dumps(_report(imported, target), indent=2) if as_json else _told(imported, target))


def _import_torchvision(file: Path, target: Path, names: list[str] | None, model: str | None, as_json: bool) -> None:
    from detseg.checkpoints import save
    from detseg.checkpoints.torchvision_files import import_file

    imported = import_file(file, names, builder=model)
    save(target, imported.card, imported.state)
    for note in imported.notes:
        click.echo(note, err=True)
    tell_torchvision(imported, target, as_json)


def tell_torchvision(imported: FromTorchvision, target: Path, as_json: bool) -> None:
    """On stdout: what was imported, and to which file."""
    from .tables import printable

    card = imported.card
    frame = card.preprocess
    if as_json:
        report = {
            "file": str(target),
            "bytes": target.stat().st_size,
            "model": card.model,
            "torchvision": imported.builder,
            "parameters": imported.parameters,
            "frame_hw": list(frame.frame_hw),
            "fit": frame.fit,
            "classes": len(card.categories),
        }
        click.echo(json.dumps(report, indent=2))
        return
    (height, width), size = frame.frame_hw, target.stat().st_size / 1e6
    click.echo(f"{printable(target)}: {size:.1f} MB, {card.model}, {height}x{width}, {frame.fit}")
    click.echo(f"torchvision's {imported.builder}, {imported.parameters:,} parameters, {len(card.categories)} classes")


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
