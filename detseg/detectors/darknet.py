"""Any detector that a Darknet cfg describes: YOLOv2, v3, v4, scaled v4, v7-tiny and their many relatives.

The network is the cfg: `checkpoints/darknet_plan.py` says what its sections mean, `parts/darknet_layers.py` how a layer
computes, `parts/darknet_heads.py` (with the papers) what its last ones say and how they learn. Here they are put
together: into a network that runs the layers in order, and with a weight file into a checkpoint.

Differences from Darknet:
- Training is detseg's: the assignment of v3 (or v4, by the cfg's `iou_thresh`), a box loss of IoU type, sums divided by
  the number of positives. Of the cfg's training settings only these are taken: ignore_thresh, iou_thresh, iou_loss.
- Which suppression a cfg names (`nms_kind`, `beta_nms`) is noted in the card and left to `detseg detect`.

Shapes: N pictures, A priors of a head, (R, C) rows and columns of its grid, K classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from detseg.annotations.categories import Categories
from detseg.backbones.spec import Backbone, FeatureSpec, Stage, stage_index
from detseg.checkpoints import darknet_cfg, darknet_plan
from detseg.checkpoints.card import Card
from detseg.checkpoints.darknet_cfg import Section
from detseg.checkpoints.darknet_plan import Plan, plan
from detseg.checkpoints.darknet_weights import Header, Numbers, read_weights
from detseg.detectors.contract import Detector, Target
from detseg.errors import DetsegError, WeightsError
from detseg.parts import darknet_layers as layers
from detseg.parts.batch_share import normaliser
from detseg.parts.class_rows import ClassRows
from detseg.parts.darknet_heads import BatchTruth, Head, assign
from detseg.preprocess import Preprocess
from detseg.results import RawDetections

ITS_OWN = "its own"  # the backbone of such a network, as the catalog calls it
_LETTERBOX_FILL = 127  # Darknet fills with 0.5

# YOLOv3-tiny, what `-m darknet` means without another cfg: filters of the convolutions, P for a 2x2 maximum
_TINY = (16, "P", 32, "P", 64, "P", 128, "P", 256, "P", 512)


@dataclass(frozen=True)
class DarknetConfig:
    """The cfg's sections, and the weights of the losses; stored in the checkpoint."""

    num_classes: int
    sections: tuple[Section, ...]
    box_weight: float = 5.0
    objectness_weight: float = 1.0
    class_weight: float = 1.0

    @property
    def backbone(self) -> str:
        """The network has no part of the shared module."""
        return ITS_OWN


class Darknet(Detector):
    """The layers up to the predictions (`backbone`), and the heads, each with its last convolution."""

    def __init__(self, config: DarknetConfig, plan: Plan) -> None:
        super().__init__()
        self.config = config
        self.backbone = Trunk(plan)
        self.heads = nn.ModuleList(_head(plan, layer.inputs[0], head) for layer, head in plan.heads)
        self.iou_thresh = [head.iou_thresh for _, head in plan.heads]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> per head (N, A, R, C, 5 + K): x, y, w, h, objectness, classes, all raw."""
        return [head(features) for head, features in zip(self.heads, self.backbone(images), strict=True)]

    def detect(self, images: Tensor) -> RawDetections:
        """Boxes of every prior in every cell; score = Pr(object) * Pr(class | object)."""
        frame_hw = (images.shape[2], images.shape[3])
        answers = [head.answer(raw, frame_hw) for head, raw in self._answers(images)]
        boxes, scores = zip(*answers, strict=True)
        return RawDetections(torch.cat(boxes, dim=1), torch.cat(scores, dim=1))

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Box, objectness and class loss: sums over the batch, divided by its number of positives."""
        frame_hw = (images.shape[2], images.shape[3])
        answers = self._answers(images)
        truth = _batch_truth(targets)
        grids = [(raw.shape[2], raw.shape[3]) for _, raw in answers]
        priors = [head.priors(frame_hw, grid) for (head, _), grid in zip(answers, grids, strict=True)]
        positives = assign(truth.boxes, priors, grids, frame_hw, self.iou_thresh)
        count = normaliser(sum(len(own.truth) for own in positives))
        parts = [head.losses(raw, truth, own, frame_hw) for (head, raw), own in zip(answers, positives, strict=True)]
        box, objectness, classes = (torch.stack(terms).sum() / count for terms in zip(*parts, strict=True))
        return {
            "box": self.config.box_weight * box,
            "objectness": self.config.objectness_weight * objectness,
            "class": self.config.class_weight * classes,
        }

    def class_rows(self) -> dict[str, ClassRows]:
        """Of each prior x, y, w, h, objectness, and then one a class."""
        heads: Any = self.heads
        return {f"heads.{i}.predictor.conv": ClassRows(len(head.anchors), 5) for i, head in enumerate(heads)}

    def _answers(self, images: Tensor) -> list[tuple[Head, Tensor]]:
        return [(head, raw) for head, raw in zip(self.heads, self(images), strict=True) if isinstance(head, Head)]


