"""What is frozen does not move by a bit, whatever training does."""

import copy

import pytest
import torch
from torch import nn

from detseg.backbones.catalog import build_backbone
from detseg.backbones.spec import BackboneError

NETWORKS = ["efficientnet_lite0", "resnet18", "mobilenet_v3_small"]


def _train(backbone, steps=3):
    backbone.train()
    optimiser = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    for _ in range(steps):
        optimiser.zero_grad()
        maps = backbone(torch.randn(2, 3, 64, 64))
        sum((x - 1).square().mean() for x in maps).backward()
        optimiser.step()
        backbone.train()


def _changed(before, backbone):
    return {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}


def _names_in(backbone, stages):
    inside = set()
    paths = {id(module): path for path, module in backbone.named_modules()}
    for stage in stages:
        for module in stage if isinstance(stage, list) else [stage]:
            inside |= {f"{paths[id(module)]}.{name}" for name in module.state_dict()}
    return inside


@pytest.mark.parametrize("name", NETWORKS)
def test_frozen_stages_stay_to_the_bit_and_all_else_learns(name):
    torch.manual_seed(0)
    backbone = build_backbone(name, freeze_stages=2)
    before = copy.deepcopy(backbone.state_dict())
    frozen = _names_in(backbone, backbone.stages()[:2])
    _train(backbone)
    assert frozen
    assert _changed(before, backbone) == set(before) - frozen


@pytest.mark.parametrize("name", NETWORKS)
def test_frozen_batch_norms_stay_to_the_bit_and_all_else_learns(name):
    torch.manual_seed(0)
    backbone = build_backbone(name, freeze_bn=True)
    before = copy.deepcopy(backbone.state_dict())
    norms = [path for path, module in backbone.named_modules() if isinstance(module, nn.BatchNorm2d)]
    frozen = {name for name in before if name.rpartition(".")[0] in norms}
    _train(backbone)
    assert frozen
    assert _changed(before, backbone) == set(before) - frozen


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_learns_while_it_rests_and_then_what_is_not_frozen(name):
    torch.manual_seed(0)
    backbone = build_backbone(name, freeze_stages=1)
    frozen = _names_in(backbone, backbone.stages()[:1])
    before = copy.deepcopy(backbone.state_dict())
    backbone.rest(True)
    backbone.train()
    assert not any(x.requires_grad for x in backbone(torch.randn(2, 3, 64, 64)))  # nothing to go backwards through
    assert not _changed(before, backbone)  # the batch norms' statistics neither
    backbone.rest(False)
    _train(backbone)
    assert _changed(before, backbone) == set(before) - frozen


def test_what_is_frozen_while_it_rests_stays_frozen():
    backbone = build_backbone("resnet18")
    backbone.rest(True)
    backbone.freeze_batch_norm()
    backbone.freeze(2)
    backbone.rest(False)
    learning = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert learning == {
        name
        for name, parameter in backbone.named_parameters()
        if parameter.ndim > 1 and name.startswith(("net.layer2.", "net.layer3.", "net.layer4."))
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_frozen_whole_never_learns(name):
    backbone = build_backbone(name)
    before = copy.deepcopy(backbone.state_dict())
    backbone.freeze("all")
    backbone.rest(True)
    backbone.rest(False)
    backbone.train()
    assert not any(x.requires_grad for x in backbone(torch.randn(2, 3, 64, 64)))
    assert not _changed(before, backbone)


def test_freezing_survives_a_parents_train_and_a_copy():
    parent = nn.Sequential(build_backbone("efficientnet_lite0", freeze_stages=1, freeze_bn=True))
    for module in (parent, copy.deepcopy(parent)):
        module.eval().train()
        assert module.training
        assert not any(m.training for m in module.modules() if isinstance(m, nn.BatchNorm2d))
        assert not any(p.requires_grad for p in module[0].stem.parameters())


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "googlenet", "densenet121", "convnext_tiny"])
def test_stages_reach_the_stride_they_promise(name):
    backbone = build_backbone(name).eval()
    x = torch.zeros(1, 3, 64, 64)
    strides = []
    with torch.no_grad():
        for stage in backbone.stages():
            for module in stage if isinstance(stage, list) else [stage]:
                x = module(x)
            strides.append(64 // x.shape[-1])
    stem = 4 if name == "convnext_tiny" else 2
    assert strides == [stem, 4, 8, 16, 32]
    everything = _names_in(backbone, backbone.stages())
    assert everything == set(backbone.state_dict())


def test_too_many_stages_are_refused():
    with pytest.raises(BackboneError, match="0 to 5 stages, not 6"):
        build_backbone("efficientnet_lite0", freeze_stages=6)
