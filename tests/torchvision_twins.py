"""Ours and torchvision's region networks with one set of weights, random but lively, and pictures for both."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import detection

from detseg import catalog
from detseg.checkpoints.tensors import load_into
from detseg.checkpoints.torchvision_rcnn import RCNN, RCNNS, kinds_of, renamed
from detseg.detectors.contract import Detector

CLASSES = 4
SHORT, LONG = 128, 192
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
KIND_OF = {kind.model: kind for kind in RCNNS}
# fewer regions than usual, so that the twins are compared in seconds: torchvision's settings, and ours
THEIRS = {
    **{"rpn_pre_nms_top_n_train": 120, "rpn_pre_nms_top_n_test": 100, "rpn_post_nms_top_n_train": 90},
    **{"rpn_post_nms_top_n_test": 60, "rpn_batch_size_per_image": 64, "box_batch_size_per_image": 24},
}
OURS = {
    **{"rpn.train_candidates": 120, "rpn.candidates": 100, "rpn.train_kept": 90, "rpn.kept": 60, "rpn.samples": 64},
    "box.samples": 24,
}


def twins(model: str) -> tuple[Any, Any]:
    """Our `model` and torchvision's: batch norms fit what they see, scores and boxes differ."""
    torch.manual_seed(0)
    kind = KIND_OF[model]
    theirs = getattr(detection, kind.builder)(
        weights=None, weights_backbone=None, num_classes=1 + CLASSES, min_size=SHORT, max_size=LONG, **THEIRS
    )
    theirs.transform.torch_choice = lambda k: k[0]  # of one size; it would draw a number for that
    with torch.no_grad():
        _enliven(theirs)
    assert kind in kinds_of(theirs.state_dict())
    return ours_of(kind, theirs.state_dict(), **OURS), theirs


def ours_of(kind: RCNN, state: dict[str, Tensor], **options: Any) -> Detector:
    """Our model of this kind with torchvision's weights."""
    entry = catalog.entry(kind.model)
    module = catalog.module(entry.name)
    config = module.configure(CLASSES, {"backbone": entry.backbone, **entry.options, **options}, None)
    ours: Detector = module.build(config)
    load_into(ours, renamed(state, kind), kind.model)
    return ours


def _enliven(theirs: Any) -> None:
    """Random weights alone say the same of everything: here places, classes and boxes differ, by sensible amounts."""
    norms = [m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
    theirs.train()(pictures(), truths())
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    handles = [layer.register_forward_hook(_grown_to(size)) for layer, size in _answers(theirs).items()]
    theirs.eval()(pictures())
    for handle in handles:
        handle.remove()


def _answers(theirs: Any) -> dict[nn.Module, float]:
    """The layers that answer, and how much their numbers should vary."""
    heads = theirs.roi_heads
    sizes = {theirs.rpn.head.cls_logits: 3.0, theirs.rpn.head.bbox_pred: 0.3}
    sizes |= {heads.box_predictor.cls_score: 3.0, heads.box_predictor.bbox_pred: 1.0}
    if heads.has_mask():
        sizes[heads.mask_predictor.mask_fcn_logits] = 2.0
    return sizes


def _grown_to(size: float) -> Any:
    """A hook that makes the weights of a layer so large, the first time, that its numbers vary by `size`."""
    done: list[float] = []

    def grow(layer: Any, _: Any, output: Tensor) -> Tensor:
        if not done:
            done.append(size / max(float(output.std()), 1e-9))
            layer.weight.mul_(done[0])
            layer.bias.copy_(-output.mean() * done[0])  # then they lie around 0
            output = output * done[0] + layer.bias.mean()
        return output

    return grow


def pictures() -> list[Tensor]:
    """Two of different shapes, (3, h, w) in 0..1, which torchvision's resize leaves as they are."""
    random = np.random.default_rng(1)
    found = []
    for h, w in [(SHORT, LONG), (LONG, SHORT)]:
        blocks = random.random((3, h // 16, w // 16)).repeat(16, axis=1).repeat(16, axis=2)
        found.append(torch.from_numpy(np.clip(blocks + random.normal(0, 0.05, blocks.shape), 0, 1)).float())
    return found


def truths() -> list[dict[str, Tensor]]:
    """Of the two pictures: several objects in one, ellipses in their boxes, and none in the other."""
    boxes = torch.tensor([[10.0, 20, 110, 120], [12, 22, 111, 118], [130, 40, 186, 124], [70, 80, 140, 100]])
    y, x = torch.meshgrid(torch.arange(SHORT) + 0.5, torch.arange(LONG) + 0.5, indexing="ij")
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    at = torch.stack([x, y], dim=-1)
    masks = (((at[None] - centre[:, None, None]) / half[:, None, None]) ** 2).sum(dim=-1) < 1
    return [
        {"boxes": boxes, "labels": torch.tensor([1, 3, 2, 4]), "masks": masks.to(torch.uint8)},
        {
            "boxes": torch.zeros(0, 4),
            "labels": torch.zeros(0, dtype=torch.int64),
            "masks": torch.zeros(0, LONG, SHORT, dtype=torch.uint8),
        },
    ]


def framed(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """One batch of pictures normalised and padded at right and bottom, and their sizes."""
    sizes = torch.tensor([image.shape[1:] for image in images])
    height, width = (int(side) for side in sizes.amax(dim=0))
    batch = torch.zeros(len(images), 3, height, width)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = (image - MEAN[:, None, None]) / STD[:, None, None]
    return batch, sizes
