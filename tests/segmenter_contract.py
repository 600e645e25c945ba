"""What every segmenter promises, asked of one small enough for a test: three classes, random weights."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from detseg import catalog
from detseg.errors import DetsegError
from detseg.parts.label_maps import IGNORE, LabelMaps
from detseg.segmenters.contract import Segmenter

CLASSES = 3


def small(name: str, **options: Any) -> Segmenter:
    """The catalog's `name` with these options over its own, scores no longer zero."""
    torch.manual_seed(0)
    entry, module = catalog.entry(name), catalog.module(name)
    config = module.configure(CLASSES, {"backbone": entry.backbone, **entry.options, **options}, None)
    model: Segmenter = module.build(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any() and parameter.ndim > 1:
                parameter.normal_(std=0.1)
    return model


def expect_the_contract(model: Segmenter, name: str) -> None:
    """Each of the promises, one by one."""
    expect_finite_losses_where_nothing_counts(model)
    expect_gradients_everywhere(model)
    expect_any_size_and_batch(model)
    expect_one_picture_can_be_learnt(model)
    expect_the_config_survives_json(model, name)
    expect_unknown_options_are_named(name)
    expect_what_is_frozen_to_stay(model)


def expect_finite_losses_where_nothing_counts(model: Segmenter) -> None:
    nothing = LabelMaps(torch.full((2, 64, 64), IGNORE))
    losses = model.train().losses(torch.randn(2, 3, 64, 64), nothing)
    total = sum(losses.values())
    assert isinstance(total, torch.Tensor)
    assert total.item() == 0
    total.backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
    model.zero_grad(set_to_none=True)


def expect_gradients_everywhere(model: Segmenter) -> None:
    truth = LabelMaps(torch.randint(0, CLASSES, (2, 64, 64)))
    losses = model.train().losses(torch.randn(2, 3, 64, 64), truth)
    assert set(losses) == {"cross_entropy", *(["auxiliary"] if model.auxiliary_weight else [])}
    torch.stack(list(losses.values())).sum().backward()
    untouched = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert untouched == []
    model.zero_grad(set_to_none=True)


@torch.no_grad()
def enliven(model: Segmenter) -> None:
    """Batch norms fit what they see; with random weights and without that, numbers fade from layer to layer."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train().segment(torch.randn(2, 3, 65, 97) * torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def expect_any_size_and_batch(model: Segmenter) -> None:
    """Any height and width; and what is said of a picture does not depend on the one beside it."""
    enliven(model)
    model.eval()
    with torch.no_grad():
        for height, width in ((65, 97), (50, 33)):
            images = torch.randn(2, 3, height, width) * torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1)
            both = model.segment(images)
            assert both.shape == (2, CLASSES, height, width)
            alone = torch.cat([model.segment(images[:1]), model.segment(images[1:])])
            scale = float(both.std())
            assert scale > 1e-3
            assert (both[0] - both[1]).std() > 0.05 * scale  # the two pictures are not alike
            torch.testing.assert_close(both / scale, alone / scale, atol=1e-4, rtol=1e-4)


def expect_one_picture_can_be_learnt(model: Segmenter) -> None:
    losses = model.train().losses(torch.randn(1, 3, 64, 64), LabelMaps(torch.zeros(1, 64, 64, dtype=torch.int64)))
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())


def expect_the_config_survives_json(model: Any, name: str) -> None:
    module = catalog.module(name)
    stored = json.loads(json.dumps(module.config_to_json(model.config)))
    assert module.config_from_json(stored) == model.config
    assert set(catalog.entry(name).structure) <= set(stored)
    assert stored["loss.terms"] == "cross_entropy"


def expect_unknown_options_are_named(name: str) -> None:
    with pytest.raises(DetsegError, match=r"there is no option colour; there are: .*loss\.terms"):
        catalog.module(name).configure(CLASSES, {"colour": 3}, None)
    with pytest.raises(DetsegError, match="there is no loss nonsense"):
        catalog.module(name).configure(CLASSES, {"loss.terms": "nonsense"}, None)


def expect_what_is_frozen_to_stay(model: Any) -> None:
    backbone = model.backbone
    first = backbone.stages()[0]
    first = first if isinstance(first, list) else [first]
    backbone.freeze(1)
    backbone.freeze_batch_norm()
    model.train()
    assert not any(p.requires_grad for module in first for p in module.parameters())
    assert any(p.requires_grad for p in backbone.parameters())
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
