"""Weight files: bit-equal round trips; every other file is named for what it is, and nothing of it runs."""

from __future__ import annotations

import io
import os
import pickle
import random
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors
import safetensors.torch
import torch
from onnx import TensorProto, helper
from torch import nn

from detseg.annotations import Categories
from detseg.checkpoints import Card, load, load_into, read_card, save
from detseg.errors import WeightsError
from detseg.preprocess import Preprocess

CARD = Card(model="yolo", config={"a": [1]}, categories=Categories.from_names(["cat", "dög"]), preprocess=Preprocess())


def onnx_bytes(metadata: dict[str, str]) -> bytes:
    """A small model as the onnx library writes it."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 300])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 300])],
        [helper.make_tensor("w", TensorProto.FLOAT, [1, 300], np.zeros(300))],
    )
    model = helper.make_model(graph, producer_name="another")
    helper.set_model_props(model, metadata)
    return model.SerializeToString()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.safetensors"
    save(path, CARD, {"w": torch.arange(600.0).reshape(20, 30), "n": torch.tensor(3)})
    return path


# what is kept


def test_a_state_comes_back_bit_equal(tmp_path):
    base = torch.randn(6, 6)
    state = {
        "plain": torch.randn(3, 4, 5),
        "special": torch.tensor([0.0, -0.0, torch.inf, torch.nan, 1e-45]),
        "turned": base.t(),
        "shared": base[2:],
        "scalar": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "nothing": torch.zeros(0, 4),
        "parameter": nn.Parameter(torch.ones(2)),
    }
    save(tmp_path / "w.safetensors", CARD, state)
    card, loaded = load(tmp_path / "w.safetensors")
    assert card == CARD == read_card(tmp_path / "w.safetensors")
    assert loaded.keys() == state.keys()
    for name, tensor in state.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].numpy().tobytes() == tensor.detach().contiguous().numpy().tobytes(), name


def test_half_rounds_kernels_as_numpy_does_and_keeps_the_rest(tmp_path):
    state = {"kernel": torch.randn(8, 4, 3, 3), "vector": torch.randn(8), "large": torch.full((2, 2), 1e5)}
    save(tmp_path / "h.safetensors", CARD, state, half=True)
    _, loaded = load(tmp_path / "h.safetensors")
    rounded = state["kernel"].numpy().astype(np.float16).astype(np.float32)
    assert np.array_equal(loaded["kernel"].numpy(), rounded)
    assert torch.equal(loaded["vector"], state["vector"])
    assert torch.equal(loaded["large"], state["large"])  # float16 ends at 65504
    save(tmp_path / "full.safetensors", CARD, state)
    saved = (tmp_path / "full.safetensors").stat().st_size - (tmp_path / "h.safetensors").stat().st_size
    assert saved == pytest.approx(2 * state["kernel"].numel(), abs=16)  # the header is padded


def test_the_same_model_gives_the_same_bytes(tmp_path, good):
    save(tmp_path / "again.safetensors", CARD, {"n": torch.tensor(3), "w": torch.arange(600.0).reshape(20, 30)})
    assert (tmp_path / "again.safetensors").read_bytes() == good.read_bytes()


def test_other_programs_can_read_our_files(good):
    with safetensors.safe_open(good, framework="numpy") as file:
        assert Card.from_json_text(file.metadata()["detseg"]) == CARD
        assert np.array_equal(file.get_tensor("w"), np.arange(600, dtype=np.float32).reshape(20, 30))


def test_the_card_of_an_onnx_model_is_the_one_the_onnx_library_stored(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_bytes({"other": "x" * 300, "detseg": CARD.to_json_text(), "empty": ""}))
    assert read_card(path) == CARD
    assert onnx.load(path).metadata_props[1].value == CARD.to_json_text()


# what is refused

NEVER = "never unpickles"


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("ending", [".safetensors", ".onnx", ".pt"])
@pytest.mark.parametrize("disguise", ["pickle", "torch", "torch-legacy", "ultralytics"])
def test_a_pickle_in_disguise_is_named_and_never_run(tmp_path, disguise, ending):
    path, harm = tmp_path / f"weights{ending}", tmp_path / "harm"
    bomb = {"model": Payload(harm)}
    if disguise == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    elif disguise == "ultralytics":
        torch.save({**bomb, "name": "ultralytics.nn.tasks"}, path)
    else:
        torch.save(bomb, path, _use_new_zipfile_serialization=disguise == "torch")
    for read in (read_card, load):
        with pytest.raises(WeightsError, match=NEVER) as error:
            read(path)
        assert "\n" not in str(error.value)
        assert ("Ultralytics" in str(error.value)) == (disguise == "ultralytics")
    assert not harm.exists()
    if ending == ".pt" and disguise == "pickle":  # the payload is live: unpickling would have run it
        pickle.loads(path.read_bytes())
        assert harm.exists()


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "x")
    return buffer.getvalue()


def foreign_safetensors(metadata: dict[str, str] | None) -> bytes:
    return safetensors.torch.save({"w": torch.zeros(3)}, metadata)


FOREIGN = {
    "empty": (b"", "empty"),
    "text": ("weights, später".encode() * 40, "a text"),
    "json": (b'{"a": 1}', "a text"),
    "web page": (b"\n<!DOCTYPE html><html>404</html>", "web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
    "zip": (zipped("readme.txt"), "zip archive"),
    "cut zip": (zipped("data.pkl")[:40], "damaged zip"),
    "torchscript": (zipped("m/code/x.py") + b"", "zip archive"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(100), "TensorFlow Lite"),
    "noise": (random.Random(5).randbytes(3000), "no known kind"),
    "darknet": (np.array([0, 2, 5, 32013312, 0], np.int32).tobytes() + bytes(400), "no known kind"),
    "foreign safetensors": (foreign_safetensors(None), "another program"),
    "foreign metadata": (foreign_safetensors({"format": "pt"}), "another program"),
    "foreign card": (foreign_safetensors({"detseg": "hello"}), "cannot be read"),
    "foreign onnx": (onnx_bytes({"author": "x"}), "ONNX model of another program"),
    "long header": ((10**15).to_bytes(8, "little") + b'{"a": 1}', "does not fit"),
    "odd header": ((2).to_bytes(8, "little") + b"{]" + bytes(9), "header is damaged"),
    "listed header": ((11).to_bytes(8, "little") + b'{"w": [1]} ', "header is damaged"),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("ending", [".safetensors", ".onnx"])
def test_a_file_of_another_kind_is_named(tmp_path, name, ending):
    content, words = FOREIGN[name]
    path = tmp_path / f"w{ending}"
    path.write_bytes(content)
    for read in (read_card, load):
        with pytest.raises(WeightsError) as error:
            read(path)
        assert words in str(error.value)
        assert str(error.value).startswith(str(path))
        assert "\n" not in str(error.value)


def test_a_file_cut_anywhere_is_refused(tmp_path, good):
    onnx_model = onnx_bytes({"detseg": CARD.to_json_text()})
    for whole in (good.read_bytes(), onnx_model):
        for end in [*range(0, len(whole), 7), len(whole) - 1]:
            path = tmp_path / "cut"
            path.write_bytes(whole[:end])
            with pytest.raises(WeightsError):
                read_card(path)


def test_an_onnx_model_cut_within_its_graph_is_told_so(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_bytes({"detseg": CARD.to_json_text()})[:200])
    with pytest.raises(WeightsError, match=r"cut short: .* bytes announced, 200 found"):
        read_card(path)


def test_a_file_with_any_byte_changed_never_fails_in_another_way(tmp_path, good):
    draw = random.Random(1)
    for whole in (good.read_bytes(), onnx_bytes({"detseg": CARD.to_json_text()})):
        for _ in range(300):
            changed = bytearray(whole)
            changed[draw.randrange(len(whole))] = draw.randrange(256)
            path = tmp_path / "changed"
            path.write_bytes(changed)
            with suppress(WeightsError):
                load(path)


def test_more_bytes_than_announced_are_refused(good):
    good.write_bytes(good.read_bytes() + b"extra")
    with pytest.raises(WeightsError, match=r"damaged: .* bytes announced, .* found"):
        read_card(good)


def test_a_missing_file_is_answered_with_one_of_a_like_name(good):
    with pytest.raises(WeightsError, match=r"no such weight file; did you mean .*good\.safetensors"):
        read_card(good.with_name("god.safetensors"))
    with pytest.raises(WeightsError, match=r"no such weight file$"):
        read_card(good.parent / "nowhere" / "w.onnx")


def test_a_folder_is_answered_with_what_it_holds(good):
    with pytest.raises(WeightsError, match=r"a folder.*holds good\.safetensors"):
        read_card(good.parent)


def test_what_is_no_ordinary_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(WeightsError, match="not an ordinary file"):
        read_card(tmp_path / "pipe.onnx")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(good):
    good.chmod(0)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_card(good)


def test_an_exported_model_has_no_state_to_load(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_bytes({"detseg": CARD.to_json_text()}))
    with pytest.raises(WeightsError, match="exported from"):
        load(path)


def test_a_failed_save_leaves_the_old_file(good, monkeypatch):
    before = good.read_bytes()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(Exception, match="disk is full"):
        save(good, CARD, {"w": torch.zeros(9)})
    assert good.read_bytes() == before
    assert [p.name for p in good.parent.iterdir()] == [good.name]


# into a model


def test_tensors_that_do_not_fit_are_named_and_the_model_stays_as_it_was():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 6))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    del state["0.weight"]
    state["1.weight"] = torch.zeros(9, 9)
    state |= {f"extra{i}": torch.zeros(1) for i in range(5)}
    with pytest.raises(WeightsError) as error:
        load_into(model, state, "w.safetensors")
    text = str(error.value)
    assert text.startswith("w.safetensors: ")
    assert "1 missing (0.weight)" in text
    assert "5 unexpected (extra0, extra1, extra2 and 2 more)" in text
    assert "1 of another shape (1.weight (9, 9) instead of (5, 4))" in text
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_fitting_state_fills_the_model(good, tmp_path):
    source, target = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    source(torch.randn(2, 3, 4, 4))
    save(tmp_path / "bn.safetensors", CARD, source.state_dict())
    load_into(target, load(tmp_path / "bn.safetensors")[1], "bn.safetensors")
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )
