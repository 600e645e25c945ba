"""Weight files from a network that is simulated, from disk, and from people who mean harm."""

import hashlib
import io
import re
import urllib.error
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from detseg.backbones import pretrained, torchvision_zoo
from detseg.backbones.catalog import build_backbone
from detseg.downloads import transfer
from detseg.errors import WeightsError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch home"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "torch home" / "hub" / "checkpoints"


@pytest.fixture
def network(monkeypatch):
    """What the simulated network answers: a dictionary from address to bytes, or to an exception to raise."""
    answers = {}

    def urlopen(request, timeout):
        assert timeout > 0
        answer = answers.get(request.full_url, urllib.error.URLError("Name or service not known"))
        if isinstance(answer, Exception):
            raise answer
        response = io.BytesIO(answer) if isinstance(answer, bytes) else answer()
        response.headers = {"Content-Length": str(len(response.getvalue()))}
        return response

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    monkeypatch.setattr(transfer, "PAUSE_S", 0.0)
    return answers


class _Breaks(io.BytesIO):
    def read1(self, *_):
        if self.tell():
            raise ConnectionResetError("Connection reset by peer")
        return super().read1(100)


CONTENT = bytes(range(250)) * 4
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"
URL = f"https://weights.example/models/{NAME}"


def test_a_download_is_checked_kept_and_told_of(cache, network):
    network[URL] = CONTENT
    heard = []
    path = pretrained.fetch(URL, progress=lambda done, total: heard.append((done, total)))
    assert path == cache / NAME
    assert path.read_bytes() == CONTENT
    assert heard[-1] == (1000, 1000)
    network.clear()  # the second time no network is needed
    assert pretrained.fetch(URL) == path


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (
            urllib.error.URLError("Name or service not known"),
            "cannot be downloaded .*Name or service not known",
        ),
        (TimeoutError("timed out"), "cannot be downloaded .*timed out"),
        (urllib.error.HTTPError(URL, 404, "Not Found", {}, None), "cannot be downloaded .*Not Found"),
        (lambda: _Breaks(CONTENT), "cannot be downloaded .*connection lost after 100 bytes: Connection reset"),
        (b"<html>Please log in</html>", "another SHA-256"),
    ],
)
def test_what_cannot_be_had_is_named_with_the_place_to_put_it(cache, network, answer, cause):
    network[URL] = answer
    with pytest.raises(WeightsError, match=cause) as caught:
        pretrained.fetch(URL)
    assert str(caught.value).startswith(NAME)
    assert f"fetch {URL} on a machine that has a network and put it at {cache / NAME}" in str(caught.value)
    assert not (cache / NAME).exists()  # nothing half-done is taken for a weight file
    assert {p.name for p in cache.iterdir()} <= {f"{NAME}.part", f"{NAME}.part.json"}


def test_a_damaged_file_in_the_cache_is_not_used(cache, network):
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match=f"{re.escape(str(cache / NAME))}: damaged"):
        pretrained.fetch(URL)


def test_torchvisions_imagenet_weights_by_name(cache, network, monkeypatch):
    trained = torchvision_zoo._random_net("resnet18")
    file = io.BytesIO()
    # as published: with the classifier, without the counters of batch norm
    torch.save({k: v for k, v in trained.state_dict().items() if "num_batches" not in k}, file)
    url = f"https://weights.example/resnet18-{hashlib.sha256(file.getvalue()).hexdigest()[:8]}.pth"
    network[url] = file.getvalue()
    preset = SimpleNamespace(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    weights = {"V1": SimpleNamespace(url=url, transforms=lambda: preset)}
    monkeypatch.setattr(torchvision_zoo, "_published", lambda name: weights)
    backbone = build_backbone("resnet18", strides=(8,), weights="imagenet")
    assert backbone.mean == pytest.approx((25.5, 51, 76.5))
    assert backbone.std == pytest.approx((102, 127.5, 153))
    tensors = trained.state_dict()
    assert all(torch.equal(v, tensors[k.removeprefix("net.")]) for k, v in backbone.state_dict().items())


def test_every_published_file_carries_its_hash():
    from detseg.backbones.catalog import TORCHVISION_FAMILIES

    for name in (name for family in TORCHVISION_FAMILIES.values() for name in family):
        first = next(iter(torchvision_zoo._published(name).values()))
        assert pretrained._HASH.search(first.url), first.url


def test_inception_wants_what_its_weights_were_trained_on():
    # torchvision maps (x - imagenet mean) / imagenet std to (x - 0.5) / 0.5 inside these two networks
    assert build_backbone("googlenet").mean == (127.5, 127.5, 127.5)
    assert build_backbone("resnet18").mean == pytest.approx((123.675, 116.28, 103.53))


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_file_of_ones_own(tmp_path, ending):
    trained = torchvision_zoo._random_net("resnet18").state_dict()
    path = tmp_path / f"mine.{ending}"
    if ending == "pth":
        torch.save(trained, path)
    else:
        save_file(trained, path)
    backbone = build_backbone("resnet18", strides=(4, 8), weights=path)
    assert all(torch.equal(v, trained[k.removeprefix("net.")]) for k, v in backbone.state_dict().items())


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_its_own_state_comes_back_from_a_file(tmp_path, name):
    source = build_backbone(name)
    save_file(source.state_dict(), tmp_path / "own.safetensors")
    copy = build_backbone(name, strides=(8,), weights=tmp_path / "own.safetensors")
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in copy.state_dict().items())


def test_densenets_old_names_are_understood(tmp_path):
    tensors = torchvision_zoo._random_net("densenet121").state_dict()
    old = {re.sub(r"(denselayer\d+\.\w+?)([12])\.", r"\1.\2.", name): value for name, value in tensors.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save({k: v for k, v in old.items() if "num_batches" not in k}, tmp_path / "old.pth")
    backbone = build_backbone("densenet121", weights=tmp_path / "old.pth")
    key = "features.denseblock1.denselayer1.conv2.weight"
    assert torch.equal(backbone.state_dict()[f"net.{key}"], tensors[key])


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path):
    tensors = torchvision_zoo._random_net("resnet18").state_dict()
    del tensors["layer2.0.conv1.weight"]
    tensors["layer1.0.conv9.weight"] = torch.zeros(1)
    tensors["bn1.weight"] = torch.zeros(3)
    torch.save(tensors, tmp_path / "wrong.pth")
    with pytest.raises(WeightsError, match="does not fit") as caught:
        build_backbone("resnet18", weights=tmp_path / "wrong.pth")
    for part in (
        "wrong.pth",
        "1 missing: net.layer2.0.conv1.weight",
        "1 unexpected: net.layer1.0.conv9.weight",
        "1 of another shape: net.bn1.weight (3,) instead of (64,)",
    ):
        assert part in str(caught.value)


class _Hostile:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (self.target, "w"))


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_nothing_in_a_file_is_run(tmp_path, name, ending):
    torch.save({"weight": _Hostile(str(tmp_path / "ran"))}, tmp_path / f"bad.{ending}")
    with pytest.raises(WeightsError, match=rf"bad\.{ending}: not a weight file that can be read safely"):
        build_backbone(name, weights=tmp_path / f"bad.{ending}")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"not weights at all", CONTENT])
def test_broken_files_are_refused(tmp_path, content):
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"bad\.pth"):
        build_backbone("resnet18", weights=tmp_path / "bad.pth")


def test_other_contents_and_absent_files_are_refused(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="something else than named tensors"):
        build_backbone("resnet18", weights=tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"gone\.pth: no such file"):
        build_backbone("resnet18", weights=tmp_path / "gone.pth")