class Trunk(Backbone):
    """All layers but the predictions, run in order; `layers` holds them by their number in the cfg."""

    mean, std = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        predictors = [layer.inputs[0] for layer, _ in plan.heads]
        self.read = [plan.layers[index].inputs[0] for index in predictors]
        self.steps = [
            (layer.index, layer.inputs)
            for layer in plan.layers
            if layer.index not in predictors and not isinstance(layer.settings, darknet_plan.Head)
        ]
        self.layers = nn.ModuleDict({str(index): _module(plan.layers[index].settings) for index, _ in self.steps})
        self._strides = _strides(plan)
        self.features = tuple(FeatureSpec(_channels(plan, index), self._strides[index]) for index in self.read)
        last_use = {source: index for index, inputs in self.steps for source in inputs}
        last_use |= dict.fromkeys(self.read, len(plan.layers))
        self._done_after = {index: [s for s, last in last_use.items() if last == index] for index, _ in self.steps}

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> what each prediction reads, in the order of the cfg's heads."""
        outputs = {-1: images}
        for index, inputs in self.steps:
            outputs[index] = self.layers[str(index)](*(outputs[source] for source in inputs))
            for source in self._done_after[index]:
                del outputs[source]
        return [outputs[index] for index in self.read]

    def stages(self) -> list[Stage]:
        """By the largest stride reached so far; the last one holds also what follows."""
        found: list[list[nn.Module]] = []
        reached = 1
        for index, _ in self.steps:
            reached = max(reached, self._strides[index])
            while len(found) <= stage_index(reached):
                found.append([])
            found[-1].append(self.layers[str(index)])
        return list(found)


def _module(settings: darknet_plan.Settings) -> nn.Module:
    """The layer that computes what `settings` say."""
    match settings:
        case darknet_plan.Convolution():
            return _convolution(settings, settings.activation)
        case darknet_plan.Pool(kind="max"):
            return layers.MaxPool(settings.size, settings.stride_yx, settings.padding)
        case darknet_plan.Pool():
            return layers.MeanPool(settings.size, settings.stride_yx, settings.padding)
        case darknet_plan.GlobalMean():
            return layers.GlobalMean()
        case darknet_plan.Route():
            return layers.Route(settings.groups, settings.group)
        case darknet_plan.Shortcut():
            return layers.Shortcut(settings.activation)
        case darknet_plan.Upsample():
            return layers.Upsample(settings.stride, settings.scale)
        case darknet_plan.Reorg():
            return layers.Reorg(settings.stride, settings.true_blocks)
        case darknet_plan.Scale():
            return layers.Scale(settings.activation)
        case darknet_plan.Dropout():
            return nn.Dropout(settings.probability)
        case _:
            return nn.Identity()


