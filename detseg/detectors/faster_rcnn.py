"""Faster R-CNN: a network that proposes regions and one that judges them, on the same maps.

S. Ren, K. He, R. Girshick, J. Sun: Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks,
2015, arXiv 1506.01497 ("paper");
T.-Y. Lin et al.: Feature Pyramid Networks for Object Detection, 2017, arXiv 1612.03144 ("FPN").

    paper                                              here
    sec. 3.1, region proposal network                  `parts.proposals`
    sec. 3.1.1, anchors                                `parts.anchor_grid`
    sec. 3.1.2, loss of the proposals, eq. 1 and 2     `RegionProposals.losses`, `parts.box_coder`
    sec. 3.1.3, sampling                               `parts.sampler`
    sec. 3.2, approximate joint training               `FasterRCNN.losses`: proposals carry no gradient
    Fast R-CNN sec. 2, the judging half                `parts.roi_features`, `parts.box_heads`
    sec. 3.3, 300 proposals, suppression at 0.7        `ProposalConfig`
    FPN sec. 4.1 and 4.2, maps, sizes, eq. 1           `parts.region_maps`, `RoIFeatures.level_of`

Differences from the papers:
- Any backbone of the shared module. `faster-rcnn` is light: a narrow pyramid from stride 8 on, small anchors, two
  fully connected layers of 256.
- RoIAlign instead of RoI pooling unless `pool.kind` says "pool".
- Anchors that reach over the border are learnt and cut only as proposals (`rpn.inside_only` for the paper's way).
- Ignored regions (crowds, difficult objects) are neither objects nor background, in both halves.
- fc6 and fc7 of the VGG16 variant start at random, not from VGG's classifier.

Shapes: N pictures, S regions over all pictures, P proposals of a picture, K classes. Boxes are xyxy pixels of the
network's frame. Pictures of different sizes lie at the top left of their frames: sizes_hw (N, 2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from detseg.detectors.contract import Detector, Target
from detseg.errors import DetsegError
from detseg.parts.box_coder import BoxCoder
from detseg.parts.box_heads import BoxConfig, BoxHead, BoxPredictor, RegionSampler, StageHead, region_losses
from detseg.parts.frames import clipped, padded, sizes_of
from detseg.parts.ground_truth import Truth
from detseg.parts.grouped_settings import flat, grouped
from detseg.parts.proposals import Answers, ProposalConfig, RegionProposals
from detseg.parts.region_maps import MapsConfig, RegionMaps, build_region_maps
from detseg.parts.roi_features import PoolConfig, RoIFeatures
from detseg.results import RawDetections

_LEAST_SIDE = 0.01  # pixels; a smaller box shows nothing


@dataclass(frozen=True)
class FasterRCNNConfig:
    """What makes a Faster R-CNN; stored in its checkpoint, each entry of a group as group.entry."""

    num_classes: int
    backbone: str = "efficientnet_lite0"
    maps: MapsConfig = field(default_factory=MapsConfig)
    rpn: ProposalConfig = field(default_factory=lambda: ProposalConfig(sizes=((32,), (64,), (128,), (256,))))
    pool: PoolConfig = field(default_factory=PoolConfig)
    box: BoxConfig = field(default_factory=BoxConfig)

    def __post_init__(self) -> None:
        if len(self.rpn.anchors) != self.maps.count:
            raise ValueError(f"{self.maps.count} maps need anchors for as many, got {len(self.rpn.anchors)}")
        if self.box.stage and self.maps.width:
            raise ValueError("a stage of the backbone judges regions of one plain map: maps.width must be 0")


class FasterRCNN(Detector):
    """Maps, proposals, and the head that judges them. Built by `build`."""

    takes_sizes = True
    exportable = False  # what is pooled depends on what is found

    def __init__(self, config: FasterRCNNConfig, maps: RegionMaps) -> None:
        super().__init__()
        self.config = config
        self.backbone, self.neck = maps.backbone, maps.neck
        self.rpn = RegionProposals(maps.channels, config.rpn)
        self.pool = RoIFeatures(config.maps.strides, config.pool)
        self.head: BoxHead | StageHead
        if config.box.stage:
            self.head = StageHead(maps.last_stage, maps.last_channels)
        else:
            self.head = BoxHead(maps.channels, config.pool.size, config.box)
        self.predictor = BoxPredictor(self.head.channels, config.num_classes)
        self.coder = BoxCoder(config.box.weights)
        self.sampler = RegionSampler(config.box)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Answers]:
        """(N, 3, H, W) -> the maps, and what the proposal network says of them."""
        images = padded(images, max(self.config.maps.strides))
        maps: list[Tensor] = self.neck(self.backbone(images))
        return maps, self.rpn(maps, (images.shape[2], images.shape[3]))

    def judge(self, maps: list[Tensor], boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """For each picture regions (S_i, 4) -> logits (S, 1 + K), deltas (S, K, 4), picture by picture."""
        logits, deltas = self.predictor(self.head(self.pool(maps, boxes)))
        return logits, deltas

    def detect(self, images: Tensor, sizes_hw: Tensor | None = None) -> RawDetections:
        """Every proposal moved as each class wants it, boxes (N, P, K, 4), cut to its picture; not yet suppressed.

        P is the same for all pictures: proposals that there are not have score 0.
        """
        sizes = sizes_of(images, sizes_hw)
        maps, answers = self(images)
        proposals = self.rpn.propose(answers, sizes)
        counts = [len(p) for p in proposals]
        logits, deltas = self.judge(maps, proposals)
        boxes = self.coder.decode(deltas, torch.cat(proposals)[:, None])  # (S, K, 4)
        boxes = clipped(boxes, sizes.repeat_interleave(torch.tensor(counts, device=sizes.device), dim=0))
        scores = logits.softmax(dim=1)[:, 1:]
        scores = scores * ((boxes[..., 2:] - boxes[..., :2]) >= _LEAST_SIDE).all(dim=-1)
        raw = RawDetections(*(self._filled(x, counts) for x in (boxes, scores)))
        return raw

    def _filled(self, x: Tensor, counts: list[int]) -> Tensor:
        """(S, ...) -> (N, P, ...): each picture's rows, then zeros."""
        filled = x.new_zeros(len(counts), self.config.rpn.kept, *x.shape[1:])
        for row, part in zip(filled, x.split(counts), strict=True):
            row[: len(part)] = part
        return filled

    def losses(self, images: Tensor, targets: list[Target], sizes_hw: Tensor | None = None) -> dict[str, Tensor]:
        """objectness and rpn_box of the sampled anchors, class and box of the sampled proposals.

        Without any object rpn_box and box are zero.
        """
        sizes = sizes_of(images, sizes_hw)
        maps, answers = self(images)
        truths = [Truth.of(target) for target in targets]
        proposals = self.rpn.losses(answers, truths, sizes)
        found = self.rpn.propose(answers, sizes, training=True)
        samples = [self.sampler(boxes, truth) for boxes, truth in zip(found, truths, strict=True)]
        logits, deltas = self.judge(maps, [sample.boxes for sample in samples])
        return proposals | region_losses(logits, deltas, samples, self.config.box.beta)


