"""Known Darknet weights keep their known scores when they are imported."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import pytest

from detseg.annotations import load as load_truth
from detseg.cli.main import main
from detseg.geometry.boxes import iou
from detseg.images import ImageFile
from detseg.pipeline import detect_files
from detseg.postprocess import Selection
from detseg.runtimes import open_runtime


def imported(data_dir: Path, name: str, names: str, folder: Path) -> Path:
    files = [str(data_dir / "darknet" / f"{name}.{ending}") for ending in ("cfg", "weights")]
    out = folder / f"{name}.safetensors"
    assert main(["weights", "import", *files, "--names", str(data_dir / "darknet" / names), "-o", str(out)]) == 0
    return out


@pytest.mark.data
@pytest.mark.slow
def test_yolo_fastest_on_coco_pictures(data_dir, tmp_path, capsys):
    weights = imported(data_dir, "yolo-fastest-1.1-xl", "coco.names", tmp_path)
    assert main(["export", str(weights), "--out", str(weights.with_suffix(".onnx"))]) == 0
    for kind in (".safetensors", ".onnx"):
        words = ["--conf", "0.005", "--iou", "0.45", "--out", str(tmp_path / kind[1:]), "--json", "-q"]
        capsys.readouterr()
        assert main(["eval", str(weights.with_suffix(kind)), str(data_dir / "coco-val"), *words]) == 0
        metrics = json.loads(capsys.readouterr().out)["metrics"]
        assert metrics["ap"] >= 0.160, kind
        assert metrics["ap50"] >= 0.315, kind


@pytest.mark.data
@pytest.mark.slow
def test_mobilenet_yolo_finds_the_main_object_of_voc_pictures(data_dir, tmp_path):
    """The best box covers some object of its class by half: on at least 290 of the first 300 (known: 296)."""
    runtime = open_runtime(imported(data_dir, "MobileNetV2-YOLOv3-Nano-voc", "voc.names", tmp_path), device="cpu")
    truth = load_truth(data_dir / "voc-animals", "val")
    files = [ImageFile(truth.image_path(i), PurePosixPath(str(i))) for i in range(300)]
    right = 0
    names = [name.replace(" ", "") for name in truth.categories.names]
    for i, outcome in enumerate(detect_files(files, runtime, Selection(conf=0.001))):
        found, rows = outcome.found, truth.rows(i)
        assert found is not None
        if len(found):
            best = found.scores.argmax()
            wanted = runtime.card.categories.names[found.labels[best]]
            same = [names[label] == wanted for label in truth.labels[rows]]
            overlaps = iou(found.boxes[best : best + 1], truth.boxes[rows])[0]
            right += bool((overlaps[same] >= 0.5).any())
    assert right >= 290
