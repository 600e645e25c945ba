"""torchvision's SSD300 and SSDLite320 files (.pth) as weights of this project: the same numbers under other names.

`ssd300_vgg16` and `ssdlite320_mobilenet_v3_large`: torchvision's own COCO weights, or what its training script wrote.
torch is imported inside the functions, so that the room's doors stay free of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from detseg.checkpoints.card import Card
from detseg.checkpoints.torch_files import described, read_state, renamed_by
from detseg.checkpoints.torchvision_classes import classes_of_file
from detseg.errors import WeightsError
from detseg.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import Tensor


class Kind(NamedTuple):
    """One of torchvision's two: the catalog's name, settings where they differ from the entry's, what comes in."""

    model: str
    settings: dict[str, Any]
    preprocess: Preprocess
    boxes: tuple[int, ...]  # default boxes a cell, map by map


SSD300 = Kind(
    "ssd300",
    {"backbone": "vgg16"},
    Preprocess((300, 300), "stretch", mean=(122.99925, 116.9991, 103.9992), std=(1.0, 1.0, 1.0)),
    (4, 6, 6, 6, 4, 4),
)
SSDLITE320 = Kind(
    "ssdlite",
    {"backbone": "mobilenet_v3_large", "reduced_tail": True},
    Preprocess((320, 320), "stretch", mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5)),
    (6,) * 6,
)

# how the names of tensors change, tried in this order
_C4 = 13  # the block of MobileNetV3-large whose widened map is the first one
_RULES: dict[str, list[tuple[str, Any]]] = {
    "ssd300": [
        (r"backbone\.scale_weight$", "tail.scale"),
        (r"backbone\.extra\.0\.7\.", "tail.fc."),
        (r"backbone\.features\.", "backbone.net.features."),
        (r"backbone\.extra\.0\.(\d+)", lambda m: f"backbone.net.features.{23 + int(m[1])}"),
        (r"backbone\.extra\.(\d+)", lambda m: f"extras.{int(m[1]) - 1}"),
        (r"head\.classification_head\.module_list\.(\d+)", r"heads.\1.logits"),
        (r"head\.regression_head\.module_list\.(\d+)", r"heads.\1.deltas"),
    ],
    "ssdlite": [
        (rf"backbone\.features\.0\.{_C4}\.", f"backbone.layers.{_C4}.block.0."),
        (r"backbone\.features\.0\.", "backbone.layers."),
        (r"backbone\.features\.1\.0\.", f"backbone.layers.{_C4}.block."),
        (r"backbone\.features\.1\.(\d+)", lambda m: f"backbone.layers.{_C4 + int(m[1])}"),
        (r"backbone\.extra\.(\d+)\.(\d+)\.(\d+)", lambda m: f"extras.{m[1]}.{3 * int(m[2]) + int(m[3])}"),
        (r"head\.classification_head\.module_list\.(\d+)\.0\.", r"heads.\1.logits."),
        (r"head\.classification_head\.module_list\.(\d+)\.1\.", r"heads.\1.logits.3."),
        (r"head\.regression_head\.module_list\.(\d+)\.0\.", r"heads.\1.deltas."),
        (r"head\.regression_head\.module_list\.(\d+)\.1\.", r"heads.\1.deltas.3."),
    ],
}


def kind_of(tensors: Mapping[str, Tensor]) -> Kind | None:
    """Which of the two a file's tensors are, by their names; None when neither."""
    if "backbone.scale_weight" in tensors:
        return SSD300
    if "backbone.features.1.0.1.0.weight" in tensors and "head.regression_head.module_list.0.1.weight" in tensors:
        return SSDLITE320
    return None


def renamed(tensors: Mapping[str, Tensor], kind: Kind) -> dict[str, Tensor]:
    """The same tensors under the names of `kind.model`; a name that no rule knows stays as it is."""
    return {renamed_by(_RULES[kind.model], name): tensor for name, tensor in tensors.items()}


def read_torchvision_ssd(path: str | Path, names: Sequence[str] | None = None) -> tuple[Card, dict[str, Tensor]]:
    """The card and the tensors of a torchvision file; see `as_card` for names and errors."""
    tensors = read_state(path)
    kind = kind_of(tensors)
    if kind is None:
        raise WeightsError(
            f"{path}: not the weights of torchvision's ssd300_vgg16 or ssdlite320_mobilenet_v3_large, but "
            f"{described(tensors)}"
        )
    return as_card(tensors, kind, path, names)


def as_card(
    tensors: Mapping[str, Tensor], kind: Kind, path: str | Path, names: Sequence[str] | None = None
) -> tuple[Card, dict[str, Tensor]]:
    """The card of a state dict of torchvision's, and its tensors under this project's names; `path` names it.

    `names` of its classes without background; left out, a file of 90 classes has COCO's ids, and those that COCO does
    not use are taken out. The card's config holds only what differs from the catalog's entry.
    Raises WeightsError when the names do not fit the file, or the classes cannot be counted.
    """
    state = renamed(tensors, kind)
    logits = "heads.0.logits.bias" if kind is SSD300 else "heads.0.logits.3.bias"
    if logits not in state or state[logits].ndim != 1 or len(state[logits]) % kind.boxes[0]:
        raise WeightsError(f"{path}: the tensor that tells the number of classes ({logits}) is missing or misshapen")
    classes = len(state[logits]) // kind.boxes[0] - 1
    categories, used = classes_of_file(path, classes, names)
    return Card(
        model=kind.model,
        config=kind.settings,
        categories=categories,
        preprocess=kind.preprocess,
        training={"from": f"torchvision, {Path(path).name}"},
    ), state if used is None else _of_classes(state, kind, classes, used)


def _of_classes(state: dict[str, Tensor], kind: Kind, classes: int, used: Sequence[int]) -> dict[str, Tensor]:
    """Only the logits of the `used` ones of `classes`, and the background's."""
    last = re.compile(r"heads\.(\d+)\.logits\.(?:3\.)?(?:weight|bias)$")
    kept = [0, *used]
    whole = {}
    for name, tensor in state.items():
        head = last.match(name)
        if head and len(tensor) == kind.boxes[int(head[1])] * (1 + classes):
            tensor = tensor.unflatten(0, (-1, 1 + classes))[:, kept].flatten(0, 1)
        whole[name] = tensor
    return whole