def build(
    config: FasterRCNNConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> FasterRCNN:
    """The detector of `config`; `backbone_weights` and `progress` as `build_backbone` takes them."""
    last_stage = config.box.stage
    return FasterRCNN(
        config,
        build_region_maps(
            config.backbone, config.maps, last_stage=last_stage, weights=backbone_weights, progress=progress
        ),
    )


def configure(
    num_classes: int, options: Mapping[str, Any], anchors: Callable[[int], Any] | None
) -> FasterRCNNConfig:
    """The config for new data: `options` over the defaults.

    The option `clusters` says how many anchors to make from the training boxes by `anchors(count)`, (count, 2) widths
    and heights in pixels of the frame, the smallest for the finest map; with 0, or where it answers None, `rpn.sizes`
    count. Raises DetsegError for an unknown option or one that does not fit.
    """
    settings = dict(options)
    clusters = settings.pop("clusters", 0)
    try:
        config = config_from_json({**settings, "num_classes": num_classes})
        found = anchors(int(clusters)) if clusters and anchors is not None and config.rpn.shapes is None else None
        if found is None:
            return config
        return config_from_json({**config_to_json(config), "rpn.shapes": shared_out(found, config.maps.count)})
    except (TypeError, ValueError) as error:
        raise DetsegError(f"Faster R-CNN cannot be built so: {error}") from error


def shared_out(wh: Sequence[Sequence[float]], maps: int) -> list[list[tuple[float, float]]]:
    """Anchors in order of size -> as many for each map. Raises ValueError unless they can be shared out evenly."""
    if len(wh) % maps:
        raise ValueError(f"clusters: {len(wh)} anchors cannot be shared out evenly to {maps} maps")
    each = len(wh) // maps
    sizes = [(round(float(w), 1), round(float(h), 1)) for w, h in wh]
    return [sizes[i * each : (i + 1) * each] for i in range(maps)]


def config_from_json(values: dict[str, Any]) -> FasterRCNNConfig:
    """The config from a checkpoint's JSON (lists become tuples)."""
    return grouped(FasterRCNNConfig, values, flat(FasterRCNNConfig(1)))


def config_to_json(config: FasterRCNNConfig) -> dict[str, Any]:
    """The config as plain JSON values, flat."""
    return flat(config)
