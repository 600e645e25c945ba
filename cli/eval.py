"""`detseg eval`: how good is a detector, or a file of its results, on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options, tta
from .exits import Exit

_EPILOG = """\b
Examples:
  detseg eval runs/train/exp/weights/best.safetensors cells/
  detseg eval cells/ --split test --json
  detseg eval --predictions runs/detect/exp/predictions.json cells/
  detseg eval --predictions results/ VOC2007/ --split test --voc07
  detseg eval --predictions masks/ streets/
  detseg eval cells/ --report
  detseg eval cells/ --tta --tta-flips all
  detseg eval -w a.safetensors -w b.safetensors cells/
  detseg eval --predictions new.json --compare old.json cells/

DATA is a folder (VOC tree, YOLO tree, COCO JSON files, pictures and masks), a COCO .json or a YOLO data.yaml. Without
WEIGHTS those that come with detseg are measured. Classes are matched by name. Of a segmenter's weights label maps are
measured, which are written to masks/; with --task masks or boxes the objects that they are cut into.

Results are COCO JSON (boxes, or masks as polygons or run lengths), a folder of YOLO labels (class xc yc w h score), of
VOC's texts (comp4_det_test_CLASS.txt: image score x1 y1 x2 y2) or XML pages, predictions.csv or .jsonl, the folder of a
detseg run, or a folder of label maps.

Written are metrics.json, classes.csv, and truth.json and predictions.json, on which pycocotools gives the same numbers
to the last bit; with --report also report.html, diagnosis.json and curves.csv. In metrics.json (--json) boxes, or label
maps, are under "metrics"; masks, where both sides have them, under "masks", and with --boundary under "boundary", with
the same keys. Pictures that cannot be read count as pictures on which nothing was found, and are named
(exit code 6)."""

_TASKS = ("boxes", "masks", "labels")
_YOLO_TASKS = ("train", "val", "test")  # what YOLO users mean by --task


@click.command(cls=options.Command, epilog=_EPILOG)
@click.argument("words", metavar="[WEIGHTS] DATA", nargs=-1, type=click.Path(path_type=Path))
@options.several_weights("The same as WEIGHTS.  [default: the weights that come with detseg]")
@click.option("--data", cls=options.Option, type=click.Path(path_type=Path), help="The same as DATA.")
@click.option(
    "--predictions",
    type=click.Path(path_type=Path),
    help="Measure these results instead, a file or folder of detseg or of another program.",
)
@click.option(
    "--task",
    type=click.Choice([*_TASKS, *_YOLO_TASKS]),
    metavar="[boxes|masks|labels]",
    help="What is compared.  [default: masks too where both sides have them; labels for a folder of label maps]",
)
@click.option("--split", help="Part of the data set.  [default: val, else test, else everything]")
@click.option("--voc07", is_flag=True, help="Also VOC's AP as until 2007: 11 points of recall, overlap 0.5.")
@click.option("--voc", is_flag=True, help="Also VOC's AP as since 2010: area under the curve, overlap 0.5.")
@click.option("--boundary", is_flag=True, help="Also Boundary AP: do the outlines of masks agree?")
@click.option(
    "--at",
    type=click.FloatRange(0, 1),
    help="Score from which objects count in precision, recall and F1.  [default: that of the highest F1]",
)
@options.conf(0.001)
@options.iou(None)
@options.max_det(100)
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
@options.run_folder("eval")
@click.option("--limit", type=click.IntRange(1), help="Only the first so many pictures.")
@click.option(
    "--report/--no-report",
    default=False,
    help="Also find out why, and how sure the numbers are: report.html with charts and the worst pictures.",
)
@click.option(
    "--compare",
    metavar="OTHER",
    type=click.Path(path_type=Path),
    help="Other results of any of these kinds, on the same data: is the difference more than chance?",
)
@options.json_output("Print metrics.json on stdout instead of tables.")
@options.quiet
def command(words: tuple[Path, ...], weights: tuple[Path, ...], data: Path | None, **given: Any) -> Exit:
    """Measure a model, or its written results, against a data set.

    Thresholds are set so that recall is not cut short: scores from 0.001, suppression at an overlap of 0.6
    (0.5 where boxes vote), 100 objects a picture, as detectors are usually measured on COCO.
    """
    weights, data = _sides(words, weights, data, given["predictions"])
    if given["task"] in _YOLO_TASKS:
        given["split"], given["task"] = given["split"] or given["task"], None
    from . import eval_run
    from .eval_request import Request

    return eval_run.run(Request(weights=weights, data=data, **given))


def _sides(
    words: tuple[Path, ...], weights: tuple[Path, ...], data: Path | None, predictions: Path | None
) -> tuple[tuple[Path, ...], Path]:
    """Weights and data set from words and options together."""
    left = list(words)
    if data is None and left:
        data = left.pop()
    if not weights and left:
        weights = (left.pop(),)
    if left:
        raise click.UsageError(f"'{left[0]}' is one word too many: detseg eval [WEIGHTS] DATA")
    if data is None:
        raise click.UsageError("no DATA given: detseg eval [WEIGHTS] DATA")
    if predictions is not None and weights:
        raise click.UsageError("either WEIGHTS or --predictions, not both: detseg eval --predictions FILE DATA")
    if not weights and data.suffix in (".safetensors", ".onnx"):
        raise click.UsageError(f"'{data}' is a weight file; no DATA given: detseg eval [WEIGHTS] DATA")
    return weights, data
