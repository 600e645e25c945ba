"""`--tta` and `--nms` on a real ONNX model that finds colours exactly, on whichever side they are."""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg.cli.main import main

spec = spec_from_file_location("colour_model", Path(__file__).resolve().parents[1] / "colour_model.py")
colour_model = module_from_spec(spec)
spec.loader.exec_module(colour_model)


@pytest.fixture
def photo(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    colour_model.write_colour_model(tmp_path / "colours.onnx")
    image = np.full((160, 192, 3), 128, np.uint8)
    image[30:90, 20:80] = (255, 0, 0)
    image[10:110, 100:180] = (0, 255, 0)
    assert cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    return tmp_path / "a.png"


def found(photo: Path, capsys, *words: str) -> tuple[list[dict[str, object]], str]:
    code = main(["detect", str(photo), "-w", "colours.onnx", "--json", "--save", "", "--exist-ok", *words])
    told = capsys.readouterr()
    assert code == 0, told.err
    return json.loads(told.out)["objects"], told.err


@pytest.mark.parametrize("kind", ["hard", "soft", "soft-linear", "diou", "wbf"])
@pytest.mark.parametrize("merge", ["nms", "wbf"])
def test_views_of_a_model_that_sees_both_sides_alike_change_nothing(photo, capsys, kind, merge):
    plain, _ = found(photo, capsys)
    assert len(plain) == 2
    words = ["--tta", "--tta-flips", "all", "--tta-scales", "1", "--tta-merge", merge, "--nms", kind, "--conf", "0.5"]
    seen, told = found(photo, capsys, *words)
    assert "note" not in told
    if kind.startswith("soft") and merge == "nms":
        assert seen[:2] == plain  # the other views' boxes have only faded
    else:
        assert seen == plain


def test_an_exported_model_is_shown_only_its_own_size_and_that_is_said(photo, capsys):
    plain, _ = found(photo, capsys)
    seen, told = found(photo, capsys, "--tta")
    assert seen == plain
    assert "note: an exported model takes only frames of its own size" in told


def test_a_run_goes_on_only_with_the_same_views(photo, capsys):
    words = ["detect", str(photo), "-w", "colours.onnx", "--out", "out", "-q"]
    assert main([*words, "--tta"]) == 0
    assert main([*words, "--tta", "--resume"]) == 0
    assert main([*words, "--resume"]) != 0
    assert main([*words, "--tta", "--nms", "diou", "--resume"]) != 0


@pytest.mark.parametrize("scales", ["", "0", "1,big", "-1", "nan", "1e9"])
def test_scales_that_are_none_are_named(photo, capsys, scales):
    assert main(["detect", str(photo), "-w", "colours.onnx", "--tta", f"--tta-scales={scales}"]) == 2
    assert "is not a list of scales" in capsys.readouterr().err


def test_what_yolo_users_type_is_understood(photo, capsys):
    assert found(photo, capsys, "--augment")[0] == found(photo, capsys)[0]
