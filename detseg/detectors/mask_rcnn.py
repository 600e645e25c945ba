"""Mask R-CNN: Faster R-CNN with a third answer, the shape of each object.

K. He, G. Gkioxari, P. Dollár, R. Girshick: Mask R-CNN, 2017, arXiv 1703.06870 ("paper").

    paper                                              here
    sec. 3, both stages of Faster R-CNN                `parts.region_network`
    sec. 3, loss L_cls + L_box + L_mask                `MaskRCNN.losses`
    sec. 3, mask of the object's own class             `parts.mask_head.mask_loss`
    sec. 3, RoIAlign                                   `parts.roi_features`
    fig. 4, right, mask head on a pyramid              `MaskHead`
    sec. 3.1, masks of the 100 best boxes only         `MaskRCNN.detect`, `FoundConfig`

Differences from the paper:
- Any backbone of the shared module. `mask-rcnn` is light: a narrow pyramid, two fully connected layers of 256, a mask
  head half as wide.
- A mask is taught by RoIAlign of the truth's mask, in shares of each part, not in zeros and ones (as torchvision).
- Objects are chosen inside the network, since only they get a mask: `found.min_score`, `.nms_iou`, `.kept`. Whoever
  selects afterwards can only be stricter.

Shapes: N pictures, D objects of a picture, S regions over all pictures, K classes, M sides of a mask. Boxes are xyxy
pixels of the network's frame. Pictures of different sizes lie at the top left of their frames: sizes_hw (N, 2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from detseg.backbones.region_maps import build_region_maps
from detseg.detectors.contract import Detector, Target
from detseg.errors import DataError
from detseg.parts.box_heads import Sample
from detseg.parts.class_rows import ClassRows
from detseg.parts.frames import sizes_of
from detseg.parts.ground_truth import Truth
from detseg.parts.grouped_settings import flat, grouped
from detseg.parts.mask_head import MaskConfig, MaskHead, mask_loss
from detseg.parts.region_network import Candidates, Maps, RegionConfig, RegionNetwork, filled, region_config
from detseg.parts.roi_features import PoolConfig, RoIFeatures
from detseg.parts.suppression import grouped_nms
from detseg.results import RawDetections

NEEDS_MASKS = True  # of the data it is trained on


@dataclass(frozen=True)
class FoundConfig:
    """Which candidates are objects, and so get a mask."""

    min_score: float = 0.05
    nms_iou: float = 0.5
    kept: int = 100  # a picture, sec. 3.1

    def __post_init__(self) -> None:
        if not (0 <= self.min_score <= 1 and 0 <= self.nms_iou <= 1 and self.kept >= 1):
            raise ValueError("min_score and nms_iou must lie in [0, 1], kept must be at least 1")


@dataclass(frozen=True)
class MaskRCNNConfig(RegionConfig):
    """What makes a Mask R-CNN; stored in its checkpoint, each entry of a group as group.entry."""

    mask: MaskConfig = field(default_factory=MaskConfig)
    found: FoundConfig = field(default_factory=FoundConfig)


class MaskRCNN(RegionNetwork, Detector):
    """Maps, proposals, the head that judges them, the head that outlines them. Built by `build`."""

    config: MaskRCNNConfig

    def __init__(self, config: MaskRCNNConfig, maps: Maps) -> None:
        super().__init__(config, maps)
        square = PoolConfig(config.mask.size, "align", config.mask.sampling, config.pool.canonical)
        self.mask_pool = RoIFeatures(config.maps.strides, square)
        self.mask_head = MaskHead(maps.channels, config.num_classes, config.mask)

    def class_rows(self) -> dict[str, ClassRows]:
        """Those of the two sibling answers, and the masks."""
        return {**super().class_rows(), "mask_head.logits": ClassRows()}

    def detect(self, images: Tensor, sizes_hw: Tensor | None = None) -> RawDetections:
        """The objects: boxes (N, D, 4), scores (N, D, K) of which only its class has one, masks (N, D, M, M).

        D is `found.kept` for all pictures: objects that there are not have score 0.
        """
        maps, candidates = self.candidates(images, sizes_of(images, sizes_hw))
        boxes, scores, labels, counts = self._found(candidates)
        logits = self.mask_head(self.mask_pool(maps, boxes.split(counts)))
        masks = logits[torch.arange(len(labels), device=labels.device), labels].sigmoid()
        each = scores.new_zeros(len(labels), self.config.num_classes).scatter(1, labels[:, None], scores[:, None])
        return RawDetections(*(filled(x, counts, self.config.found.kept) for x in (boxes, each, masks)))

    def rehearse(self, images: Tensor) -> None:
        """`detect` with as many proposals and objects as there may be at most (`rpn.kept`, `found.kept`)."""
        maps = self.rehearsed(images)
        self.mask_head(self.mask_pool.blank(maps, self.config.found.kept * images.shape[0]))

    def _found(self, candidates: Candidates) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """boxes (S, 4), scores (S,), labels (S,) of what is found, best first in each picture; how many in each."""
        config, found = self.config.found, []
        parts = (candidates.boxes.split(candidates.counts), candidates.scores.split(candidates.counts))
        for boxes, scores in zip(*parts, strict=True):
            rows, labels = (scores > config.min_score).nonzero(as_tuple=True)
            boxes, scores = boxes[rows, labels], scores[rows, labels]
            stays = grouped_nms(boxes, scores, labels, config.nms_iou)[: config.kept]
            found.append((boxes[stays], scores[stays], labels[stays]))
        boxes, scores, labels = (torch.cat(column) for column in zip(*found, strict=True))
        return boxes, scores, labels, [len(one[0]) for one in found]

    def losses(self, images: Tensor, targets: list[Target], sizes_hw: Tensor | None = None) -> dict[str, Tensor]:
        """Those of Faster R-CNN, and mask: of the sampled proposals that answer for an object. Zero without any.

        Raises DataError where a picture with objects has no masks.
        """
        truths = [Truth.of(target) for target in targets]
        masks = [_masks_of(target, images) for target in targets]
        maps, samples, losses = self.lessons(images, truths, sizes_of(images, sizes_hw))
        return losses | {"mask": self._mask_loss(maps, samples, masks)}

    def _mask_loss(self, maps: list[Tensor], samples: Sequence[Sample], masks: Sequence[Tensor]) -> Tensor:
        positive = [sample.classes > 0 for sample in samples]
        boxes = [sample.boxes[p] for sample, p in zip(samples, positive, strict=True)]
        truths = [sample.truths[p] for sample, p in zip(samples, positive, strict=True)]
        labels = torch.cat([sample.classes[p] - 1 for sample, p in zip(samples, positive, strict=True)])
        return mask_loss(self.mask_head(self.mask_pool(maps, boxes)), labels, boxes, truths, masks)


def _masks_of(target: Target, images: Tensor) -> Tensor:
    """(T, H, W) of a picture's objects, in the order of `Truth.of`."""
    if target.masks is not None:
        return target.masks[~target.ignored]
    if not bool((~target.ignored).any()):
        return images.new_zeros(0, *images.shape[-2:])
    raise DataError("Mask R-CNN learns from masks and the data has boxes alone: give outlines, or train -m faster-rcnn")


def build(
    config: MaskRCNNConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> MaskRCNN:
    """The detector of `config`; `backbone_weights` and `progress` as `build_backbone` takes them."""
    settings = {**asdict(config.maps), "last_stage": config.box.stage}
    maps = build_region_maps(config.backbone, **settings, weights=backbone_weights, progress=progress)
    return MaskRCNN(config, maps)


def configure(num_classes: int, options: Mapping[str, Any], anchors: Callable[[int], Any] | None) -> MaskRCNNConfig:
    """The config for new data; see `region_config`, which has the option `clusters` besides those of the config."""
    return region_config(MaskRCNNConfig, "Mask R-CNN", num_classes, options, anchors)


def config_from_json(values: dict[str, Any]) -> MaskRCNNConfig:
    """The config from a checkpoint's JSON (lists become tuples)."""
    return grouped(values, MaskRCNNConfig(1))


def config_to_json(config: MaskRCNNConfig) -> dict[str, Any]:
    """The config as plain JSON values, flat."""
    return flat(config)
