"""`detseg weights import` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detseg.checkpoints import read_card
from detseg.cli.main import main
from tests import darknet_numpy as plain
from tests.darknet_cfgs import NETWORKS


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A small network: cfg, weights and names."""
    cfg = NETWORKS["yolov4-tiny"](64, thin=16)
    cfg = cfg.replace("filters = 15", "filters = 255")  # 255 // 16, were it thinned
    (tmp_path / "my net.cfg").write_text(cfg + "beta_nms=0.6\nnms_kind=greedynms\ntypo=1\n")
    (tmp_path / "net.weights").write_bytes(plain.random_file(cfg, np.random.default_rng(0)))
    (tmp_path / "a.names").write_text("\n".join(f"class {i}" for i in range(80)) + "\n\n")
    return tmp_path / "my net.cfg", tmp_path / "net.weights", tmp_path / "a.names"


def run(*words: object) -> int:
    return main(["weights", "import", *map(str, words)])


def test_the_checkpoint_lies_beside_the_weights_and_tells_where_it_comes_from(files, capsys):
    cfg, weights, names = files
    assert run(cfg, weights, "--names", names) == 0
    out, err = capsys.readouterr()
    assert "64x64, stretch" in out
    assert "38 layers" in out
    assert "typo=1: not known" in err
    card = read_card(weights.with_suffix(".safetensors"))
    assert (card.model, card.preprocess.frame_hw, card.preprocess.fit) == ("darknet", (64, 64), "stretch")
    assert (card.preprocess.mean, card.preprocess.std) == ((0, 0, 0), (255, 255, 255))
    assert card.categories.names[79] == "class 79"
    origin = card.training["imported"]
    assert (origin["cfg"], origin["darknet"], origin["pictures_seen"]) == ("my net.cfg", "0.2.5", 7)
    assert origin["nms"] == "greedynms, beta 0.6"
    assert main(["weights", "info", str(weights.with_suffix(".safetensors"))]) == 0
    told = capsys.readouterr().out.splitlines()[1:]
    assert max(len(line) for line in told if "classes" not in line) < 300


def test_another_size_fit_and_place(files, tmp_path, capsys):
    cfg, weights, _ = files
    out = tmp_path / "out.safetensors"
    assert run(cfg, weights, "--imgsz", "96x128", "--fit", "letterbox", "-o", out, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["frame_hw"], report["fit"], report["classes"]) == ([96, 128], "letterbox", 80)
    assert report["parameters"] * 4 + 20 == weights.stat().st_size
    card = read_card(out)
    assert (card.preprocess.frame_hw, card.preprocess.fill) == ((96, 128), 127)
    assert card.categories.names[:2] == ("0", "1")


def test_a_cfg_may_ask_for_letterboxes(files, capsys):
    cfg, weights, _ = files
    cfg.write_text(cfg.read_text().replace("channels=3", "channels=3\nletter_box=1"))
    assert run(cfg, weights, "--json") == 0
    assert json.loads(capsys.readouterr().out)["fit"] == "letterbox"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda c, w, n: w.write_bytes(w.read_bytes()[:-4]), "it breaks off in layer"),
        (lambda c, w, n: w.write_bytes(w.read_bytes() + b"1234"), "too long for this cfg"),
        (lambda c, w, n: w.unlink(), "no such weight file"),
        (lambda c, w, n: c.write_text("[net]\nwidth=1000000000\nheight=1\n"), "width=1000000000: must be a whole"),
        (lambda c, w, n: n.write_text("a\nb\n"), "80 classes, but there are 2 names"),
        (lambda c, w, n: n.write_text("a\n" * 80), "more than once"),
        (lambda c, w, n: n.write_bytes(b"\xff\xfe\0"), "not a list of names"),
        (lambda c, w, n: c.replace(w), "not a Darknet"),
    ],
)
def test_what_cannot_be_imported_gives_code_4_one_line_and_no_file(files, capsys, spoil, told):
    cfg, weights, names = files
    spoil(cfg, weights, names)
    cfg = cfg if cfg.exists() else weights
    assert run(cfg, weights, "--names", names) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert told in err
    assert not weights.with_suffix(".safetensors").exists()


def test_a_frame_that_does_not_fit_the_network_is_told(files, capsys):
    cfg, weights, _ = files
    assert run(cfg, weights, "--imgsz", "80") == 4
    assert "multiples of the network's largest stride" in capsys.readouterr().err


def test_sources_are_never_overwritten(files, capsys):
    cfg, weights, _ = files
    assert run(cfg, weights, "-o", cfg) == 2
    assert "would be overwritten" in capsys.readouterr().err


@pytest.mark.slow
def test_fine_tuning_takes_model_frame_and_fit_from_the_checkpoint(files, tmp_path, capsys):
    cfg, weights, _ = files
    assert run(cfg, weights) == 0
    assert main(["data", "sample", str(tmp_path / "shapes"), "--images", "10"]) == 0
    words = ["--epochs", "1", "--batch", "4", "--workers", "0", "--device", "cpu", "--multi-scale", "0", "-q"]
    checkpoint = weights.with_suffix(".safetensors")
    assert main(["train", str(tmp_path / "shapes"), "-w", str(checkpoint), "--out", str(tmp_path / "run"), *words]) == 0
    trained = tmp_path / "run" / "weights" / "best.safetensors"
    card = read_card(trained)
    assert (card.model, card.preprocess.frame_hw, card.preprocess.fit) == ("darknet", (64, 64), "stretch")
    assert len(card.categories) < 80
    assert main(["eval", str(trained), str(tmp_path / "shapes"), "--out", str(tmp_path / "eval"), "-q"]) == 0
