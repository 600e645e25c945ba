"""torchvision's segmenters under this project's names: the same numbers.

`fcn_resnet50`, `fcn_resnet101`, `deeplabv3_resnet50`, `deeplabv3_resnet101`, `deeplabv3_mobilenet_v3_large`,
`lraspp_mobilenet_v3_large`: a state dict of any of them, with or without its auxiliary head. Their first class is the
background, which is a class like the others here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from detseg.checkpoints.torch_files import renamed_by

if TYPE_CHECKING:
    from torch import Tensor


class MapKind(NamedTuple):
    """One of the six: torchvision's builder, the catalog's model, its family, what sets it apart."""

    builder: str
    model: str
    family: str
    mobile: bool = False
    deep: bool = False  # ResNet-101


MAP_KINDS = (
    MapKind("fcn_resnet50", "fcn-r50", "fcn"),
    MapKind("fcn_resnet101", "fcn-r101", "fcn", deep=True),
    MapKind("deeplabv3_resnet50", "deeplabv3-r50", "deeplab"),
    MapKind("deeplabv3_resnet101", "deeplabv3-r101", "deeplab", deep=True),
    MapKind("deeplabv3_mobilenet_v3_large", "deeplabv3-mobilenet", "deeplab", mobile=True),
    MapKind("lraspp_mobilenet_v3_large", "lraspp-mobilenet", "lraspp", mobile=True),
)

_SIGNS = {  # a tensor that only this family has
    "lraspp": "classifier.low_classifier.weight",
    "deeplab": "classifier.0.project.0.weight",
    "fcn": "classifier.0.weight",
}
_SCORES = {"lraspp": "scores", "deeplab": "scores", "fcn": "scores.0.4"}  # the layer that tells the classes, here

# how names change, tried in this order
_BACKBONE_RULES: list[tuple[str, Any]] = [
    (r"backbone\.(\d+)\.", r"backbone.layers.\1."),
    (r"backbone\.", "backbone.net."),
    (r"aux_classifier\.", "auxiliary."),
]
_RULES: dict[str, list[tuple[str, Any]]] = {
    "fcn": [*_BACKBONE_RULES, (r"classifier\.", "scores.0.")],
    "deeplab": [
        *_BACKBONE_RULES,
        (r"classifier\.0\.convs\.4\.(\d)\.", lambda m: f"aspp.pooled.{int(m[1]) - 1}."),
        (r"classifier\.0\.convs\.", "aspp.branches."),
        (r"classifier\.0\.project\.", "aspp.project."),
        (r"classifier\.([12])\.", lambda m: f"refine.{int(m[1]) - 1}."),
        (r"classifier\.4\.", "scores."),
    ],
    "lraspp": [
        *_BACKBONE_RULES,
        (r"classifier\.cbr\.", "high."),
        (r"classifier\.scale\.1\.", "gate.0."),
        (r"classifier\.low_classifier\.", "low_scores."),
        (r"classifier\.high_classifier\.", "scores."),
    ],
}


def kind_of(tensors: Mapping[str, Any]) -> MapKind | None:
    """Which of the six a state dict is of, by its names alone; None when it is of something else."""
    family = next((family for family, sign in _SIGNS.items() if sign in tensors), None)
    mobile = "backbone.0.0.weight" in tensors
    if not mobile and "backbone.layer3.0.conv3.weight" not in tensors:
        return None
    deep = "backbone.layer3.22.conv1.weight" in tensors
    return next((kind for kind in MAP_KINDS if kind[2:] == (family, mobile, deep)), None)


def settings_of(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Where a state dict differs from the catalog's entry: it may have been made without the auxiliary head."""
    kind = kind_of(tensors)
    has_head = any(name.startswith("aux_classifier.") for name in tensors)
    return {} if has_head or kind is None or kind.family == "lraspp" else {"auxiliary_weight": 0.0}


def renamed(tensors: Mapping[str, Tensor], kind: MapKind) -> dict[str, Tensor]:
    """The same tensors under the names of `kind.model`; a name that no rule knows stays as it is."""
    return {renamed_by(_RULES[kind.family], name): tensor for name, tensor in tensors.items()}


def classes_of(tensors: Mapping[str, Tensor], kind: MapKind) -> int:
    """How many classes a state dict of torchvision's has, the background among them; KeyError without its scores."""
    return len(renamed(tensors, kind)[f"{_SCORES[kind.family]}.bias"])
