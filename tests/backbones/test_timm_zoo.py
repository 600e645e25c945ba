"""timm's networks through the same contract. Oracle: torchvision's ResNet-18 with the same weights."""

import sys

import pytest
import torch

from detseg.backbones import torchvision_zoo
from detseg.backbones.catalog import build_backbone
from detseg.backbones.spec import BackboneError
from detseg.errors import WeightsError


def test_same_weights_give_torchvisions_features(tmp_path):
    pytest.importorskip("timm")
    torch.save(torchvision_zoo._random_net("resnet18").state_dict(), tmp_path / "r18.pth")
    images = torch.randn(1, 3, 97, 64)
    for dilate in (None, 8):
        options = {"weights": tmp_path / "r18.pth", "dilate": dilate}
        theirs = build_backbone("timm:resnet18", **options).eval()
        ours = build_backbone("resnet18", **options).eval()
        assert theirs.features == ours.features
        with torch.no_grad():
            for mine, other in zip(ours(images), theirs(images), strict=True):
                torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        *("timm:mobilenetv1_100", "timm:seresnet18"),
        pytest.param("timm:vgg11", marks=pytest.mark.slow),
        pytest.param("timm:inception_v4", marks=pytest.mark.slow),
        pytest.param("timm:legacy_senet154", marks=pytest.mark.slow),
        pytest.param("timm:swin_tiny_patch4_window7_224", marks=pytest.mark.slow),
    ],
)
def test_contract(name):
    pytest.importorskip("timm")
    hw = (224, 224) if "swin" in name else (97, 128)
    backbone = build_backbone(name, freeze_stages=1).eval()
    for spec, x in zip(backbone.features, backbone(torch.randn(1, 3, *hw)), strict=True):
        assert x.shape[1] == spec.channels
        assert hw[0] // spec.stride - 3 <= x.shape[2] <= -(-hw[0] // spec.stride)
    frozen = [not p.requires_grad for p in backbone.parameters()]
    assert frozen == sorted(frozen, reverse=True)  # the first ones
    assert 0 < sum(frozen) < len(frozen) / 2
    assert len(backbone.stages()) == 5
    assert [s.stride for s in backbone.features] == [8, 16, 32]


def test_what_is_wrong_is_said(tmp_path):
    pytest.importorskip("timm")
    with pytest.raises(BackboneError, match="timm has no network called 'resnet1'; did you mean timm:resnet"):
        build_backbone("timm:resnet1")
    with pytest.raises(BackboneError, match=r"timm:resnet18 has features at strides 2, 4, 8, 16, 32; asked for 64"):
        build_backbone("timm:resnet18", strides=(64,))
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "few.pth")
    with pytest.raises(WeightsError, match=r"few\.pth: does not fit .* missing: .*bn1\.weight"):
        build_backbone("timm:resnet18", weights=tmp_path / "few.pth")


def test_weights_that_timm_cannot_get(monkeypatch):
    timm = pytest.importorskip("timm")
    create = timm.models.create_model

    def offline(name, **options):
        if options.get("pretrained"):
            raise OSError("We couldn't connect to the hub")
        return create(name, **options)

    monkeypatch.setattr(timm.models, "create_model", offline)
    with pytest.raises(WeightsError, match=r"timm:resnet18: its weights cannot be had .*couldn't connect.*its file"):
        build_backbone("timm:resnet18", weights="imagenet")


def test_stages_are_those_of_the_same_network_in_torchvision():
    pytest.importorskip("timm")
    sizes = [
        [sum(p.numel() for module in stage for p in module.parameters()) for stage in build_backbone(name).stages()]
        for name in ("timm:resnet18", "resnet18")
    ]
    assert sizes[0] == sizes[1]


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BackboneError, match=r"pip install detseg\[timm\]"):
        build_backbone("timm:resnet18")
