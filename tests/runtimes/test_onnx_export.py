"""ONNX: torch and ONNX Runtime give the same numbers, in files that are kept only if they do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.numpy import load_file

from detseg import catalog
from detseg.annotations import Categories
from detseg.checkpoints import Card, read_card, save
from detseg.detectors import yolo
from detseg.detectors.contract import Detector
from detseg.errors import DetsegError, ExportError, WeightsError
from detseg.preprocess import Preprocess
from detseg.results import RawDetections
from detseg.runtimes import export, open_runtime
from detseg.runtimes.export import difference, export_onnx
from detseg.runtimes.onnx_runtime import OnnxRuntime


def frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), np.uint8)


def test_full_precision_answers_like_torch_for_any_batch(tiny, tmp_path):
    source, out = tiny(), tmp_path / "made" / "tiny.onnx"
    report = export_onnx(source, out, half=False)
    torch_side, onnx_side = open_runtime(source, device="cpu"), open_runtime(out)
    for count in (1, 2, 5):
        wanted, given = torch_side.predict(frames(count)), onnx_side.predict(frames(count))
        np.testing.assert_allclose(given.boxes, wanted.boxes, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(given.scores, wanted.scores, atol=1e-4)
    assert onnx_side.name == "onnx"
    assert onnx_side.card == torch_side.card == read_card(out)
    assert report.bytes == out.stat().st_size
    assert report.graph.box_px < 1e-4
    assert report.rounding.box_px < 1e-4
    assert [p.name for p in out.parent.iterdir()] == ["tiny.onnx"]
    onnx.checker.check_model(onnx.load(out), full_check=True)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the default detector, weights random, and its export in half precision: yolo.*"""
    place = tmp_path_factory.mktemp("yolo")
    torch.manual_seed(0)
    config = yolo.config_to_json(yolo.YOLOConfig(num_classes=3))
    card = Card(
        model="yolo",
        config=config,
        categories=Categories((4, 2, 9), ("p", "q", "r")),
        preprocess=Preprocess((96, 128)),
        training={"seed": 5},
    )
    save(place / "yolo.safetensors", card, catalog.build("yolo", config, 3).state_dict())
    export_onnx(place / "yolo.safetensors", place / "yolo.onnx")
    return place


def test_the_real_detector_survives_export_in_half_the_bytes(real):
    torch_side, onnx_side = (open_runtime(real / f"yolo.{e}", device="cpu") for e in ("safetensors", "onnx"))
    assert onnx_side.card == torch_side.card
    given, wanted = (side.predict(frames(3, 96, 128)) for side in (onnx_side, torch_side))
    assert given.boxes.shape == (3, 3 * (12 * 16 + 6 * 8 + 3 * 4), 4)
    apart = difference(given, wanted)
    assert apart.box_px < 0.5
    assert apart.score < 0.01
    parameters = sum(t.nbytes for t in load_file(real / "yolo.safetensors").values())
    assert (real / "yolo.onnx").stat().st_size < 0.55 * parameters


def test_half_weights_cost_nothing_once_loaded(real, tmp_path):
    """ONNX Runtime computes every Cast of a weight when it loads: none is left in the graph that runs."""
    stored = onnx.load(real / "yolo.onnx")
    halves = {t.name for t in stored.graph.initializer if t.data_type == TensorProto.FLOAT16}
    assert len(halves) > 50
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(real / "yolo.onnx", options, providers=["CPUExecutionProvider"])
    run = onnx.load(tmp_path / "optimised.onnx")
    assert not [n for n in run.graph.node if n.op_type == "Cast" and set(n.input) & halves]
    assert not [t for t in run.graph.initializer if t.data_type == TensorProto.FLOAT16]


def test_an_exported_file_tells_nothing_of_the_machine_that_made_it(real):
    content = (real / "yolo.onnx").read_bytes()
    for trace in (b"site-packages", str(Path(export.__file__).parent).encode(), b"stack_trace", b".py"):
        assert trace not in content


