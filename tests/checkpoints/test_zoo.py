"""Weights by name: what comes with detseg is whole, what is mistyped gets a suggestion."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from detseg.checkpoints import read_card, zoo
from detseg.errors import WeightsError


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest with two entries; the files of `animals` are there, that of `cells` is not."""
    place = tmp_path / "weights"
    place.mkdir()
    files = {}
    for kind in ("safetensors", "onnx"):
        content = kind.encode()
        (place / f"animals.{kind}").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        files[kind] = {"file": f"animals.{kind}", "sha256": digest, "bytes": len(content)}
    cells = {"onnx": {"file": "cells.onnx", "sha256": "0" * 64, "bytes": 1}}
    listed = [
        {"name": "animals", "task": "detect", "summary": "x", "default": True, "files": files},
        {"name": "cells", "task": "segment", "summary": "y", "files": cells},
    ]
    (place / "manifest.json").write_text(json.dumps({"format_version": 1, "weights": listed}))
    monkeypatch.setattr(zoo, "folder", lambda: place)
    monkeypatch.chdir(tmp_path)
    return place


def test_a_name_stands_for_its_faster_file_and_the_default_for_its_task(shelf):
    assert zoo.resolve("animals") == shelf / "animals.onnx"
    assert zoo.resolve("animals", kind="safetensors") == shelf / "animals.safetensors"
    assert zoo.resolve("animals.safetensors") == shelf / "animals.safetensors"
    assert zoo.default_weights() == shelf / "animals.onnx"
    assert zoo.default_weights("detect", "safetensors") == shelf / "animals.safetensors"
    assert [(entry.name, entry.default) for entry in zoo.entries()] == [("animals", True), ("cells", False)]


def test_a_path_goes_before_a_name(shelf):
    own = Path("animals.onnx")
    own.write_bytes(b"mine")
    assert zoo.resolve("animals.onnx") == own
    Path("animals").mkdir()  # a folder is no weight file, so the name stands
    assert zoo.resolve("animals") == shelf / "animals.onnx"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("animal", "did you mean animals?"),
        ("animals.onx", "did you mean animals.onnx?"),
        ("zzz", "detseg weights list"),
        ("zzz.onnx", "no such weight file"),
        ("some/zzz.onnx", "no such weight file"),
        ("cells", "listed in manifest.json, but not there"),
    ],
)
def test_what_is_not_there_is_told_with_a_suggestion(shelf, name, words):
    with pytest.raises(WeightsError) as error:
        zoo.resolve(name)
    assert words in str(error.value)
    assert name.split("/")[-1] in str(error.value)


def test_no_default_for_a_task_says_what_to_do(shelf):
    with pytest.raises(WeightsError, match="name a file with --weights"):
        zoo.default_weights("segment")


def test_a_changed_file_does_not_verify(shelf):
    animals, cells = zoo.entries()
    zoo.verify(animals)
    (shelf / "animals.onnx").write_bytes(b"onnX")
    with pytest.raises(WeightsError, match=r"animals\.onnx: damaged or changed"):
        zoo.verify(animals)
    with pytest.raises(WeightsError, match=r"cells\.onnx.*not there"):
        zoo.verify(cells)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weights": [{}]}', '{"weights": [{"files": 1}]}'])
def test_a_damaged_manifest_is_named(shelf, text):
    (shelf / "manifest.json").write_text(text)
    with pytest.raises(WeightsError, match=r"manifest\.json: damaged"):
        zoo.entries()


def test_a_file_name_of_the_manifest_never_leaves_the_folder(shelf):
    manifest = json.loads((shelf / "manifest.json").read_text())
    manifest["weights"][1]["files"]["onnx"]["file"] = "../../etc/passwd"
    (shelf / "manifest.json").write_text(json.dumps(manifest))
    assert zoo.entries()[1].files["onnx"].path == shelf / "passwd"


def test_the_weights_that_come_with_detseg_are_whole_small_and_carded():
    for entry in zoo.entries():
        zoo.verify(entry)
        for kind, file in entry.files.items():
            assert file.path.stat().st_size == file.bytes <= 12_000_000
            assert kind == file.path.suffix[1:]
            assert read_card(file.path).task == entry.task
