"""torchvision's Faster and Mask R-CNN under this project's names: the same numbers, the background's boxes left out.

`fasterrcnn_resnet50_fpn`, `_v2`, `fasterrcnn_mobilenet_v3_large_fpn`, `_320_fpn`, `maskrcnn_resnet50_fpn`, `_v2`: a
state dict of any of them, of its present form or of the files of 2019. torch is imported inside the functions, so that
the room's doors stay free of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from detseg.checkpoints.torch_files import renamed_by

if TYPE_CHECKING:
    from torch import Tensor


class RCNN(NamedTuple):
    """One of the six: torchvision's builder, the catalog's model, what sets it apart."""

    builder: str
    model: str
    mobile: bool = False
    v2: bool = False
    masks: bool = False


RCNNS = (
    RCNN("fasterrcnn_resnet50_fpn", "faster-rcnn-r50-fpn"),
    RCNN("fasterrcnn_resnet50_fpn_v2", "faster-rcnn-r50-fpn-v2", v2=True),
    RCNN("fasterrcnn_mobilenet_v3_large_fpn", "faster-rcnn-mobilenet-fpn", mobile=True),
    RCNN("fasterrcnn_mobilenet_v3_large_320_fpn", "faster-rcnn-mobilenet-fpn-320", mobile=True),
    RCNN("maskrcnn_resnet50_fpn", "mask-rcnn-r50-fpn", masks=True),
    RCNN("maskrcnn_resnet50_fpn_v2", "mask-rcnn-r50-fpn-v2", v2=True, masks=True),
)

# first eight digits of the SHA-256 of those COCO files whose batch norms torchvision runs without an epsilon
WITHOUT_EPSILON = ("258fb6c6", "bf2d0c1e")

# how names change, tried in this order; the second ones are those of 2019
_RULES: list[tuple[str, Any]] = [
    (r"backbone\.body\.(\d+)\.", r"backbone.layers.\1."),
    (r"backbone\.body\.", "backbone.net."),
    (r"backbone\.fpn\.inner_blocks\.(\d+)\.(?:0\.)?(weight|bias)$", r"neck.lateral.\1.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d+)\.(?:0\.)?(weight|bias)$", r"neck.output.\1.\2"),
    (r"rpn\.head\.conv\.(\d+)\.0\.", lambda m: f"rpn.convs.{2 * int(m[1])}."),
    (r"rpn\.head\.conv\.", "rpn.convs.0."),
    (r"rpn\.head\.cls_logits\.", "rpn.logits."),
    (r"rpn\.head\.bbox_pred\.", "rpn.deltas."),
    (r"roi_heads\.box_head\.fc6\.", "head.fcs.0."),
    (r"roi_heads\.box_head\.fc7\.", "head.fcs.2."),
    (r"roi_heads\.box_head\.(\d)\.([01])\.", r"head.convs.\1.\2."),
    (r"roi_heads\.box_head\.5\.", "head.fcs.0."),
    (r"roi_heads\.box_predictor\.cls_score\.", "predictor.logits."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", "predictor.deltas."),
    (r"roi_heads\.mask_head\.(\d)\.([01])\.", r"mask_head.convs.\1.\2."),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.", lambda m: f"mask_head.convs.{int(m[1]) - 1}.0."),
    (r"roi_heads\.mask_predictor\.conv5_mask\.", "mask_head.larger."),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.", "mask_head.logits."),
]
_NORMED_RULES: list[tuple[str, Any]] = [
    (r"backbone\.fpn\.inner_blocks\.(\d+)\.([01])\.", r"neck.lateral.\1.\2."),
    (r"backbone\.fpn\.layer_blocks\.(\d+)\.([01])\.", r"neck.output.\1.\2."),
    *_RULES,
]
_BY_CLASS = re.compile(r"(predictor\.logits|predictor\.deltas|mask_head\.logits)\.(weight|bias)$")


def kinds_of(tensors: Mapping[str, Any]) -> tuple[RCNN, ...]:
    """Which of the six a state dict can be of, by its names alone; none when it is of something else.

    Two for MobileNet: the 320 one has the same tensors and differs in how many proposals it makes.
    """
    if "rpn.head.cls_logits.weight" not in tensors or "roi_heads.box_predictor.cls_score.weight" not in tensors:
        return ()
    if any("keypoint" in name for name in tensors):
        return ()
    mobile = "backbone.body.0.0.weight" in tensors
    v2 = "rpn.head.conv.1.0.weight" in tensors
    masks = "roi_heads.mask_predictor.mask_fcn_logits.weight" in tensors
    return tuple(kind for kind in RCNNS if (kind.mobile, kind.v2, kind.masks) == (mobile, v2, masks))


def classes_of(tensors: Mapping[str, Tensor]) -> int:
    """How many classes a state dict of torchvision's has, without background."""
    return len(tensors["roi_heads.box_predictor.cls_score.bias"]) - 1


def renamed(tensors: Mapping[str, Tensor], kind: RCNN, kept: Sequence[int] | None = None) -> dict[str, Tensor]:
    """The same tensors under the names of `kind.model`; a name that no rule knows stays as it is.

    `kept`: the classes to keep, by torchvision's number (background is 0), all if None. The background's box and
    mask, which nothing teaches and nobody reads, are left out. Frozen batch norms get the count that others have.
    """
    import torch

    rules = _NORMED_RULES if kind.v2 else _RULES
    classes = list(range(1, 1 + classes_of(tensors))) if kept is None else list(kept)
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = renamed_by(rules, name)
        by_class = _BY_CLASS.match(new)
        state[new] = _of_classes(tensor, by_class[1], classes) if by_class else tensor
        if new.endswith("running_mean"):
            count = new.replace("running_mean", "num_batches_tracked")
            state.setdefault(count, torch.tensor(0))
    return state


def _of_classes(tensor: Tensor, layer: str, classes: list[int]) -> Tensor:
    if layer == "predictor.logits":
        return tensor[[0, *classes]]
    if layer == "predictor.deltas":
        return tensor.unflatten(0, (-1, 4))[classes].flatten(0, 1)
    return tensor[classes]