def test_an_exported_model_runs_without_torch(real):
    program = (
        "import sys, numpy as np, pathlib\n"
        "from detseg.runtimes import open_runtime\n"
        "r = open_runtime(pathlib.Path(sys.argv[1]), threads=1)\n"
        "print(r.predict(np.zeros((2, 96, 128, 3), np.uint8)).boxes.shape)\n"
        "print([m for m in ('torch', 'torchvision', 'onnx', 'sklearn', 'matplotlib') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, real / "yolo.onnx"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["(2, 756, 4)", "[]"]
    assert done.stderr == ""


def test_another_frame_size_is_noted_in_the_card(tiny, tmp_path):
    report = export_onnx(tiny(), tmp_path / "t.onnx", frame_hw=(32, 80))
    assert report.frame_hw == read_card(report.path).preprocess.frame_hw == (32, 80)
    assert open_runtime(report.path).predict(frames(1, 32, 80)).boxes.shape == (1, 16 * 40, 4)
    with pytest.raises(WeightsError, match="exported for frames of 32x80 pixels, given 48x64"):
        open_runtime(report.path).predict(frames(1))


@pytest.mark.parametrize(("quirk", "words"), [("differs", "differs from its source"), ("decides", "as ONNX")])
def test_a_model_that_does_not_survive_export_is_not_kept(tiny, tmp_path, quirk, words):
    out = tmp_path / "out" / "t.onnx"
    out.parent.mkdir()
    out.write_bytes(b"the old one")
    with pytest.raises(ExportError, match=words) as error:
        export_onnx(tiny(quirk), out)
    assert "\n" not in str(error.value)
    assert out.read_bytes() == b"the old one"
    assert [p.name for p in out.parent.iterdir()] == ["t.onnx"]


def test_without_the_onnx_package_the_remedy_is_told(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(DetsegError, match=r'onnx and onnxscript; install with: pip install "detseg\[export\]"'):
        export_onnx(tiny(), tmp_path / "t.onnx")


def test_frames_of_any_shape_become_letterboxed_ones_of_one_size(tiny, tmp_path):
    report = export_onnx(tiny(preprocess=Preprocess((40, 66), "shorter")), tmp_path / "tiny.onnx")
    card = open_runtime(report.path).card
    assert (card.preprocess.fit, card.preprocess.frame_hw) == ("letterbox", (64, 96))


def test_a_model_that_chooses_boxes_inside_is_refused(tiny, tmp_path, monkeypatch):
    source = tiny()
    monkeypatch.setattr(Detector, "takes_sizes", True)
    with pytest.raises(DetsegError, match=r"use the \.safetensors weights"):
        export_onnx(source, tmp_path / "tiny.onnx")
    assert not (tmp_path / "tiny.onnx").exists()


def test_an_exported_model_cannot_be_exported(real, tmp_path):
    with pytest.raises(WeightsError, match="exported"):
        export_onnx(real / "yolo.onnx", tmp_path / "t.onnx")


def test_difference_by_hand():
    boxes = np.array([[[0, 0, 50, 50], [0, 0, 400, 10]]], np.float32)
    scores = np.array([[[0.5], [0.25]]], np.float32)
    moved = boxes + np.array([[[0.5], [1.0]]], np.float32)  # 1 px of a 400 px box counts as 0.25
    apart = difference(RawDetections(moved, scores + np.float32(0.125)), RawDetections(boxes, scores))
    assert (apart.box_px, apart.score) == (0.5, 0.125)
    assert difference(RawDetections(boxes * np.nan, scores), RawDetections(boxes, scores)).box_px == np.inf
    assert difference(RawDetections(boxes[:, :1], scores), RawDetections(boxes, scores)).score == np.inf


# models that only look like ours


def model_of(card: Card, *, input_name="frames", element=TensorProto.UINT8, shape=("n", 96, 128, 3), last=3) -> bytes:
    """A minimal ONNX model with a card, right in everything that is not changed."""
    outputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["n", "a", 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", "a", last]),
    ]
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["bs"], ["boxes"]),
            helper.make_node("ConstantOfShape", ["ss"], ["scores"]),
        ],
        "g",
        [helper.make_tensor_value_info(input_name, element, list(shape))],
        outputs,
        [
            helper.make_tensor("bs", TensorProto.INT64, [3], [1, 2, 4]),
            helper.make_tensor("ss", TensorProto.INT64, [3], [1, 2, last]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, {"detseg": card.to_json_text()})
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"input_name": "images"}, False),
        ({"element": TensorProto.FLOAT}, False),
        ({"shape": ("n", 96, 96, 3)}, False),
        ({"shape": ("n", 3, 96, 128)}, False),
        ({"last": 80}, False),
    ],
)
def test_a_model_must_be_what_its_card_says(real, tmp_path, changes, fits):
    path = tmp_path / "m.onnx"
    path.write_bytes(model_of(read_card(real / "yolo.onnx"), **changes))
    if fits:
        assert open_runtime(path).card.model == "yolo"
    else:
        with pytest.raises(WeightsError, match=r"m\.onnx: its inputs and outputs"):
            open_runtime(path)


def test_a_damaged_graph_is_told_in_one_line(real, tmp_path, capfd):
    model = onnx.load(real / "yolo.onnx")
    model.graph.node[-1].op_type = "Magic"
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    with pytest.raises(WeightsError, match=r"m\.onnx: ONNX Runtime cannot load it: [^\n]+$"):
        open_runtime(path)
    assert capfd.readouterr() == ("", "")


def test_a_gpu_that_onnx_runtime_lacks_is_told(real):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(DetsegError, match="cannot use the device 'cuda:0'"):
        OnnxRuntime(real / "yolo.onnx", device="cuda:0")
    with pytest.raises(WeightsError, match="cannot be run by 'torch'"):
        open_runtime(real / "yolo.onnx", runtime="torch")


def test_the_card_inside_is_plain_json(real):
    assert json.loads(onnx.load(real / "yolo.onnx").metadata_props[0].value)["training"] == {"seed": 5}
