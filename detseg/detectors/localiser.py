"""Object localisation: one object a picture, said by one vector.

The step between classification and detection, as textbooks have it: a classification network whose last layer says
y = [p, b_x, b_y, b_h, b_w, c_1, ..., c_K], where p is whether there is an object at all. K. Simonyan, A. Zisserman:
Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015, arXiv 1409.1556 ("VGG", appendix A), and
P. Sermanet et al.: OverFeat, 2014, arXiv 1312.6229 ("OverFeat", section 4) won ImageNet's localisation task so.

    source                                             here
    y, the last layer                                  `Localiser.forward`
    masked loss: box and class only where p = 1        `Localiser.losses`
    VGG app. A.1, squared error of the box             `box_loss="l2"`
    VGG app. A.1, one box whatever the class (SCR)     `Localiser.losses`: box and class share nothing
    OverFeat sec. 4.2, regression from a map           `parts.area_pool`: where things are is kept, as a coarse grid

Differences from the sources:
- Any backbone of the shared module, and one network for everything; VGG has a second one for classes.
- A sigmoid bounds centre and size; in the sources they are free numbers.
- `box_loss`: by default GIoU and the distance of the numbers together; "l2" is the textbook's squared error.
- The object of a picture that shows several is the largest. Crowds and difficult objects are ignored: a picture with
  nothing else teaches nothing, neither that there is an object nor that there is none.

Shapes: N pictures, K classes; y has 5 + K numbers: presence, (x, y, w, h), classes. Boxes are xyxy pixels of the
network's frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detseg.annotations import AnnotationSet
from detseg.backbones.catalog import build_backbone
from detseg.backbones.spec import Backbone
from detseg.detectors.contract import Detector, Target
from detseg.errors import DetsegError
from detseg.parts.area_pool import area_pool
from detseg.parts.batch_share import normaliser
from detseg.parts.box_losses import box_loss
from detseg.parts.class_rows import ClassRows
from detseg.results import RawDetections

BoxLoss = Literal["giou", "l2"]
NOTHING, OBJECT, UNKNOWN = 0, 1, -1  # what a picture holds; unknown where all it shows is ignored


@dataclass(frozen=True)
class LocaliserConfig:
    """What makes a localiser; stored in its checkpoint."""

    num_classes: int
    backbone: str = "efficientnet_lite0"
    stride: int = 32  # of the map that is pooled
    pool: int = 4  # rows and columns that the map is averaged to; 1: where things are is forgotten
    width: int = 128  # channels that the map is narrowed to before
    hidden: int = 256  # size of the fully connected layer between
    dropout: float = 0.2
    box_loss: BoxLoss = "giou"
    presence_weight: float = 1.0
    box_weight: float = 2.0
    class_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.box_loss not in get_args(BoxLoss):
            raise ValueError(f"box_loss must be one of {', '.join(get_args(BoxLoss))}, got {self.box_loss!r}")
        for name in ("pool", "width", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


class Localiser(Detector):
    """Backbone, a coarse grid of means, two fully connected layers. Built by `build`."""

    def __init__(self, config: LocaliserConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.narrow = nn.Conv2d(backbone.features[0].channels, config.width, 1)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(config.width * config.pool**2, config.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, 5 + config.num_classes),
        )
        last = self.head[-1]
        nn.init.normal_(last.weight, std=0.01)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def class_rows(self) -> dict[str, ClassRows]:
        """Presence and box first."""
        return {f"head.{len(self.head) - 1}": ClassRows(shared=5)}

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> y (N, 5 + K): presence, box and classes, all before their squashing."""
        x = F.relu(self.narrow(self.backbone(images)[0]))
        return self.head(area_pool(x, self.config.pool)).float()

    def detect(self, images: Tensor) -> RawDetections:
        """One candidate a picture, of one class: boxes (N, 1, 4), scores (N, 1, K), 0 but for the likeliest class.

        That score is presence times class, so whatever threshold is chosen a picture has one answer or none.
        """
        y = self(images)
        classes = y[:, 5:].softmax(dim=1)
        likeliest = torch.arange(classes.shape[1], device=y.device) == classes.argmax(dim=1, keepdim=True)
        scores = y[:, :1].sigmoid() * classes * likeliest
        return RawDetections(boxes_of(y, (images.shape[2], images.shape[3]))[:, None], scores[:, None])

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Presence of every picture; box and class of those that show an object, zero where none does."""
        config, frame_hw = self.config, (images.shape[2], images.shape[3])
        holds, boxes, labels = object_of_each(targets)
        y = self(images)
        known, shown = holds != UNKNOWN, holds == OBJECT
        presence = F.binary_cross_entropy_with_logits(y[known, 0], holds[known].float(), reduction="sum")
        objects = normaliser(shown.sum())
        classes = F.cross_entropy(y[shown, 5:], labels[shown], reduction="sum")
        box = self._box_losses(y[shown], boxes[shown], frame_hw).sum()
        return {
            "presence": config.presence_weight * presence / normaliser(known.sum()),
            "box": config.box_weight * box / objects,
            "class": config.class_weight * classes / objects,
        }

    def _box_losses(self, y: Tensor, boxes: Tensor, frame_hw: tuple[int, int]) -> Tensor:
        """(n, 5 + K), (n, 4) -> (n,) what each box costs."""
        found = y[:, 1:5].sigmoid()
        wanted = shares_of(boxes, frame_hw)
        if self.config.box_loss == "l2":
            return (found - wanted).square().sum(dim=1)
        return box_loss(boxes_of(y, frame_hw, cut=False), boxes, "giou") + (found - wanted).abs().sum(dim=1)


def boxes_of(y: Tensor, frame_hw: tuple[int, int], *, cut: bool = True) -> Tensor:
    """(N, 5 + K) -> (N, 4) xyxy: centre and size as shares of the frame, by a sigmoid, so never beyond it by half."""
    height, width = frame_hw
    x, y_, w, h = y[:, 1:5].sigmoid().unbind(dim=1)
    boxes = torch.stack([(x - w / 2) * width, (y_ - h / 2) * height, (x + w / 2) * width, (y_ + h / 2) * height], 1)
    if not cut:
        return boxes
    return torch.stack([boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)], dim=2).flatten(1)


def shares_of(boxes: Tensor, frame_hw: tuple[int, int]) -> Tensor:
    """(n, 4) xyxy -> (n, 4) centre and size (x, y, w, h) as shares of the frame."""
    sides = boxes.new_tensor([frame_hw[1], frame_hw[0]])
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2 / sides, (boxes[:, 2:] - boxes[:, :2]) / sides], dim=1)


def object_of_each(targets: list[Target]) -> tuple[Tensor, Tensor, Tensor]:
    """What each picture holds (N,), and its largest object's box (N, 4) and class (N,); zeros where it has none."""
    holds, boxes, labels = [], [], []
    for target in targets:
        counted = target.boxes[~target.ignored]
        sizes = (counted[:, 2:] - counted[:, :2]).prod(dim=1)
        holds.append(OBJECT if len(counted) else UNKNOWN if len(target.boxes) else NOTHING)
        boxes.append(counted[sizes.argmax()] if len(counted) else target.boxes.new_zeros(4))
        labels.append(target.labels[~target.ignored][sizes.argmax()] if len(counted) else target.labels.new_zeros(()))
    return torch.tensor(holds, device=boxes[0].device), torch.stack(boxes), torch.stack(labels)


