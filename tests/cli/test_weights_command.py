"""`detseg weights` and `detseg models`: what people and programs read of a weight file."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detseg import catalog
from detseg.annotations import Categories
from detseg.checkpoints import Card, save, zoo
from detseg.cli.main import main
from detseg.preprocess import Preprocess
from detseg.runtimes import cost


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A weight file with a telling card."""
    card = Card(
        model="yolo",
        config={"strides": [8, 16]},
        categories=Categories.from_names(["cat", "Wal\nfisch"]),
        preprocess=Preprocess((256, 320)),
        training={"metrics": {"ap50": 0.5}, "command": "detseg train x"},
    )
    save(tmp_path / "my weights.safetensors", card, {"w": torch.zeros(3)})
    return tmp_path / "my weights.safetensors"


def test_info_tells_the_card_to_people(weights, capsys):
    assert main(["weights", "info", str(weights)]) == 0
    told = {line.split()[0]: line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()[1:]}
    assert told["model"] == "yolo (detect)"
    assert told["frames"] == "256x320, letterbox"
    assert told["classes"] == "2: cat, Wal\\nfisch"
    assert told["training.metrics.ap50"] == "0.5"
    assert told["config.strides"] == "[8, 16]"


def test_info_tells_the_card_to_programs(weights, capsys):
    assert main(["weights", "info", str(weights), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["file"], told["kind"], told["bytes"]) == (
        str(weights),
        "safetensors",
        weights.stat().st_size,
    )
    assert told["card"]["categories"] == [{"id": 0, "name": "cat"}, {"id": 1, "name": "Wal\nfisch"}]


def test_what_is_no_weight_file_gives_code_4_and_one_line(weights, capsys):
    weights.write_bytes(pickle.dumps({"a": 1}))
    assert main(["weights", "info", str(weights)]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "a Python pickle" in err
    assert main(["weights", "info", str(weights.with_name("my weight.safetensors"))]) == 4
    assert "did you mean" in capsys.readouterr().err


def test_list_and_verify_agree_with_the_manifest(capsys):
    assert main(["weights", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listed] == [entry.name for entry in zoo.entries()]
    assert main(["weights", "list"]) == 0
    assert main(["weights", "verify"]) == 0
    assert main(["weights", "verify", "nothing-of-this-name"]) == 4


def test_verify_names_every_changed_file(tmp_path, monkeypatch, capsys):
    file = {"file": "a.onnx", "sha256": "0" * 64, "bytes": 1}
    listed = [
        {"name": name, "task": "detect", "summary": "", "files": {"onnx": {**file, "file": f"{name}.onnx"}}}
        for name in ("a", "b")
    ]
    (tmp_path / "manifest.json").write_text(json.dumps({"weights": listed}))
    (tmp_path / "a.onnx").write_bytes(b"x")
    monkeypatch.setattr(zoo, "folder", lambda: tmp_path)
    assert main(["weights", "verify"]) == 4
    err = capsys.readouterr().err
    assert "a.onnx: damaged or changed" in err
    assert "b.onnx: listed in manifest.json, but not there" in err


def test_a_mistyped_subcommand_gets_a_suggestion(capsys):
    assert main(["weights", "inof"]) == 2
    assert "did you mean 'info'?" in capsys.readouterr().err


def test_info_imports_neither_torch_nor_onnx(weights):
    program = (
        "import sys\n"
        "from detseg.cli.main import main\n"
        "assert main() == 0\n"
        "assert not {'torch', 'onnx', 'onnxruntime', 'safetensors'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, "weights", "info", weights], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# detseg models


def test_models_counts_what_torch_counts(capsys):
    assert main(["models", "--json"]) == 0
    listed = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert list(listed) == catalog.names()
    from detseg.detectors import yolo

    model = catalog.build("yolo", yolo.config_to_json(yolo.YOLOConfig(num_classes=80)), 80)
    assert listed["yolo"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert listed["yolo"]["gflops"] == pytest.approx(by_hand(model, listed["yolo"]["imgsz"]), rel=1e-6)


def by_hand(model: torch.nn.Module, size: int) -> float:
    """2 x multiplications of every convolution, from its shapes: 2 * out pixels * weights, in 10^9."""
    total = 0

    def note(conv, _, out):
        nonlocal total
        total += 2 * out.shape[-2] * out.shape[-1] * conv.weight.numel()

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        model.eval().detect(torch.zeros(1, 3, size, size))
    return total / 1e9


def test_models_for_people_and_on_request_measured(capsys):
    assert main(["models", "yolo", "--measure"]) == 0
    told = capsys.readouterr()
    header, _, row = told.out.splitlines()
    assert header.split() == ["model", "paper", "backbone", "size", "parameters", "GFLOPs", "ms"]
    assert row.startswith("yolo ")
    assert "ms: " in told.err  # after what progress there is
    assert "thread" in told.err
    assert main(["models", "yollo"]) == 1
    assert "did you mean yolo" in capsys.readouterr().err


def test_large_models_are_measured_less_often_and_the_machine_is_named(capsys, monkeypatch):
    """A hundred times the work: one frame, not ten."""
    asked = {}
    gflops = {"yolo": 4.0, "yolo-n": 100.0, "yolo-s": 3000.0}
    monkeypatch.setattr(cost, "count", lambda name: cost.Cost(7, gflops[name]))
    monkeypatch.setattr(cost, "milliseconds", lambda name, runs: asked.setdefault(name, runs) * 1.5)
    assert main(["models", *gflops, "--measure", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert asked == {"yolo": 10, "yolo-n": 5, "yolo-s": 1}
    assert [model["ms"] for model in listed] == [15.0, 7.5, 1.5]
    assert len({model["machine"] for model in listed}) == 1
