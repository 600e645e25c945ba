"""`detseg data anchors`: the anchor sizes that fit a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from . import data_arguments, options

if TYPE_CHECKING:
    from detseg.annotations import AnnotationSet


@click.command(cls=options.Command, epilog="\b\nExample:\n  detseg data anchors VOC2012/ -k 9 --imgsz 416")
@data_arguments.data()
@click.option("-k", "--count", "k", type=click.IntRange(1, 100), default=9, show_default=True, help="How many anchors.")
@options.imgsz("Size of the network's frame: 320, or 320x416 (height x width).  [default: 320]")
@click.option(
    "--fit",
    type=click.Choice(["letterbox", "stretch", "shorter"]),
    default="letterbox",
    show_default=True,
    help="How pictures are laid into the frame.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Start of the search.")
@data_arguments.split("Part of the data set.  [default: train, or everything where there is no train]")
@options.json_output()
def command(
    data: Path,
    k: int,
    imgsz: tuple[int, int] | None,
    fit: Literal["letterbox", "stretch", "shorter"],
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
