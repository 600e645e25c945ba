"""`detseg segment`: a class for every pixel of pictures, written in the formats that were asked for."""

from __future__ import annotations

from typing import Any

import click

from . import options, tta
from .exits import Exit

FORMATS = ("image", "mask", "index", "csv", "jsonl", "coco")
_EPILOG = """\b
Examples:
  detseg segment photos/
  detseg segment photos/ -w runs/train/exp/weights/best.safetensors
  detseg segment photos/ -w street.onnx -o found --save mask,csv
  detseg segment aerial.tif -w fields.safetensors --tile 768
  detseg segment photos/ -w a.safetensors -w b.safetensors --tta
  find . -name '*.jpg' | detseg segment - -w street.onnx

SOURCE is a picture, a folder (with all below it), a pattern, a .txt file with one path a line, or - for
a list on standard input. Pictures that cannot be read are named in failures.csv, the others are done
(exit code 6).

image: the picture with its classes drawn over it; mask: a palette PNG, whose values classes.txt names;
index: the same values as a grey PNG; csv, jsonl: the area of each class; coco: run lengths of each class."""


@click.command(cls=options.Command, epilog=_EPILOG)
@click.argument("sources", metavar="SOURCE...", nargs=-1)
@click.option("--source", "more_sources", multiple=True, hidden=True)
@options.several_weights(
    "Weight file of a segmenter (.safetensors or .onnx).  [default: the weights that come with detseg]"
)
@tta.options_of_map_views
@options.imgsz()
@click.option(
    "--tile",
    type=options.ImageSize(),
    help="Keep pictures as large as they are and cut them into tiles of this size. 768 answers as one piece would; "
    "for networks that look far (deeplab) take 1152.",
)
@click.option(
    "--overlap",
    type=click.IntRange(0),
    help="Pixels that tiles share at least, in which they blend; a multiple of 32. Less is quicker and shows seams.  "
    "[default: half a tile; x>=0]",
)
@options.batch()
@options.device()
@options.runtime()
@options.workers()
@click.option(
    "--save",
    "formats",
    type=options.Words(FORMATS),
    default="image,mask,csv",
    show_default=True,
    help=f"What is written: {', '.join(FORMATS)}; several with commas.",
)
@options.run_over_pictures("segment")
def command(sources: tuple[str, ...], more_sources: tuple[str, ...], **given: Any) -> Exit:
    """Give every pixel of pictures a class, and write what was found."""
    if not sources + more_sources:
        raise click.UsageError("no SOURCE given: name pictures or a folder of pictures")
    from . import segment_run

    return segment_run.run(segment_run.Request(sources=sources + more_sources, **given))
