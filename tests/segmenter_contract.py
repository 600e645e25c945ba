"""What every segmenter promises, asked of one small enough for a test: three classes, random weights."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detseg import catalog
from detseg.errors import DetsegError
from detseg.parts.label_maps import IGNORE, LabelMaps
from detseg.segmenters.contract import Segmenter

CLASSES = 3


def made(name: str, classes: int = CLASSES, seed: int = 0, **options: Any) -> Any:
    """The model `name` of the catalog with `options` over its own; its config comes back from JSON."""
    torch.manual_seed(seed)
    entry, module = catalog.entry(name), catalog.module(name)
    config = module.configure(classes, {"backbone": entry.backbone, **entry.options, **options}, None)
    stored = json.loads(json.dumps(module.config_to_json(config)))
    assert module.config_from_json(stored) == config
    assert set(entry.structure) <= set(stored)
    return module.build(config)


def small(name: str, **options: Any) -> Any:
    """The same, scores that start at zero no longer zero."""
    model = made(name, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any() and parameter.ndim > 1:
                parameter.normal_(std=0.1)
    return model


def pictures(count: int, hw: tuple[int, int]) -> Tensor:
    """(count, 3, *hw), each of another contrast."""
    images = torch.randn(count, 3, *hw, generator=torch.Generator().manual_seed(count))
    return images * torch.linspace(1, 3, count).reshape(-1, 1, 1, 1)


def maps_of(count: int, hw: tuple[int, int], classes: int = CLASSES) -> LabelMaps:
    """Random classes in blocks, some of them IGNORE."""
    random = torch.Generator().manual_seed(7)
    blocks = torch.randint(0, classes, (count, -(-hw[0] // 8), -(-hw[1] // 8)), generator=random)
    labels = blocks.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)[:, : hw[0], : hw[1]].contiguous()
    labels[:, :5] = IGNORE
    return LabelMaps(labels)


@torch.no_grad()
def lively(model: Any, hw: tuple[int, int]) -> Any:
    """The model in evaluation mode, its batch norms fitting what they see: with random weights, and without that,
    numbers fade from layer to layer.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train().answer(pictures(2, hw))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def expect_the_contract(model: Any, name: str) -> None:
    """All of the promises but that of the trace, of a model of the catalog's `name`."""
    expect_lessons_to_reach_every_parameter(model)
    for hw in ((65, 97), (50, 33)):
        expect_one_answer_a_pixel_alone_and_in_company(model, hw)
    expect_one_picture_can_be_learnt(model)
    expect_unknown_options_are_named(name)
    expect_what_is_frozen_to_stay(model)


@torch.no_grad()
def expect_one_answer_a_pixel_alone_and_in_company(model: Segmenter, hw: tuple[int, int] = (65, 97)) -> None:
    """(N, K, H, W) whatever the frame; pixels differ, pictures differ, and what is said of one is its own.

    In double precision: through many layers of random weights the last digits of single precision grow.
    """
    images = pictures(2, hw).double()
    both = lively(model, hw).double().segment(images)
    assert both.shape == (2, CLASSES, *hw)
    assert both.isfinite().all()
    scale = float(both.std())
    assert both.flatten(2).std(dim=2).amin() > 1e-3
    assert (both[0] - both[1]).std() > 0.05 * scale
    alone = torch.cat([model.segment(images[:1]), model.segment(images[1:])])
    torch.testing.assert_close(both / scale, alone / scale, atol=1e-6, rtol=1e-6)
    model.float()


def expect_lessons_to_reach_every_parameter(model: Segmenter, hw: tuple[int, int] = (64, 64)) -> dict[str, Tensor]:
    """Finite losses with true gradients; where no pixel counts they are 0, and nothing is learnt."""
    expect_gradients_to_be_those_of_the_losses(copy.deepcopy(model))
    model.train()
    losses = model.losses(pictures(2, hw), maps_of(2, hw))
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    assert ("auxiliary" in losses) == bool(model.auxiliary_weight)
    torch.stack(list(losses.values())).sum().backward()
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    assert [name for name, p in learning if p.grad is None or not p.grad.abs().sum() > 0] == []
    model.zero_grad(set_to_none=True)
    nothing = model.losses(pictures(2, hw), LabelMaps(torch.full((2, *hw), IGNORE)))
    assert losses.keys() == nothing.keys()
    assert [loss.item() for loss in nothing.values()] == [0] * len(nothing)
    torch.stack(list(nothing.values())).sum().backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in model.parameters())
    model.zero_grad(set_to_none=True)
    return losses


def expect_gradients_to_be_those_of_the_losses(model: Segmenter, hw: tuple[int, int] = (40, 48)) -> None:
    """A small step of all weights in a random direction changes the losses as the gradient says; in double precision.

    Whatever draws in the model draws the same each time.
    """
    model.train().double()
    images, truth = pictures(2, hw).double(), maps_of(2, hw)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    random = torch.Generator().manual_seed(5)

    def direction() -> list[Tensor]:
        return [
            torch.randn(w.shape, generator=random, dtype=w.dtype) * (w.detach().std(correction=0) + 1e-3)
            for w in weights
        ]

    def go(way: list[Tensor], far: float) -> None:
        with torch.no_grad():
            for weight, change in zip(weights, way, strict=True):
                weight.add_(change, alpha=far)

    def total() -> Tensor:
        torch.manual_seed(1)
        return torch.stack(list(model.losses(images, truth).values())).sum()

    go(direction(), 0.1)  # away from where many a ReLU stands exactly at its corner
    total().backward()
    way, step = direction(), 1e-8
    foretold = sum(float((w.grad * d).sum()) for w, d in zip(weights, way, strict=True) if w.grad is not None)
    go(way, step)
    ahead = float(total().detach())
    go(way, -2 * step)
    seen = (ahead - float(total().detach())) / (2 * step)
    assert abs(foretold) > 1e-4
    assert seen == pytest.approx(foretold, rel=1e-3, abs=1e-6), (seen, foretold)


def expect_a_trace_to_answer_alike(model: Segmenter, hw: tuple[int, int] = (33, 47)) -> None:
    """The graph made from one batch answers another of another size; that is what an export is made from."""

    class Segments(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model.eval()

        def forward(self, images: Tensor) -> Tensor:
            return self.model.segment(images)

    sizes = {"images": {0: torch.export.Dim("batch", min=1, max=64)}}
    with torch.no_grad():
        graph = torch.export.export(Segments(), (pictures(2, hw),), dynamic_shapes=sizes, strict=False).module()
        torch.testing.assert_close(graph(pictures(3, hw)), model.segment(pictures(3, hw)), atol=1e-4, rtol=1e-4)


def expect_one_picture_can_be_learnt(model: Segmenter) -> None:
    losses = model.train().losses(torch.randn(1, 3, 64, 64), LabelMaps(torch.zeros(1, 64, 64, dtype=torch.int64)))
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())


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
