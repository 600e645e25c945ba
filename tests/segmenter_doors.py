"""What every segmenter promises, whichever it is: asked of a tiny one with random weights."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from detseg import catalog
from detseg.parts.label_maps import IGNORE, LabelMaps
from detseg.segmenters.contract import Segmenter


def made(name: str, classes: int = 3, seed: int = 0, **options: Any) -> Any:
    """The model `name` of the catalog with `options` besides its own."""
    torch.manual_seed(seed)
    entry, module = catalog.entry(name), catalog.module(name)
    config = module.configure(classes, {"backbone": entry.backbone, **entry.options, **options}, None)
    stored = json.loads(json.dumps(module.config_to_json(config)))
    assert module.config_from_json(stored) == config
    return module.build(config)


def lively(model: Any, hw: tuple[int, int]) -> Any:
    """The model in evaluation mode, its batch norms fitting what they see, so that its answers differ by place."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        model.train().answer(torch.randn(2, 3, *hw, generator=torch.Generator().manual_seed(5)))
    return model.eval()


def pictures(count: int, hw: tuple[int, int]) -> Tensor:
    return torch.randn(count, 3, *hw, generator=torch.Generator().manual_seed(count))


def maps_of(count: int, hw: tuple[int, int], classes: int = 3) -> LabelMaps:
    """Random classes in blocks, some of them IGNORE."""
    random = torch.Generator().manual_seed(7)
    blocks = torch.randint(0, classes, (count, -(-hw[0] // 8), -(-hw[1] // 8)), generator=random)
    labels = blocks.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)[:, : hw[0], : hw[1]].contiguous()
    labels[:, :5] = IGNORE
    return LabelMaps(labels)


@torch.no_grad()
def expect_one_answer_a_pixel_alone_and_in_company(model: Segmenter, hw: tuple[int, int] = (65, 97)) -> None:
    """(N, K, H, W) whatever the frame; each picture's answer is its own, and pixels differ."""
    images = pictures(2, hw)
    both = lively(model, hw).segment(images)
    assert both.shape == (2, 3, *hw)
    assert both.isfinite().all()
    assert both.flatten(2).std(dim=2).amin() > 1e-3
    for i in range(2):
        torch.testing.assert_close(model.segment(images[i : i + 1])[0], both[i], atol=1e-4, rtol=1e-4)


def expect_lessons_to_reach_every_parameter(model: Segmenter, hw: tuple[int, int] = (64, 64)) -> dict[str, Tensor]:
    """Finite losses with gradients; where no pixel counts they are 0, and nothing is learnt."""
    model.train()
    losses = model.losses(pictures(2, hw), maps_of(2, hw))
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    model.zero_grad()
    nothing = model.losses(pictures(2, hw), LabelMaps(torch.full((2, *hw), IGNORE)))
    assert losses.keys() == nothing.keys()
    assert [loss.item() for loss in nothing.values()] == [0] * len(nothing)
    torch.stack(list(nothing.values())).sum().backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in model.parameters())
    return losses


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
