"""`detseg eval --report` and `--compare`, as a user meets them, on a small set that `data sample` draws."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg.annotations import load
from detseg.cli.main import main
from detseg.evaluation import results_json
from detseg.geometry.boxes import xyxy_to_xywh


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """12 pictures with boxes; good.json finds nearly all of them, bad.json fewer and less exactly."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(12):
        cv2.imwrite(str(root / "images" / f"{number}.png"), rng.integers(0, 255, (120, 160, 3)).astype(np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "width": 160, "height": 120})
        for _ in range(4):
            x, y, w, h = (*rng.integers(0, 80, 2).tolist(), *rng.integers(12, 40, 2).tolist())
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": int(rng.integers(1, 3))}
            annotations.append({**entry, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0})
    categories = [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}]
    (root / "annotations").mkdir()
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "instances_val.json").write_text(json.dumps(content))
    truth = load(root, "val")
    for name, noise, kept in (("good", 1.0, 44), ("bad", 5.0, 30)):
        chosen = rng.permutation(48)[:kept]
        boxes = xyxy_to_xywh(truth.boxes[chosen]) + rng.normal(0, noise, (kept, 4))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 4)
        rows = np.column_stack([truth.image_index[chosen], boxes, rng.random(kept), truth.labels[chosen]])
        Path(f"{name}.json").write_text(json.dumps(results_json(truth, rows)))
    return root


def test_report_diagnosis_and_curves_are_written(data, capsys):
    assert main(["eval", "--predictions", "good.json", str(data), "--report", "-o", "out"]) == 0
    said = capsys.readouterr()
    assert "best score threshold" in said.out
    assert {"report.html", "diagnosis.json", "curves.csv", "metrics.json"} <= {p.name for p in Path("out").iterdir()}
    diagnosis, metrics = (json.loads(Path("out", name).read_text()) for name in ("diagnosis.json", "metrics.json"))
    assert diagnosis["intervals"]["ap"]["value"] == pytest.approx(metrics["metrics"]["ap"])
    assert metrics["intervals"] == diagnosis["intervals"]
    curves = list(csv.DictReader(Path("out/curves.csv").read_text().splitlines()))
    assert {row["class"] for row in curves} == {"all classes", "ant", "bee"}
    best = max(float(row["f1"]) for row in curves if row["class"] == "all classes")
    assert best == pytest.approx(diagnosis["curves"][0]["best"]["f1"])
    page = Path("out/report.html").read_text("utf-8")
    assert metrics["data"]["fingerprint"] in page
    assert "good.json" in page


def test_a_comparison_says_which_is_better(data, capsys):
    assert main(["eval", "--predictions", "good.json", "--compare", "bad.json", str(data), "-o", "out"]) == 0
    said = capsys.readouterr()
    assert "These results are better than the others in AP50" in said.out
    assert "report.html" not in {p.name for p in Path("out").iterdir()}
    comparison = json.loads(Path("out/metrics.json").read_text())["comparison"]
    assert comparison["difference"]["ap50"]["low"] > 0
    assert comparison["other"] == "bad.json"
    assert main(["eval", "--predictions", "bad.json", "--compare", "good.json", str(data), "--json", "-o", "back"]) == 0
    back = json.loads(capsys.readouterr().out)["comparison"]
    assert back["difference"]["ap50"]["high"] < 0
    assert back["difference"]["ap50"]["value"] == pytest.approx(-comparison["difference"]["ap50"]["value"])
    assert (
        main(["eval", "--predictions", "bad.json", "--compare", "bad.json", str(data), "--report", "-o", "same"]) == 0
    )
    assert "cannot be told apart" in capsys.readouterr().out
    assert "cannot be told apart" in Path("same/report.html").read_text("utf-8")


def test_bad_others_are_named(data, capsys):
    Path("text.json").write_text("Dear reader")
    for other in ("missing.json", "text.json"):
        assert main(["eval", "--predictions", "good.json", "--compare", other, str(data), "-o", f"x-{other}"]) == 3
        assert other in capsys.readouterr().err
        assert not Path(f"x-{other}", "metrics.json").exists()


def test_label_maps(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    for folder in ("data/images", "data/masks", "found", "worse"):
        Path(folder).mkdir(parents=True)
    Path("data/classes.txt").write_text("sky\nroad\ntree\n")
    for number in range(8):
        there = cv2.resize(rng.integers(0, 3, (5, 6)).astype(np.uint8), (96, 80), interpolation=0)
        cv2.imwrite(f"data/images/{number}.png", rng.integers(0, 255, (80, 96, 3)).astype(np.uint8))
        for folder, shift in (("data/masks", 0), ("found", 3), ("worse", 9)):
            cv2.imwrite(f"{folder}/{number}.png", np.roll(there, shift, 1))
    assert main(["eval", "--predictions", "found", "--compare", "worse", "data", "--report", "-o", "out"]) == 0
    assert "These results are better than the others in mIoU" in capsys.readouterr().out
    assert {"report.html", "diagnosis.json"} <= {p.name for p in Path("out").iterdir()}
    assert len(json.loads(Path("out/diagnosis.json").read_text())["worst"]) == 8
    assert "difference" in Path("out/report.html").read_text("utf-8")


def test_the_plain_command_does_not_import_the_diagnosis(data):
    code = (
        "import sys; from detseg.cli.main import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "print([m for m in sys.modules if m.startswith('detseg.reports') or m in\n"
        "    ('detseg.evaluation.diagnosis', 'detseg.evaluation.bootstrap', 'detseg.cli.eval_report')])"
    )
    command = [sys.executable, "-c", code, "eval", "--predictions", "good.json", str(data), "-q", "-o", "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
