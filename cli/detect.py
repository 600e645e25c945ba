"""`detseg detect`: objects found in pictures, written in the formats that were asked for."""

from __future__ import annotations

from typing import Any

import click

from . import options, tta
from .exits import Exit

FORMATS = ("image", "coco", "yolo", "yolo-seg", "voc", "csv", "jsonl", "crops")
_EPILOG = """\b
Examples:
  detseg detect photos/
  detseg detect photos/ -o found --save image,coco --conf 0.4
  detseg detect cat.jpg dog.jpg --classes cat,dog --json
  detseg detect photos/ --tta
  detseg detect photos/ -w a.safetensors -w b.onnx --ensemble-weights 2,1
  detseg detect cells/ -w unet.safetensors --save coco --neck 1.5      objects out of a segmenter's label maps
  find . -name '*.jpg' | detseg detect -

SOURCE is a picture, a folder (with all below it), a pattern, a .txt file with one path a line, or - for
a list on standard input. Pictures that cannot be read are named in failures.csv, the others are done
(exit code 6). Spellings of YOLO programs work too: --source, --conf-thres, --img, --save-txt, conf=0.4."""


@click.command(cls=options.Command, epilog=_EPILOG)
@click.argument("sources", metavar="SOURCE...", nargs=-1)
@click.option("--source", "more_sources", multiple=True, hidden=True)
@options.several_weights("Weight file (.safetensors or .onnx).  [default: the weights that come with detseg]")
@options.conf()
@options.iou()
@click.option("--classes", multiple=True, help="Only these: names, or numbers from 0; several with commas.")
@options.max_det()
@options.agnostic_nms()
@tta.nms_kind()
@tta.options_of_views
@options.imgsz()
@options.proposals()
@options.watershed
@options.batch()
@options.device()
@options.runtime()
@options.workers()
@click.option(
    "--save",
    "formats",
    type=options.Words(FORMATS),
    default="image,csv",
    show_default=True,
    help=f"What is written: {', '.join(FORMATS)}; several with commas.",
)
@click.option("--nosave", "no_image", is_flag=True, hidden=True, help="No annotated pictures.")
@click.option("--save-txt", "yolo", is_flag=True, hidden=True, help="YOLO txt as well.")
@click.option("--save-crop", "crops", is_flag=True, hidden=True, help="Crops as well.")
@click.option("--save-conf", is_flag=True, help="Scores in the YOLO txt files as well.")
@options.run_over_pictures("detect")
def command(
    sources: tuple[str, ...],
    more_sources: tuple[str, ...],
    formats: tuple[str, ...],
    no_image: bool,
    yolo: bool,
    crops: bool,
    **given: Any,
) -> Exit:
    """Find objects in pictures and write what was found."""
    if not sources + more_sources:
        raise click.UsageError("no SOURCE given: name pictures or a folder of pictures")
    from . import detect_run

    if {"yolo", "yolo-seg"} <= set(formats):
        raise click.UsageError("yolo (boxes) and yolo-seg (outlines of masks) are the same files; choose one of them")
    also = [name for name, wanted in (("yolo", yolo and "yolo-seg" not in formats), ("crops", crops)) if wanted]
    kept = [name for name in formats if not (no_image and name == "image")]
    request = detect_run.Request(sources=sources + more_sources, formats=tuple(dict.fromkeys(kept + also)), **given)
    return detect_run.run(request)
