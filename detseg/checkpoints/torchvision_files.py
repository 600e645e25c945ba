"""torchvision's models as checkpoints: which of them a file is of, its classes, its preprocessing, its tensors.

What a file is, is told by the names and shapes in it. The maps of names are `torchvision_ssd`, `torchvision_rcnn` and
`torchvision_segmenters`; here the model is built, and every tensor of both sides must find its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detseg import catalog
from detseg.checkpoints import Card, load_into
from detseg.checkpoints import torchvision_rcnn as rcnn
from detseg.checkpoints import torchvision_segmenters as maps
from detseg.checkpoints import torchvision_ssd as ssd
from detseg.checkpoints.torch_files import described, read_state
from detseg.checkpoints.torchvision_classes import classes_of_file, classes_of_maps
from detseg.errors import WeightsError
from detseg.preprocess import Preprocess

_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet
_LIMITS = {"fasterrcnn_mobilenet_v3_large_320_fpn": (320, 640)}  # of a picture's shorter and longer side
_USUAL_LIMITS = (800, 1333)
_SSDS = {"ssd300_vgg16": ssd.SSD300, "ssdlite320_mobilenet_v3_large": ssd.SSDLITE320}
_RCNNS = {kind.builder: kind for kind in rcnn.RCNNS}
_MAPS = {kind.builder: kind for kind in maps.MAP_KINDS}
_MAP_LIMITS = (520, 1333)  # torchvision enlarges or shrinks the shorter side to 520 pixels
BUILDERS = (*_SSDS, *_RCNNS, *_MAPS)  # torchvision's names of the models that are here, too


@dataclass(frozen=True, eq=False)
class Imported:
    """A file of torchvision's as a checkpoint; `builder` is torchvision's name of the model, `notes` are for people."""

    card: Card
    state: dict[str, Tensor]
    builder: str
    parameters: int
    notes: tuple[str, ...]


def import_file(path: str | Path, names: Sequence[str] | None = None, *, builder: str | None = None) -> Imported:
    """The checkpoint of a .pth file with the weights of one of `BUILDERS`.

    `names` of its classes in their order; None: COCO's, where there are as many. `builder` chooses between models that
    have the same tensors, else the file's name does. Raises WeightsError, telling what the file is instead, when it is
    not of these models, damaged, or of other shapes.
    """
    path = Path(path)
    tensors = read_state(path)
    chosen, notes = _builder(path, tensors, builder)
    read = _ssd if chosen in _SSDS else _rcnn if chosen in _RCNNS else _map
    made = read(path, tensors, chosen, names)
    state = {
        name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor for name, tensor in made[1].items()
    }
    broken = [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise WeightsError(
            f"{path}: {len(broken)} of its tensors hold numbers that are not finite, such as {broken[0]}"
        )
    card, parameters = _fitted(path, made[0], state, chosen)
    if names is None:
        whose = "PASCAL VOC's" if chosen in _MAPS else "COCO's"
        notes.append(f"its {len(card.categories)} classes are taken for {whose}; --names FILE gives other names")
    return Imported(card, state, chosen, parameters, tuple(notes))


def _builder(path: Path, tensors: Mapping[str, Tensor], wanted: str | None) -> tuple[str, list[str]]:
    """Which model the tensors are of, and what is to be told of the choice."""
    kind = ssd.kind_of(tensors)
    possible = [name for name, one in _SSDS.items() if one is kind] or [k.builder for k in rcnn.kinds_of(tensors)]
    segmenter = maps.kind_of(tensors)
    if not possible and segmenter is not None:
        possible = [segmenter.builder]
    if not possible:
        raise WeightsError(
            f"{path}: {described(tensors)}; expected those of a detector or segmenter of torchvision: "
            f"{', '.join(BUILDERS)}"
        )
    if wanted is not None:
        if wanted not in possible:
            raise WeightsError(f"{path}: has the tensors of {' or '.join(possible)}, not of {wanted}")
        return wanted, []
    if len(possible) == 1:
        return possible[0], []
    small = next((name for name in possible if "_320_" in name), possible[-1])
    chosen = small if "320" in path.stem else next(name for name in possible if name != small)
    others = " and ".join(name for name in possible if name != chosen)
    return chosen, [f"taken for {chosen}; {others} has the same tensors: --model chooses"]


def _ssd(
    path: Path, tensors: Mapping[str, Tensor], builder: str, names: Sequence[str] | None
) -> tuple[Card, dict[str, Tensor]]:
    return ssd.as_card(tensors, _SSDS[builder], path, names)


def _rcnn(
    path: Path, tensors: Mapping[str, Tensor], builder: str, names: Sequence[str] | None
) -> tuple[Card, dict[str, Tensor]]:
    kind = _RCNNS[builder]
    bias = "roi_heads.box_predictor.cls_score.bias"
    if bias not in tensors or tensors[bias].ndim != 1 or len(tensors[bias]) < 2:
        raise WeightsError(f"{path}: the tensor that tells the number of classes ({bias}) is missing or misshapen")
    categories, used = classes_of_file(path, rcnn.classes_of(tensors), names)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config: dict[str, Any] = {"backbone": catalog.entry(kind.model).backbone}
    if digest.startswith(rcnn.WITHOUT_EPSILON):
        config["maps.norm_eps"] = 0.0
    try:
        state = rcnn.renamed(tensors, kind, used)
    except (RuntimeError, IndexError, ValueError) as error:
        raise WeightsError(f"{path}: its last layers are not those of {builder}: {error}") from error
    return Card(
        model=kind.model,
        config=config,
        categories=categories,
        preprocess=Preprocess(_LIMITS.get(builder, _USUAL_LIMITS), "shorter", mean=_MEAN, std=_STD),
        training={"from": f"torchvision, {path.name}"},
    ), state


def _map(
    path: Path, tensors: Mapping[str, Tensor], builder: str, names: Sequence[str] | None
) -> tuple[Card, dict[str, Tensor]]:
    kind = _MAPS[builder]
    try:
        classes = maps.classes_of(tensors, kind)
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{path}: the tensor that tells the number of classes is missing") from error
    return Card(
        model=kind.model,
        config={"backbone": catalog.entry(kind.model).backbone, **maps.settings_of(tensors)},
        categories=classes_of_maps(path, classes, names),
        preprocess=Preprocess(_MAP_LIMITS, "shorter", mean=_MEAN, std=_STD),
        training={"from": f"torchvision, {path.name}"},
        task="segment",
    ), maps.renamed(tensors, kind)


def _fitted(path: Path, card: Card, state: Mapping[str, Tensor], builder: str) -> tuple[Card, int]:
    """The card with the whole config, once every tensor has found its place in the model; and its parameters."""
    entry = catalog.entry(card.model)
    module = catalog.module(entry.name)
    config = module.configure(len(card.categories), {**entry.options, **card.config}, None)
    model = module.build(config)
    load_into(model, state, f"{path} (taken for torchvision's {builder})")
    return replace(card, config=module.config_to_json(config)), sum(p.numel() for p in model.parameters())


@dataclass(frozen=True)
class Published:
    """Weights that torchvision publishes: its own name and address, and what it says of them."""

    name: str
    builder: str
    url: str
    parameters: int
    megabytes: float
    box_map: float | None
    mask_map: float | None
    miou: float | None

    @property
    def task(self) -> str:
        """What it is for: "detect" or "segment"."""
        return "segment" if self.builder in _MAPS else "detect"


def published() -> dict[str, Published]:
    """The weights of `BUILDERS` by name, such as ssd300_vgg16-coco, as the installed torchvision lists them."""
    from torchvision.models import get_model_weights

    found: dict[str, Published] = {}
    for builder in BUILDERS:
        for weights in get_model_weights(builder):
            meta: Mapping[str, Any] = weights.meta
            name = f"{builder}-{weights.name.lower().removesuffix('_v1')}"
            metrics = meta.get("_metrics", {})
            scores = {**metrics.get("COCO-val2017", {}), **metrics.get("COCO-val2017-VOC-labels", {})}
            about = (
                meta["num_params"],
                float(meta.get("_file_size", 0)),
                scores.get("box_map"),
                scores.get("mask_map"),
                scores.get("miou"),
            )
            found[name] = Published(name, builder, weights.url, *about)
    return found
