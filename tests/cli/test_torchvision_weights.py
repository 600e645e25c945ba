"""`detseg weights import` and `pull` with torchvision's detectors: files that its models wrote, and what is none."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import detection, resnet18
from torchvision.models.detection import retinanet_resnet50_fpn

from detseg.backbones import pretrained
from detseg.checkpoints import read_card, torchvision_files
from detseg.checkpoints.torch_files import described
from detseg.checkpoints.torchvision_classes import coco_categories
from detseg.checkpoints.torchvision_files import BUILDERS, published
from detseg.cli.main import main
from detseg.downloads import transfer
from detseg.runtimes import open_runtime
from tests.local_server import serve

FRAMES = {
    "ssd300_vgg16": ((300, 300), "stretch"),
    "ssdlite320_mobilenet_v3_large": ((320, 320), "stretch"),
    "fasterrcnn_mobilenet_v3_large_320_fpn": ((320, 640), "shorter"),
}
DETECTORS = [name for name in BUILDERS if hasattr(detection, name)]
LIGHT = ("ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn")


def made(builder: str, classes: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return getattr(detection, builder)(weights=None, weights_backbone=None, num_classes=1 + classes).eval()


@pytest.fixture(scope="module")
def ssdlite() -> dict[str, torch.Tensor]:
    return made("ssdlite320_mobilenet_v3_large", 3).state_dict()


@pytest.fixture
def names(tmp_path: Path) -> Path:
    (tmp_path / "my.names").write_text("cat\ndog\nnewt\n")
    return tmp_path / "my.names"


def run(*words: object) -> int:
    return main(["weights", "import", *map(str, words)])


@pytest.mark.parametrize(
    "builder", [pytest.param(name, marks=() if name in LIGHT else pytest.mark.slow) for name in DETECTORS]
)
def test_every_detector_is_known_by_its_tensors_and_finds_what_torchvision_finds(builder, tmp_path, names, capsys):
    theirs = made(builder, 3)
    file = tmp_path / ("a_320_net.pth" if "_320_" in builder else "net.pth")
    torch.save(theirs.state_dict(), file)
    assert run(file, "--names", names, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    card = read_card(file.with_suffix(".safetensors"))
    assert report["torchvision"] == builder
    assert report["parameters"] <= sum(p.numel() for p in theirs.parameters())
    assert card.categories.names == ("cat", "dog", "newt")
    assert (card.preprocess.frame_hw, card.preprocess.fit) == FRAMES.get(builder, ((800, 1333), "shorter"))
    assert card.preprocess.mean == pytest.approx([255 * v for v in theirs.transform.image_mean], abs=0.01)
    assert card.preprocess.std == pytest.approx([255 * v for v in theirs.transform.image_std], abs=0.01)
    runtime = open_runtime(file.with_suffix(".safetensors"), device="cpu")
    side = card.preprocess.frame_hw[0] if card.preprocess.fit == "stretch" else 256
    given = runtime.predict(np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8))
    assert given.scores.shape[2] == 3
    assert np.isfinite(given.scores).all()


def test_coco_is_taken_where_ninety_classes_fit_and_unused_ids_are_left_out(tmp_path, capsys):
    theirs = made("fasterrcnn_mobilenet_v3_large_fpn", 90)
    torch.save(theirs.state_dict(), tmp_path / "coco.pth")
    assert run(tmp_path / "coco.pth") == 0
    told = capsys.readouterr().err
    assert "taken for fasterrcnn_mobilenet_v3_large_fpn; fasterrcnn_mobilenet_v3_large_320_fpn has the same" in told
    assert "taken for COCO's" in told
    categories = read_card(tmp_path / "coco.safetensors").categories
    assert categories == coco_categories()
    # COCO's own numbers: 12 (street sign) and nine more were never used
    assert (len(categories), categories.ids[11], categories.names[11], categories.ids[79]) == (80, 13, "stop sign", 90)
    rows = open_runtime(tmp_path / "coco.safetensors", device="cpu")._network.model.predictor.logits.weight
    kept = theirs.roi_heads.box_predictor.cls_score.weight[[0, *categories.ids]]
    assert torch.equal(rows, kept)
    (tmp_path / "coco.names").write_text("\n".join(categories.names))
    capsys.readouterr()
    assert run(tmp_path / "coco.pth", "--names", tmp_path / "coco.names") == 4
    assert "has 90 classes, 80 names are given; left out, they are COCO's" in capsys.readouterr().err
    assert run(tmp_path / "coco.pth", "--model", "fasterrcnn_mobilenet_v3_large_320_fpn") == 0
    assert read_card(tmp_path / "coco.safetensors").preprocess.frame_hw == (320, 640)


def test_what_torchvisions_script_and_several_gpus_write_is_read(ssdlite, tmp_path, names):
    wrapped = {
        "model": {f"module.{name}": tensor.half() for name, tensor in ssdlite.items()},
        "optimizer": {"state": {}},
        "args": argparse.Namespace(lr=0.1, data_path="coco"),
        "epoch": 3,
    }
    torch.save(wrapped, tmp_path / "model_3.pth")
    (tmp_path / "my.names").write_text("__background__\ncat\ndog\nnewt\n")
    assert run(tmp_path / "model_3.pth", "--names", names, "-o", tmp_path / "out.safetensors") == 0
    assert read_card(tmp_path / "out.safetensors").categories.ids == (1, 2, 3)


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f, s: torch.save({k: v for i, (k, v) in enumerate(s.items()) if i != 5}, f), "1 missing"),
        (lambda f, s: torch.save({**s, "more": torch.zeros(1)}, f), "1 unexpected (more)"),
        (lambda f, s: torch.save({**s, next(iter(s)): torch.zeros(1)}, f), "of another shape"),
        (lambda f, s: torch.save({**s, next(iter(s)): s[next(iter(s))] / 0}, f), "not finite"),
        (lambda f, s: torch.save({n: t for n, t in s.items() if "class" not in n}, f), "number of classes"),
        (lambda f, s: torch.save(resnet18().state_dict(), f), "classifier (fc.weight: 1,000 classes)"),
        (lambda f, s: torch.save({"a": torch.zeros(2)}, f), "1 tensors (a, ...); expected those of a detector"),
        (lambda f, s: torch.save([torch.zeros(2)], f), "holds a list"),
        (lambda f, s: torch.save({}, f), "holds nothing"),
        (lambda f, s: torch.save({"a": 3}, f), "a (int)"),
        (lambda f, s: torch.save({"a": Evil()}, f), "(print), which could only be read by running it"),
        (lambda f, s: torch.save(s, f) or f.write_bytes(f.read_bytes()[:100_000]), "cut short"),
        (lambda f, s: f.write_text("Dear reader"), "not a weight file of PyTorch"),
        (lambda f, s: f.write_bytes(b""), "cut short"),
        (lambda f, s: None, "no such"),
    ],
)  # fmt: skip
def test_what_is_no_detector_of_torchvision_gives_code_4_one_line_and_no_file(
    ssdlite, tmp_path, names, capsys, spoil, told
):
    file = tmp_path / "net.pth"
    spoil(file, ssdlite)
    assert run(file, "--names", names) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert told in err
    assert str(file) in err
    assert not file.with_suffix(".safetensors").exists()


def test_names_that_do_not_fit_are_told(ssdlite, tmp_path, names, capsys):
    torch.save(ssdlite, tmp_path / "net.pth")
    assert run(tmp_path / "net.pth") == 4
    assert "has 3 classes, which are not COCO's; name them with --names FILE" in capsys.readouterr().err
    names.write_text("cat\ncat\ncat\n")
    assert run(tmp_path / "net.pth", "--names", names) == 4
    assert "more than once" in capsys.readouterr().err
    assert run(tmp_path / "net.pth", "--names", names, "--model", "maskrcnn_resnet50_fpn") == 4
    assert "has the tensors of ssdlite320_mobilenet_v3_large, not of maskrcnn_resnet50_fpn" in capsys.readouterr().err


def test_other_detectors_of_torchvision_are_named():
    state = retinanet_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    assert described(state) == "the weights of torchvision's RetinaNet"


@pytest.mark.parametrize(
    "words", [[], ["a.cfg"], ["a", "b", "c"], ["a.pth", "--fit", "stretch"], ["a.cfg", "a.weights", "--model", "x"]]
)
def test_words_that_do_not_go_together_are_a_usage_error(words, capsys):
    assert run(*words) == 2
    assert "Error" in capsys.readouterr().err


# detseg weights pull


@pytest.fixture(scope="module")
def content() -> bytes:
    """What torchvision could publish."""
    torch.save(made("ssdlite320_mobilenet_v3_large", 90).state_dict(), file := io.BytesIO())
    return file.getvalue()


def publish(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, site: str, content: bytes) -> str:
    """The address of a file at `site`; it is all that torchvision publishes."""
    url = f"{site}/ssdlite-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    one = torchvision_files.Published("ssdlite-coco", "ssdlite320_mobilenet_v3_large", url, 3, 1.0, 21.3, None, None)
    monkeypatch.setattr(torchvision_files, "published", lambda: {one.name: one})
    monkeypatch.setattr(pretrained, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setenv("DETSEG_WEIGHTS", str(tmp_path / "pulled"))
    monkeypatch.setattr(transfer, "PAUSE_S", 0.0)
    return url


@pytest.fixture
def publisher(tmp_path, monkeypatch, content):
    """A network that holds one file, and an enum that names it; maps addresses to contents."""
    url = publish(monkeypatch, tmp_path, "https://weights.example", content)
    answers = {url: content}

    def urlopen(request, timeout):
        if request.full_url not in answers:
            raise urllib.error.URLError("Name or service not known")
        response = io.BytesIO(answers[request.full_url])
        response.headers = {"Content-Length": str(len(answers[request.full_url]))}
        return response

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    return answers


def test_pulled_weights_have_a_name_that_every_command_knows(publisher, tmp_path, capsys, monkeypatch):
    assert main(["weights", "pull", "ssdlite-coco", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == str(tmp_path / "pulled" / "ssdlite-coco.safetensors")
    publisher.clear()  # the second time no network is needed
    assert main(["weights", "pull", "ssdlite320_mobilenet_v3_large", "-o", str(tmp_path / "b.safetensors")]) == 0
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "pulled/ssdlite-coco.safetensors").read_bytes()
    monkeypatch.chdir(tmp_path)
    assert main(["weights", "info", "ssdlite-coco"]) == 0
    assert "80: person, bicycle" in capsys.readouterr().out
    assert main(["weights", "info", "ssdlite-cocoa"]) == 4
    assert "did you mean ssdlite-coco?" in capsys.readouterr().err
    assert main(["weights", "pull"]) == 0
    assert "yes" in capsys.readouterr().out


def test_a_download_that_breaks_off_goes_on_where_it_stopped(content, tmp_path, monkeypatch, capsys):
    with serve() as server:
        url = publish(monkeypatch, tmp_path, server.url, content)
        server.put(url.rpartition("/")[2], content, breaks=[len(content) // 2])
        assert main(["weights", "pull", "ssdlite-coco", "--quiet"]) == 0
    assert [wanted is None for _, wanted in server.log] == [True, False]  # the second asks for the rest
    assert (tmp_path / "cache" / url.rpartition("/")[2]).read_bytes() == content
    assert read_card(tmp_path / "pulled" / "ssdlite-coco.safetensors").categories == coco_categories()


def test_without_a_network_the_steps_by_hand_are_told(publisher, tmp_path, capsys):
    (url,) = publisher
    publisher.clear()
    assert main(["weights", "pull", "ssdlite-coco"]) == 4
    told = capsys.readouterr().err
    place = tmp_path / "cache" / url.rpartition("/")[2]
    assert f"fetch {url} on a machine that has a network and put it at {place}; then: detseg weights pull" in told
    assert main(["weights", "pull", "ssdlight-coco"]) == 4
    assert "did you mean ssdlite-coco?" in capsys.readouterr().err


def test_a_file_that_is_not_the_published_one_is_refused(publisher, capsys):
    (url,) = publisher
    publisher[url] = b"<html>Please log in</html>"
    assert main(["weights", "pull", "ssdlite-coco"]) == 4
    assert "another SHA-256" in capsys.readouterr().err


def test_all_that_torchvision_publishes_for_these_models_is_listed_with_its_hash():
    known = published()
    segmenters = [builder for builder in BUILDERS if builder not in DETECTORS]
    assert set(known) == {
        *(f"{builder}-coco" for builder in DETECTORS),
        *(f"{builder}-coco_with_voc_labels" for builder in segmenters),
    }
    assert known["lraspp_mobilenet_v3_large-coco_with_voc_labels"].miou == 57.9
    assert all(pretrained._HASH.search(one.url) for one in known.values())
    assert known["maskrcnn_resnet50_fpn-coco"].mask_map == 34.6
