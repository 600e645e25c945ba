"""Oracle: torchvision's segmenters with the same random weights, on the same frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large, mobilenet_v3_small, segmentation

from detseg import catalog
from detseg.backbones.dense_maps import DilatedMobileNetV3
from detseg.checkpoints.tensors import load_into
from detseg.checkpoints.torchvision_segmenters import MAP_KINDS, classes_of, kind_of, renamed, settings_of
from detseg.parts.label_maps import IGNORE, LabelMaps

CLASSES = 6
SMALL = ("fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")
LARGE = ("fcn_resnet101", "deeplabv3_resnet101")
HW = (65, 97)


def theirs_of(builder: str, **options: Any) -> Any:
    options = {} if builder.startswith("lraspp") else {"aux_loss": True, **options}
    make = getattr(segmentation, builder)
    return make(weights=None, weights_backbone=None, num_classes=CLASSES, **options)


def ours_like(state: dict[str, Tensor]) -> Any:
    """Our model of the kind that this state dict of torchvision's is of, random."""
    kind = kind_of(state)
    assert kind is not None
    entry = catalog.entry(kind.model)
    module = catalog.module(kind.model)
    options = {"backbone": entry.backbone, **entry.options, **settings_of(state)}
    return module.build(module.configure(classes_of(state, kind), options, None))


@pytest.fixture(scope="module", params=SMALL)
def twins(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """Ours and torchvision's with one set of weights, random but lively: batch norms fit what they see."""
    torch.manual_seed(0)
    theirs = theirs_of(request.param)
    norms = [m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
    for dropout in dropouts(theirs):
        dropout.p = 0.0
    with torch.no_grad():
        theirs.train()(pictures())
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    state = theirs.state_dict()
    ours = ours_like(state)
    for dropout in dropouts(ours):
        dropout.p = 0.0
    load_into(ours, renamed(state, kind_of(state)), request.param)
    return ours, theirs


def dropouts(model: nn.Module) -> list[nn.Dropout]:
    return [m for m in model.modules() if isinstance(m, nn.Dropout)]


def pictures() -> Tensor:
    """(2, 3, *HW), with edges, as after normalisation."""
    random = np.random.default_rng(1)
    blocks = random.normal(0, 1, (2, 3, 9, 13)).repeat(8, axis=2).repeat(8, axis=3)[:, :, : HW[0], : HW[1]]
    return torch.from_numpy(blocks + random.normal(0, 0.1, blocks.shape)).float()


def truth() -> Tensor:
    """(2, *HW) classes, some of them not to count."""
    random = np.random.default_rng(2)
    labels = random.integers(0, CLASSES, (2, 9, 13)).repeat(8, axis=1).repeat(8, axis=2)[:, : HW[0], : HW[1]]
    labels[random.random(labels.shape) < 0.1] = IGNORE
    return torch.from_numpy(labels)


def their_loss(found: dict[str, Tensor]) -> Tensor:
    """As torchvision's training script has it: the answer, and half of the auxiliary head."""
    losses = [F.cross_entropy(found[name], truth(), ignore_index=255) for name in found]
    return losses[0] + 0.5 * losses[1] if len(losses) > 1 else losses[0]


def test_scores_of_every_pixel_are_torchvisions(twins):
    ours, theirs = (model.eval() for model in twins)
    with torch.no_grad():
        found, wanted = ours.segment(pictures()), theirs(pictures())["out"]
    assert float(wanted.std()) > 0.05  # not all alike
    assert len(wanted.argmax(dim=1).unique()) > 2
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_losses_and_their_gradients_are_torchvisions(twins):
    ours, theirs = (model.train() for model in twins)
    wanted = their_loss(theirs(pictures()))
    found = ours.losses(pictures(), LabelMaps(truth()))
    assert len(found) == (1 if type(theirs).__name__ == "LRASPP" else 2)
    torch.testing.assert_close(sum(found.values()), wanted, rtol=1e-4, atol=0)
    # of the heads alone: what lies before them is the same function
    named = {name: p for name, p in theirs.named_parameters() if not name.startswith("backbone.")}
    heads = renamed(named, kind_of(theirs.state_dict()))
    mine = dict(ours.named_parameters())
    expected = torch.autograd.grad(wanted, list(heads.values()))
    given = torch.autograd.grad(sum(found.values()), [mine[key] for key in heads])
    for key, a, b in zip(heads, given, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()) + 1e-7, msg=key)


def test_the_auxiliary_head_is_not_in_the_answer(twins):
    ours = twins[0].eval()
    with torch.no_grad():
        maps = ours.lessons(pictures())
        torch.testing.assert_close(maps[0], ours.answer(pictures()))
    assert len(maps) == (2 if ours.auxiliary_weight else 1)


@pytest.mark.parametrize("builder", [*SMALL, *LARGE])
@pytest.mark.parametrize("with_head", [True, False])
def test_every_tensor_finds_its_place(builder, with_head):
    """Names and shapes on both sides, without the numbers."""
    with torch.device("meta"):
        state = theirs_of(builder, aux_loss=with_head).state_dict()
        kind = kind_of(state)
        assert kind is not None
        assert kind.builder == builder
        ours = ours_like(state)
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert {name: tensor.shape for name, tensor in renamed(state, kind).items()} == shapes
    assert catalog.entry(kind.model).backbone == ours.config.backbone


def test_the_kinds_are_those_of_the_catalog():
    assert {kind.builder for kind in MAP_KINDS} == {*SMALL, *LARGE}
    assert all(catalog.entry(kind.model).task == "segment" for kind in MAP_KINDS)


def test_other_networks_are_not_taken_for_one():
    for builder in (mobilenet_v3_small, segmentation.fcn_resnet50):
        with torch.device("meta"):
            state = builder(
                weights=None, **({"weights_backbone": None} if "fcn" in builder.__name__ else {})
            ).state_dict()
        backbone_alone = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
        assert kind_of(backbone_alone) is None
    assert kind_of({"classifier.0.weight": torch.zeros(1)}) is None


@pytest.mark.parametrize("make", [mobilenet_v3_large, mobilenet_v3_small])
@pytest.mark.parametrize("reduced", [False, True])
def test_the_dilated_mobilenet_is_torchvisions(make, reduced):
    """Every map that it can give, also with the reduced tail that no published segmenter has."""
    torch.manual_seed(0)
    theirs = make(weights=None, dilated=True, reduced_tail=reduced).eval()
    ours = DilatedMobileNetV3(make.__name__, (2, 4, 8, 16, 32), reduced_tail=reduced).eval()
    ours.layers.load_state_dict(theirs.features.state_dict())
    strided = [i for i, block in enumerate(theirs.features) if getattr(block, "_is_cn", False)]
    at = [0, *strided[:3], len(theirs.features) - 1]
    if make is mobilenet_v3_large:
        assert at == [0, 2, 4, 7, 16]
    x, wanted = pictures(), []
    with torch.no_grad():
        for index, layer in enumerate(theirs.features):
            x = layer(x)
            if index in at:
                wanted.append(x)
        found = ours(pictures())
    assert [(s.channels, s.stride) for s in ours.features] == [
        (w.shape[1], stride) for w, stride in zip(wanted, (2, 4, 8, 16, 16), strict=True)
    ]
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)
    for stage, end in enumerate(strided, start=1):  # the next one begins where a block strides
        ours.freeze(stage)
        assert [any(p.requires_grad for p in layer.parameters()) for layer in ours.layers] == [
            i >= end for i in range(len(ours.layers))
        ]