def remarks(truth: AnnotationSet) -> list[str]:
    """What to tell people who train on `truth`: where its pictures show more, or never less, than one object."""
    objects = np.bincount(truth.image_index[~truth.ignored], minlength=len(truth))
    several = int((objects > 1).sum())
    lines = []
    if several:
        lines.append(
            f"{several} of {len(truth)} pictures show several objects: the localiser gives one a picture, so it learns "
            "the largest of each, and AP counts the others as missed; a detector, such as yolo, finds them all"
        )
    if objects.all():
        lines.append("no picture is without objects: nothing teaches that there may be none, so each will get a box")
    return lines


def build(
    config: LocaliserConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Localiser:
    """The localiser of `config`; `backbone_weights` and `progress` as `build_backbone` takes them."""
    backbone = build_backbone(config.backbone, strides=(config.stride,), weights=backbone_weights, progress=progress)
    return Localiser(config, backbone)


def configure(num_classes: int, options: Mapping[str, Any], anchors: Callable[[int], Any] | None) -> LocaliserConfig:
    """The config for new data: `options` over the defaults; there are no anchors.

    Raises DetsegError for an unknown option or one that does not fit.
    """
    known = {f.name for f in fields(LocaliserConfig)} - {"num_classes"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise DetsegError(f"the localiser has no option {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    try:
        return config_from_json({**options, "num_classes": num_classes})
    except (TypeError, ValueError) as error:
        raise DetsegError(f"the localiser cannot be built so: {error}") from error


def config_from_json(values: dict[str, Any]) -> LocaliserConfig:
    """The config from a checkpoint's JSON."""
    return LocaliserConfig(**values)


def config_to_json(config: LocaliserConfig) -> dict[str, Any]:
    """The config as plain JSON values."""
    return asdict(config)