def _convolution(settings: darknet_plan.Convolution, activation: str) -> layers.Convolution:
    return layers.Convolution(
        settings.in_channels,
        settings.filters,
        settings.size,
        settings.stride_yx,
        settings.padding,
        settings.dilation,
        settings.groups,
        settings.norm,
        activation,
    )


def _head(plan: Plan, predictor: int, head: darknet_plan.Head) -> Head:
    settings = plan.layers[predictor].settings
    assert isinstance(settings, darknet_plan.Convolution)
    convolution = _convolution(settings, "linear" if head.new_coords else settings.activation)
    _start_quietly(convolution, len(head.anchors), head)
    box_loss: Any = head.box_loss
    return Head(
        convolution,
        head.anchors,
        head.classes,
        in_cells=head.kind == "region",
        softmax=head.softmax,
        scale_xy=head.scale_xy,
        new_coords=head.new_coords,
        ignore_iou=head.ignore_iou,
        box_loss=box_loss,
    )


def _start_quietly(convolution: layers.Convolution, anchors: int, head: darknet_plan.Head) -> None:
    """Few cells hold an object: Pr(object) starts near 0.007, else background drowns the rest."""
    if convolution.conv.bias is None:
        return
    bias = torch.zeros(anchors, 5 + head.classes)
    bias[:, 4] = -5.0
    bias[:, 5:] = 0.0 if head.softmax else -2.0
    nn.init.normal_(convolution.conv.weight, std=0.01)
    convolution.conv.bias = nn.Parameter(bias.reshape(-1))


