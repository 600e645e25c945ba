"""The weights that come with detseg keep what their card promises, on photographs they have never seen."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path, PurePosixPath

import pytest

from detseg.checkpoints import zoo
from detseg.cli.main import main
from detseg.images import ImageFile
from detseg.pipeline import detect_files
from detseg.postprocess import Selection
from detseg.runtimes import open_runtime


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    assert main(["samples", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
def test_the_astronaut_is_a_person_and_chelsea_a_cat(samples, kind):
    runtime = open_runtime(zoo.default_weights("detect", kind))
    names = runtime.card.categories.names
    files = [ImageFile(samples / f"{name}.jpg", PurePosixPath(name)) for name in ("astronaut", "chelsea")]
    best = [outcome.found.by_score() for outcome in detect_files(files, runtime, Selection())]
    assert [names[found.labels[0]] for found in best] == ["person", "cat"]
    for found in best:
        x0, y0, x1, y1 = found.boxes[0]
        height, width = found.image_hw
        assert (x1 - x0) * (y1 - y0) > 0.4 * height * width  # both fill most of their picture


@pytest.mark.data
def test_the_numbers_are_pycocotools_and_those_of_the_card(data_dir, tmp_path, capsys):
    """On 200 of the validation pictures; the card's table is over all of them."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    out = tmp_path / "eval"
    data = str(data_dir / "voc-animals")
    assert main(["eval", data, "--split", "val", "--limit", "200", "--json", "-q", "--out", str(out)]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(out / "truth.json"))
        theirs = COCOeval(truth, truth.loadRes(str(out / "predictions.json")), "bbox")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    names += ("ar_1", "ar_10", "ar_max", "ar_small", "ar_medium", "ar_large")
    assert [metrics[name] for name in names] == theirs.stats.tolist()
    ap50 = {c["name"]: c["ap50"] for c in metrics["per_class"]}
    often = ("dog", "cat", "person", "sheep", "horse", "cow")  # on all pictures 0.736 as their mean
    assert sum(ap50[name] for name in often) / len(often) > 0.65
    assert metrics["ap"] > 0.25
