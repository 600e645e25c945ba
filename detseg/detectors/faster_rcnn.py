"""Faster R-CNN: a network that proposes regions and one that judges them, on the same maps.

S. Ren, K. He, R. Girshick, J. Sun: Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks,
2015, arXiv 1506.01497 ("paper");
T.-Y. Lin et al.: Feature Pyramid Networks for Object Detection, 2017, arXiv 1612.03144 ("FPN").

    paper                                              here
    sec. 3.1, region proposal network                  `parts.proposals`
    sec. 3.1.1, anchors                                `parts.anchor_grid`
    sec. 3.1.2, loss of the proposals, eq. 1 and 2     `RegionProposals.losses`, `parts.box_coder`
    sec. 3.1.3, sampling                               `parts.sampler`
    sec. 3.2, approximate joint training               `RegionNetwork.lessons`: proposals carry no gradient
    Fast R-CNN sec. 2, the judging half                `parts.roi_features`, `parts.box_heads`
    sec. 3.3, 300 proposals, suppression at 0.7        `ProposalConfig`
    FPN sec. 4.1 and 4.2, maps, sizes, eq. 1           `backbones.region_maps`, `RoIFeatures.level_of`

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

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from detseg.backbones.region_maps import build_region_maps
from detseg.detectors.contract import Detector, Target
from detseg.parts.frames import sizes_of
from detseg.parts.ground_truth import Truth
from detseg.parts.grouped_settings import flat, grouped
from detseg.parts.region_network import RegionConfig, RegionNetwork, filled, region_config
from detseg.results import RawDetections


@dataclass(frozen=True)
class FasterRCNNConfig(RegionConfig):
    """What makes a Faster R-CNN; stored in its checkpoint, each entry of a group as group.entry."""


class FasterRCNN(RegionNetwork, Detector):
    """Maps, proposals, and the head that judges them. Built by `build`."""

    def detect(self, images: Tensor, sizes_hw: Tensor | None = None) -> RawDetections:
        """Every proposal moved as each class wants it, boxes (N, P, K, 4), cut to its picture; not yet suppressed.

        P is the same for all pictures: proposals that there are not have score 0.
        """
        _, (boxes, scores, counts) = self.candidates(images, sizes_of(images, sizes_hw))
        length = self.config.rpn.kept
        return RawDetections(filled(boxes, counts, length), filled(scores, counts, length))

    def rehearse(self, images: Tensor) -> None:
        """`detect` with as many proposals as it judges at most (`rpn.kept`)."""
        self.rehearsed(images)

    def losses(self, images: Tensor, targets: list[Target], sizes_hw: Tensor | None = None) -> dict[str, Tensor]:
        """objectness and rpn_box of the sampled anchors, class and box of the sampled proposals.

        Without any object rpn_box and box are zero.
        """
        _, _, losses = self.lessons(images, [Truth.of(t) for t in targets], sizes_of(images, sizes_hw))
        return losses


def build(
    config: FasterRCNNConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> FasterRCNN:
    """The detector of `config`; `backbone_weights` and `progress` as `build_backbone` takes them."""
    settings = {**asdict(config.maps), "last_stage": config.box.stage}
    maps = build_region_maps(config.backbone, **settings, weights=backbone_weights, progress=progress)
    return FasterRCNN(config, maps)


def configure(num_classes: int, options: Mapping[str, Any], anchors: Callable[[int], Any] | None) -> FasterRCNNConfig:
    """The config for new data; see `region_config`, which has the option `clusters` besides those of the config."""
    return region_config(FasterRCNNConfig, "Faster R-CNN", num_classes, options, anchors)


def config_from_json(values: dict[str, Any]) -> FasterRCNNConfig:
    """The config from a checkpoint's JSON (lists become tuples)."""
    return grouped(values, FasterRCNNConfig(1))


def config_to_json(config: FasterRCNNConfig) -> dict[str, Any]:
    """The config as plain JSON values, flat."""
    return flat(config)