def _strides(plan: Plan) -> dict[int, int]:
    """Layer -> pixels of the frame a step; that of what a global mean feeds is that of its source."""
    strides = {-1: 1}
    for layer in plan.layers:
        stride = strides[layer.inputs[-1]]
        match layer.settings:
            case darknet_plan.Convolution(stride_yx=(step, _)) | darknet_plan.Pool(stride_yx=(step, _)):
                stride *= step
            case darknet_plan.Reorg(stride=step):
                stride *= step
            case darknet_plan.Upsample(stride=step):
                stride = max(1, stride // step)
        strides[layer.index] = stride
    return strides


def _channels(plan: Plan, index: int) -> int:
    return plan.layers[index].shape[0] if index >= 0 else 3


def _batch_truth(targets: list[Target]) -> BatchTruth:
    """The targets of a batch in one row each."""
    counts = torch.tensor([len(t.boxes) for t in targets], device=targets[0].boxes.device)
    image = torch.repeat_interleave(torch.arange(len(targets), device=counts.device), counts)
    boxes, labels = torch.cat([t.boxes for t in targets]), torch.cat([t.labels for t in targets])
    ignored = torch.cat([t.ignored for t in targets])
    return BatchTruth(image[~ignored], boxes[~ignored], labels[~ignored], image[ignored], boxes[ignored])


def build(
    config: DarknetConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Darknet:
    """The network of the sections, with random weights. Raises WeightsError when they describe none."""
    if backbone_weights is not None:
        raise DetsegError(
            "a Darknet network has no backbone of the shared module; start from imported weights with --weights"
        )
    made = plan(config.sections)
    if made.heads[0][1].classes != config.num_classes:
        raise WeightsError(f"{made.file}: {made.heads[0][1].classes} classes in the cfg, not {config.num_classes}")
    return Darknet(config, made)


def configure(num_classes: int, options: Mapping[str, Any], anchors: Callable[[int], Any] | None) -> DarknetConfig:
    """The config for new data: the network of `options` with heads for `num_classes`.

    `cfg` names a file; `sections` are those of the checkpoint that training starts from, whose priors stay, since its
    weights were trained with them; without either it is YOLOv3-tiny. `anchors` as in `yolo.configure`: priors from the
    data for a new network. Raises WeightsError for a bad cfg, DetsegError for an unknown option.
    """
    if options.get("backbone", ITS_OWN) != ITS_OWN:
        raise DetsegError("the network is the cfg's: --backbone cannot change it")
    settings = {name: value for name, value in options.items() if name != "backbone"}
    known = {f.name for f in fields(DarknetConfig)} - {"num_classes"} | {"cfg"}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise DetsegError(f"Darknet has no option {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    cfg, stored = settings.pop("cfg", None), settings.pop("sections", None)
    try:
        if cfg is not None:
            sections = darknet_cfg.read_cfg(str(cfg))
        else:
            sections = darknet_cfg.parse_cfg(tiny_cfg()) if stored is None else darknet_cfg.from_json(stored)
        sections = with_classes(sections, num_classes)
        if anchors is not None and stored is None:
            sections = with_anchors(sections, anchors)
        weights = {name: float(value) for name, value in settings.items()}
    except (TypeError, ValueError) as error:
        raise DetsegError(f"Darknet cannot be built so: {error}") from error
    return DarknetConfig(num_classes, sections, **weights)


def with_classes(sections: Sequence[Section], num_classes: int) -> tuple[Section, ...]:
    """The same network with heads for another number of classes."""
    changed = list(sections)
    for layer, head in plan(sections).heads:
        at, predictor = layer.index + 1, layer.inputs[0] + 1  # [net] is section 0
        filters = len(head.anchors) * (5 + num_classes)
        changed[at] = _with(changed[at], classes=str(num_classes))
        changed[predictor] = _with(changed[predictor], filters=str(filters))
    return tuple(changed)


def with_anchors(sections: Sequence[Section], anchors: Callable[[int], Any]) -> tuple[Section, ...]:
    """The same network with the priors that `anchors(count)` answers, smallest first; unchanged where it answers None.

    The heads of a cfg share one list, of which each uses its mask.
    """
    changed = list(sections)
    made = plan(sections)
    for layer, head in made.heads:
        section = sections[layer.index + 1]
        found = anchors(section.integer("num", len(section.options["anchors"].split(",")) // 2, 1, 1000))
        if found is None:
            return tuple(sections)
        cell = made.frame_hw[0] / layer.shape[1] if head.kind == "region" else 1.0
        text = ",".join(f"{float(side) / cell:.4g}" for pair in found for side in pair)
        changed[layer.index + 1] = _with(section, anchors=text)
    return tuple(changed)


def _with(section: Section, **options: str) -> Section:
    return replace(section, options={**section.options, **options})


def config_from_json(values: dict[str, Any]) -> DarknetConfig:
    """The config from a checkpoint's JSON."""
    return DarknetConfig(**{**values, "sections": darknet_cfg.from_json(values["sections"])})


def config_to_json(config: DarknetConfig) -> dict[str, Any]:
    """The config as plain JSON values."""
    weights = {name: getattr(config, name) for name in ("box_weight", "objectness_weight", "class_weight")}
    return {"num_classes": config.num_classes, "sections": darknet_cfg.to_json(config.sections), **weights}


def tiny_cfg(num_classes: int = 80, side: int = 416) -> str:
    """YOLOv3-tiny (v3 sec. 2.3 in small: two scales, six priors) as a cfg."""
    conv = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize={}\nstride=1\npad=1\nactivation=leaky\n"
    parts = [f"[net]\nwidth={side}\nheight={side}\nchannels=3\n"]
    parts += ["[maxpool]\nsize=2\nstride=2\n" if step == "P" else conv.format(step, 3) for step in _TINY]
    parts += ["[maxpool]\nsize=2\nstride=1\n", conv.format(1024, 3), conv.format(256, 1), conv.format(512, 3)]
    priors = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"
    for mask in ("3,4,5", "0,1,2"):
        parts.append(f"[convolutional]\nsize=1\npad=1\nfilters={3 * (5 + num_classes)}\nactivation=linear\n")
        parts.append(f"[yolo]\nmask={mask}\nanchors={priors}\nclasses={num_classes}\nnum=6\nignore_thresh=.7\n")
        if mask == "3,4,5":
            parts += ["[route]\nlayers=-4\n", conv.format(128, 1), "[upsample]\nstride=2\n", "[route]\nlayers=-1,8\n"]
            parts.append(conv.format(256, 3))
    return "".join(parts)


@dataclass(frozen=True, eq=False)
class Imported:
    """A Darknet network as a checkpoint: `card` and `state`.

    `plan`, `header` and the `unused` options of the cfg are for telling.
    """

    card: Card
    state: dict[str, Tensor]
    plan: Plan
    header: Header
    unused: tuple[str, ...]


def import_network(
    cfg: str | Path,
    weights: str | Path,
    names: Sequence[str] | None = None,
    *,
    frame_hw: tuple[int, int] | None = None,
    fit: Literal["letterbox", "stretch"] | None = None,
) -> Imported:
    """A cfg and its weight file as a checkpoint.

    `names` of the classes, their numbers where None; `frame_hw` instead of the cfg's size; `fit`: stretched, Darknet's
    own way, unless the cfg says letter_box=1. Raises WeightsError naming file, place and cause.
    """
    sections = darknet_cfg.read_cfg(cfg)
    if frame_hw is not None:
        sections = (_with(sections[0], height=str(frame_hw[0]), width=str(frame_hw[1])), *sections[1:])
    made = plan(sections)
    header, numbers = read_weights(weights, made)
    classes = made.heads[0][1].classes
    fit = fit or ("letterbox" if made.letterbox else "stretch")
    card = Card(
        model="darknet",
        config=config_to_json(DarknetConfig(classes, sections)),
        categories=_categories(names, classes, cfg),
        preprocess=Preprocess(made.frame_hw, fit, mean=Trunk.mean, std=Trunk.std, fill=_LETTERBOX_FILL),
        training={"imported": _origin(Path(cfg), Path(weights), header, made)},
    )
    return Imported(card, _state(numbers, made), made, header, tuple(darknet_plan.unused(sections)))


def _categories(names: Sequence[str] | None, classes: int, cfg: str | Path) -> Categories:
    names = [str(i) for i in range(classes)] if names is None else names
    if len(names) != classes:
        raise WeightsError(f"{cfg}: it has {classes} classes, but there are {len(names)} names")
    try:
        return Categories.from_names(names)
    except ValueError as error:
        raise WeightsError(f"the names of the classes cannot be used: {error}") from error


def _origin(cfg: Path, weights: Path, header: Header, made: Plan) -> dict[str, Any]:
    """What the card remembers of the two files; the first few characters of a hash tell files of a name apart."""
    with weights.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    asked = [(layer.section.text("nms_kind", ""), layer.section.options.get("beta_nms")) for layer, _ in made.heads]
    kinds = [f"{kind}, beta {beta}" if beta else kind for kind, beta in asked if kind]
    return {
        "cfg": cfg.name,
        "weights": weights.name,
        "sha256": digest,
        "darknet": header.version,
        "pictures_seen": header.seen,
        "nms": "; ".join(dict.fromkeys(kinds)) or "not named",
    }


def _state(numbers: Mapping[int, Numbers], made: Plan) -> dict[str, Tensor]:
    """The file's numbers under the names of the model's tensors."""
    heads = {layer.inputs[0]: f"heads.{i}.predictor" for i, (layer, _) in enumerate(made.heads)}
    state: dict[str, Tensor] = {}
    for index, own in numbers.items():
        prefix = heads.get(index, f"backbone.layers.{index}")
        state[f"{prefix}.conv.weight"] = torch.from_numpy(own.kernel)
        if own.scale is None or own.mean is None or own.variance is None:
            state[f"{prefix}.conv.bias"] = torch.from_numpy(own.bias)
            continue
        norm = {"weight": own.scale, "bias": own.bias, "running_mean": own.mean, "running_var": own.variance}
        state |= {f"{prefix}.norm.{name}": torch.from_numpy(values) for name, values in norm.items()}
        state[f"{prefix}.norm.num_batches_tracked"] = torch.tensor(0)
    return state
