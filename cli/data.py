"""`detseg data`: what is in a data set, which anchors fit it, and a small set to try things on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from . import options
from .subcommands import SubcommandGroup

if TYPE_CHECKING:
    from detseg.annotations import AnnotationSet
    from detseg.annotations.summary import Summary

_EPILOG = """\b
Examples:
  detseg data sample shapes/
  detseg data info shapes/
  detseg data anchors shapes/ -k 6 --imgsz 320"""

_DATA = click.argument("data", type=click.Path(path_type=Path))


@click.group(cls=SubcommandGroup, epilog=_EPILOG)
def command() -> None:
    """Look at data sets: what is in them, which anchors fit them.

    DATA is a folder (VOC tree, YOLO tree, COCO JSON files), a COCO .json or a YOLO data.yaml: which, is found
    by looking.
    """


def _split(help: str) -> Any:
    return click.option("--split", help=help)


@command.command(cls=options.Command, epilog="\b\nExample:\n  detseg data info VOC2012/ --split train --json")
@_DATA
@_split("Only this part of the data set (train, val, ...).  [default: everything]")
@options.json_output()
def info(data: Path, split: str | None, as_json: bool) -> None:
    """What is in a data set: pictures, objects of each class, sizes, and what is wrong with it."""
    from detseg import annotations
    from detseg.annotations.summary import summarise

    summary = summarise(annotations.load(data, split))
    parts = annotations.splits(data)
    if as_json:
        about = {"data": str(data), "split": split, "splits": list(parts)}
        click.echo(json.dumps({**about, **summary.to_json()}, indent=2))
    else:
        _show(data, split, parts, summary)


def _show(data: Path, split: str | None, parts: tuple[str, ...], summary: Summary) -> None:
    from .tables import printable, table

    part = f", split {split}" if split else f", splits {', '.join(parts)}" if parts else ""
    click.echo(f"{printable(data)}: {summary.format.upper()}{printable(part)}")
    ignored = f", {summary.ignored} ignored" if summary.ignored else ""
    empty = summary.images_without_objects
    click.echo(f"{summary.images} pictures ({empty} without objects), {summary.objects} objects{ignored}")
    sizes = ", ".join(f"{w}x{h} ({n})" for h, w, n in summary.image_sizes)
    more = ", ..." if summary.distinct_image_sizes > len(summary.image_sizes) else ""
    click.echo(
        f"pictures: width x height (how many) {sizes}{more}; sides {summary.shortest_side} to {summary.longest_side}"
    )
    boxes = ", ".join(f"{count} {name}" for name, count in summary.box_sizes.items())
    click.echo(f"objects: {boxes} (limits of area 32x32 and 96x96)")
    rows = [(c.id, c.name, c.objects, c.images, c.ignored) for c in summary.classes]
    click.echo("\n" + table(["id", "class", "objects", "pictures", "ignored"], rows, right=(0, 2, 3, 4)))
    click.echo()
    for fault in summary.faults:
        count = f"{fault.severity} {fault.kind}: {fault.count}"
        click.echo(f"{count}, the first: {printable(fault.first)}")
    if not summary.faults:
        click.echo("no faults")


@command.command(cls=options.Command, epilog="\b\nExample:\n  detseg data anchors VOC2012/ -k 9 --imgsz 416")
@_DATA
@click.option("-k", "--count", "k", type=click.IntRange(1, 100), default=9, show_default=True, help="How many anchors.")
@options.imgsz("Size of the network's frame: 320, or 320x416 (height x width).  [default: 320]")
@click.option(
    "--fit",
    type=click.Choice(["letterbox", "stretch"]),
    default="letterbox",
    show_default=True,
    help="How pictures are laid into the frame.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Start of the search.")
@_split("Part of the data set.  [default: train, or everything where there is no train]")
@options.json_output()
def anchors(
    data: Path,
    k: int,
    imgsz: tuple[int, int] | None,
    fit: Literal["letterbox", "stretch"],
    seed: int,
    split: str | None,
    as_json: bool,
) -> None:
    """The anchor sizes that fit a data set best: k-means with IoU as its measure (YOLO9000, section 2)."""
    from detseg.annotations.anchors import kmeans_anchors, sizes_in_frame
    from detseg.errors import DataError

    frame_hw = imgsz or (320, 320)
    truth, part = _training_part(data, split)
    sizes = sizes_in_frame(truth, frame_hw, fit)
    if len(sizes) < k:
        raise DataError(f"{data}: {k} anchors need at least {k} objects, there are {len(sizes)}; ask for fewer: -k")
    found = kmeans_anchors(sizes, k, seed)
    wh = [[round(w, 2), round(h, 2)] for w, h in found.wh.tolist()]
    if as_json:
        about = {
            "data": str(data),
            "split": part,
            "boxes": len(sizes),
            "frame_hw": frame_hw,
            "fit": fit,
            "seed": seed,
        }
        fits = {"mean_iou": found.mean_iou, "best_possible_recall": found.best_possible_recall}
        click.echo(json.dumps({**about, "anchors_wh": wh, **fits}, indent=2))
        return
    from .tables import table

    where = f"split {part}" if part else "all splits"
    click.echo(f"{k} anchors for {len(sizes)} objects ({where}), frame {frame_hw[0]}x{frame_hw[1]}, {fit}\n")
    click.echo(table(["width", "height"], [(f"{w:.1f}", f"{h:.1f}") for w, h in wh], right=(0, 1)))
    click.echo(f"\nmean IoU with the best anchor: {found.mean_iou:.4f}")
    click.echo(f"best possible recall (best anchor less than 4 times off): {found.best_possible_recall:.4f}")


def _training_part(data: Path, split: str | None) -> tuple[AnnotationSet, str | None]:
    """The truth to fit anchors to, and the name of its split; None is everything."""
    from detseg import annotations

    if split is None:
        split = next((name for name in annotations.splits(data) if name in ("train", "training")), None)
    return annotations.load(data, split), split


@command.command(cls=options.Command, epilog="\b\nExample:\n  detseg data sample shapes/ --format yolo --images 100")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--format",
    type=click.Choice(["coco", "voc", "yolo"]),
    default="coco",
    show_default=True,
    help="How the truth is written.",
)
@click.option("--images", type=click.IntRange(2), default=40, show_default=True, help="How many pictures.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Other pictures.")
def sample(out: Path, format: Literal["coco", "voc", "yolo"], images: int, seed: int) -> None:
    """Write a small data set of drawn shapes to OUT, with a train and a val part."""
    from detseg.annotations.sample import write_sample

    from .tables import printable

    folder = write_sample(out, format=format, images=images, seed=seed)
    click.echo(f"{images} pictures of circles, squares and triangles in {printable(folder)}", err=True)
    click.echo(printable(folder))
