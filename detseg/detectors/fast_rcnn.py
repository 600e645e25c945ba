"""Fast R-CNN: one pass of the network over the picture, then each proposal judged on the map it made.

R. Girshick: Fast R-CNN, 2015, arXiv 1504.08083 ("paper").

    paper                                              here
    sec. 2.1, RoI pooling layer                        `parts.roi_features`, kind "pool"
    sec. 2, fig. 1, sibling answers                    `parts.box_heads`, `BoxPredictor`
    sec. 2.3, multi-task loss, eq. 1 to 3              `parts.box_heads.region_losses`
    sec. 2.3, mini-batches, 25 % positives             `FastRCNN._worth_learning`, `parts.box_heads.RegionSampler`
    sec. 3, proposals from outside                     `takes_proposals`; `detseg.proposals`
    sec. 3.1, truncated SVD, eq. 5                     `LowRank`, `compressed`

Differences from the paper:
- Any backbone of the shared module. `fast-rcnn` is light: maps and head are those of `faster-rcnn`, a narrow pyramid
  and two fully connected layers of 256, so that the two differ in who proposes; `fast-rcnn-vgg16` has the paper's one
  map and its layers of 4096, which start at random, not from VGG's classifier.
- RoIAlign instead of RoI pooling by `pool.kind` "align".
- The light one learns from background of any overlap with objects, not of 0.1 at least (`background_iou`).
- Ignored regions (crowds, difficult objects) are neither objects nor background.

Shapes: N pictures, P proposals of a picture, S over all pictures, K classes. Boxes are xyxy pixels of the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from detseg.backbones.catalog import build_backbone
from detseg.backbones.fpn import FeaturePyramid
from detseg.backbones.spec import Backbone
from detseg.detectors.contract import Detector, Target
from detseg.errors import DetsegError
from detseg.parts.box_coder import BoxCoder
from detseg.parts.box_heads import BoxConfig, BoxHead, BoxPredictor, RegionSampler, region_losses
from detseg.parts.class_rows import ClassRows
from detseg.parts.frames import clipped, padded, sizes_of, whole_frames
from detseg.parts.ground_truth import Truth
from detseg.parts.grouped_settings import flat, grouped
from detseg.parts.overlaps import iou
from detseg.parts.roi_features import PoolConfig, RoIFeatures
from detseg.proposals.sources import ProposalSettings
from detseg.results import RawDetections


@dataclass(frozen=True)
class FastRCNNConfig:
    """What makes a Fast R-CNN; stored in its checkpoint, each entry of a group as group.entry."""

    num_classes: int
    backbone: str = "efficientnet_lite0"
    proposals: ProposalSettings = field(default_factory=ProposalSettings)  # 2000 of fast mode, sec. 3
    strides: tuple[int, ...] = (16,)  # of the backbone's maps
    width: int = 0  # channels of a pyramid of these; 0: the backbone's one map as it is
    pool: PoolConfig = field(default_factory=lambda: PoolConfig(kind="pool"))
    box: BoxConfig = field(default_factory=lambda: BoxConfig(samples=64))  # of each of two pictures, sec. 2.3
    background_iou: float = 0.1  # background overlaps some object so much: the harder part, sec. 2.3
    svd: tuple[int, ...] = ()  # rank of each fully connected layer of the head, sec. 3.1; none: they are whole

    def __post_init__(self) -> None:
        if not self.strides or (not self.width and len(self.strides) > 1):
            raise ValueError("several maps need a pyramid: width must be above 0")
        if self.box.stage:
            raise ValueError("box.stage: fully connected layers judge the regions here")
        if not 0 <= self.background_iou <= self.box.positive_iou:
            raise ValueError("0 <= background_iou <= box.positive_iou must hold")
        if self.svd and (len(self.svd) != len(self.box.fcs) or min(self.svd) < 1):
            raise ValueError(f"svd: {len(self.box.fcs)} layers need as many ranks, each at least 1")


class FastRCNN(Detector):
    """Maps, RoI pooling, and the head that judges proposals. Built by `build`."""

    takes_proposals: ClassVar[bool] = True

    def __init__(self, config: FastRCNNConfig, backbone: Backbone, neck: nn.Module, channels: int) -> None:
        super().__init__()
        self.config = config
        self.backbone, self.neck = backbone, neck
        self.pool = RoIFeatures(config.strides, config.pool)
        self.head = BoxHead(channels, config.pool.size, config.box)
        for index, rank in zip(_linear_places(self.head.fcs), config.svd, strict=False):
            whole: Any = self.head.fcs[index]
            self.head.fcs[index] = LowRank(whole.in_features, whole.out_features, rank)
        self.predictor = BoxPredictor(self.head.channels, config.num_classes)
        self.coder = BoxCoder(config.box.weights)
        self.sampler = RegionSampler(config.box)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> a map for each stride."""
        maps: list[Tensor] = self.neck(self.backbone(padded(images, max(self.config.strides))))
        return maps

    def judge(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """For each picture regions (P, 4) -> logits (S, 1 + K), deltas (S, K, 4), picture by picture."""
        logits, deltas = self.predictor(self.head(self.pool(maps, boxes)))
        return logits, deltas

    def detect(self, images: Tensor, proposals: Sequence[Tensor] | None = None) -> RawDetections:
        """Every proposal moved as each class wants it, boxes (N, P, K, 4), cut to the frame; not yet suppressed.

        P is that of the picture with the most; what others lack has score 0. Without proposals each frame is one.
        """
        proposals = whole_frames(images) if proposals is None else proposals
        counts = [len(boxes) for boxes in proposals]
        logits, deltas = self.judge(self(images), proposals)
        boxes = self.coder.decode(deltas, torch.cat(list(proposals))[:, None])
        boxes = clipped(boxes, sizes_of(images, None)[:1].expand(len(boxes), 2))
        scores = logits.softmax(dim=1)[:, 1:]
        filled = (pad_sequence(rows.split(counts), batch_first=True) for rows in (boxes, scores))
        return RawDetections(*filled)

    def rehearse(self, images: Tensor) -> None:
        """See `Detector.rehearse`: as many regions as it wants proposals."""
        maps = self(images)
        self.predictor(self.head(self.pool.blank(maps, self.config.proposals.count * images.shape[0])))

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """class and box of the sampled proposals; without any object box is zero, without any region both are."""
        samples = []
        for target in targets:
            truth = Truth.of(target)
            samples.append(self.sampler(self._worth_learning(_proposals_of(target), truth), truth))
        logits, deltas = self.judge(self(images), [sample.boxes for sample in samples])
        return region_losses(logits, deltas, samples, self.config.box.beta)

    def _worth_learning(self, proposals: Tensor, truth: Truth) -> Tensor:
        """The proposals that overlap an object by `background_iou`; all of a picture without objects."""
        if not len(truth.boxes):
            return proposals
        return proposals[iou(truth.boxes, proposals).amax(dim=0) >= self.config.background_iou]

    def adapted(self, state: Mapping[str, Tensor], classes: Mapping[int, int]) -> dict[str, Tensor]:
        """Whole layers of a checkpoint become two each where this model has such (sec. 3.1)."""
        changed = dict(state)
        for index, rank in zip(_linear_places(self.head.fcs), self.config.svd, strict=False):
            name = f"head.fcs.{index}"
            if f"{name}.weight" in changed:
                weight, bias = (changed.pop(f"{name}.{part}") for part in ("weight", "bias"))
                changed |= {f"{name}.{part}": x for part, x in factors(weight, bias, rank).items()}
        return super().adapted(changed, classes)

    def class_rows(self) -> dict[str, ClassRows]:
        """Those of the two sibling answers."""
        return BoxPredictor.class_rows("predictor")


class LowRank(nn.Sequential):
    """A fully connected layer of at most this rank: two in its place, the first without biases (sec. 3.1)."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        rank = min(rank, inputs, outputs)
        super().__init__(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs))


def factors(weight: Tensor, bias: Tensor, rank: int) -> dict[str, Tensor]:
    """(out, in), (out,) -> the tensors of a `LowRank` that comes as near as any of its rank (eq. 5)."""
    u, values, v = torch.linalg.svd(weight.double(), full_matrices=False)
    first, second = values[:rank, None] * v[:rank], u[:, :rank]
    tensors = {"0.weight": first, "1.weight": second, "1.bias": bias}
    return {name: tensor.to(weight.dtype).contiguous() for name, tensor in tensors.items()}


def compressed(config: FastRCNNConfig, state: Mapping[str, Tensor], ranks: Sequence[int]) -> tuple[Any, dict[str, Any]]:
    """Config and tensors of a trained model, its head's layers cut down to these ranks, one for each (sec. 3.1).

    A rank that saves nothing leaves its layer as good as it was. Raises DetsegError for a model that is compressed
    already and for ranks that do not fit.
    """
    if config.svd:
        raise DetsegError(f"its head is compressed already, to ranks {', '.join(map(str, config.svd))}")
    try:
        settings = replace(config, svd=tuple(ranks))
    except ValueError as error:
        raise DetsegError(str(error)) from error
    return settings, build(settings).adapted(state, {k: k for k in range(config.num_classes)})


def _proposals_of(target: Target) -> Tensor:
    return target.boxes[:0] if target.proposals is None else target.proposals


def _linear_places(layers: nn.Sequential) -> list[int]:
    return [i for i, layer in enumerate(layers) if isinstance(layer, (nn.Linear, LowRank))]


def build(
    config: FastRCNNConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> FastRCNN:
    """The detector of `config`; `backbone_weights` and `progress` as `build_backbone` takes them."""
    backbone = build_backbone(config.backbone, strides=config.strides, weights=backbone_weights, progress=progress)
    if not config.width:
        return FastRCNN(config, backbone, nn.Identity(), backbone.features[-1].channels)
    return FastRCNN(config, backbone, FeaturePyramid(backbone.features, config.width), config.width)


def configure(num_classes: int, options: Mapping[str, Any], anchors: Callable[[int], Any] | None) -> FastRCNNConfig:
    """The config for new data: `options` over the defaults. Raises DetsegError for one that there is not or not so."""
    try:
        return grouped({**options, "num_classes": num_classes}, FastRCNNConfig(1))
    except (TypeError, ValueError) as error:
        raise DetsegError(f"Fast R-CNN cannot be built so: {error}") from error


def config_from_json(values: dict[str, Any]) -> FastRCNNConfig:
    """The config from a checkpoint's JSON (lists become tuples)."""
    return grouped(values, FastRCNNConfig(1))


def config_to_json(config: FastRCNNConfig) -> dict[str, Any]:
    """The config as plain JSON values, flat."""
    return flat(config)
