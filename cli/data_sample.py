"""`detseg data sample`: a small set of drawn shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from . import options


@click.command(cls=options.Command, epilog="\b\nExample:\n  detseg data sample shapes/ --format yolo --images 100")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--format",
    type=click.Choice(["coco", "voc", "yolo", "masks"]),
    default="coco",
    show_default=True,
    help="How the truth is written.",
)
@click.option("--images", type=click.IntRange(2), default=40, show_default=True, help="How many pictures.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Other pictures.")
def command(out: Path, format: Literal["coco", "voc", "yolo", "masks"], images: int, seed: int) -> None:
    """Write a small data set of drawn shapes to OUT, with a train and a val part."""
    from detseg.annotations.sample import write_sample

    from .tables import printable

    folder = write_sample(out, format=format, images=images, seed=seed)
    click.echo(f"{images} pictures of circles, squares and triangles in {printable(folder)}", err=True)
    click.echo(printable(folder))
