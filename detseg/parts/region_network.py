"""What Faster R-CNN and Mask R-CNN share: maps, proposals from them, and the head that judges these.

S. Ren, K. He, R. Girshick, J. Sun 2015, Faster R-CNN, arXiv 1506.01497; on a pyramid: T.-Y. Lin et al. 2017, Feature
Pyramid Networks, arXiv 1612.03144.

Shapes: N pictures, S regions over all pictures, K classes. Boxes are xyxy pixels of the network's frame; sizes_hw
(N, 2): how much of each frame is the picture, from the top left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from detseg.errors import DetsegError
from detseg.parts.box_coder import BoxCoder
from detseg.parts.box_heads import BoxConfig, BoxHead, BoxPredictor, RegionSampler, Sample, StageHead, region_losses
from detseg.parts.class_rows import ClassRows
from detseg.parts.frames import clipped, padded
from detseg.parts.ground_truth import Truth
from detseg.parts.grouped_settings import flat, grouped
from detseg.parts.proposals import Answers, ProposalConfig, RegionProposals
from detseg.parts.roi_features import PoolConfig, RoIFeatures

_LEAST_SIDE = 0.01  # pixels; a smaller box shows nothing


@dataclass(frozen=True)
class MapsConfig:
    """Which maps there are; the defaults are light ones."""

    strides: tuple[int, ...] = (8, 16, 32)  # of the backbone's maps
    width: int = 96  # channels of the pyramid (256 in the paper); 0: the backbone's one map as it is
    norm: bool = False  # batch norm in the pyramid
    extra: bool = True  # one coarser map by taking every second pixel of the last, for proposals only
    both_ends: bool = False  # of a MobileNet the first and the last map of stride 32, and no finer ones
    norm_eps: float | None = None  # of the backbone's batch norms, where other than its own

    def __post_init__(self) -> None:
        if not self.strides or (not self.width and len(self.strides) > 1):
            raise ValueError("several maps need a pyramid: width must be above 0")
        if self.both_ends and self.strides != (32, 32):
            raise ValueError("both ends of a MobileNet's last stage have strides (32, 32)")

    @property
    def count(self) -> int:
        """How many maps proposals are made from."""
        return len(self.strides) + (1 if self.width and self.extra else 0)


@dataclass(frozen=True)
class RegionConfig:
    """What makes a network of two stages; stored in its checkpoint, each entry of a group as group.entry."""

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


Config = TypeVar("Config", bound=RegionConfig)


class Maps(Protocol):
    """The parts that make maps: backbone, what follows it, the maps' channels, a stage of the backbone for regions."""

    @property
    def backbone(self) -> nn.Module: ...

    @property
    def neck(self) -> nn.Module: ...

    @property
    def channels(self) -> int: ...

    @property
    def last_stage(self) -> Sequence[nn.Module]: ...

    @property
    def last_channels(self) -> int: ...


class Candidates(NamedTuple):
    """Proposals as they were judged: boxes (S, K, 4), one for each class, scores (S, K), how many of each picture."""

    boxes: Tensor
    scores: Tensor
    counts: list[int]


class RegionNetwork(nn.Module):
    """Maps, proposals, and the head that judges them."""

    takes_sizes: ClassVar[bool] = True
    config: RegionConfig

    def __init__(self, config: RegionConfig, maps: Maps) -> None:
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

    def class_rows(self) -> dict[str, ClassRows]:
        """Those of the two sibling answers."""
        return BoxPredictor.class_rows("predictor")

    def judge(self, maps: list[Tensor], boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """For each picture regions (S_i, 4) -> logits (S, 1 + K), deltas (S, K, 4), picture by picture."""
        logits, deltas = self.predictor(self.head(self.pool(maps, boxes)))
        return logits, deltas

    def candidates(self, images: Tensor, sizes_hw: Tensor) -> tuple[list[Tensor], Candidates]:
        """The maps, and every proposal moved as each class wants it, cut to its picture; not yet suppressed."""
        maps, answers = self(images)
        proposals = self.rpn.propose(answers, sizes_hw)
        counts = [len(p) for p in proposals]
        logits, deltas = self.judge(maps, proposals)
        boxes = self.coder.decode(deltas, torch.cat(proposals)[:, None])
        boxes = clipped(boxes, sizes_hw.repeat_interleave(torch.tensor(counts, device=sizes_hw.device), dim=0))
        shows = ((boxes[..., 2:] - boxes[..., :2]) >= _LEAST_SIDE).all(dim=-1)
        return maps, Candidates(boxes, logits.softmax(dim=1)[:, 1:] * shows, counts)

    def rehearsed(self, images: Tensor) -> list[Tensor]:
        """The maps, once both stages have run on as many regions as are judged at most; for counting."""
        maps, _ = self(images)
        self.predictor(self.head(self.pool.blank(maps, self.config.rpn.kept * images.shape[0])))
        return maps

    def lessons(
        self, images: Tensor, truths: Sequence[Truth], sizes_hw: Tensor
    ) -> tuple[list[Tensor], list[Sample], dict[str, Tensor]]:
        """The maps, the regions that are learnt, and the losses of both stages (eq. 1).

        Proposals carry no gradient: approximate joint training (sec. 3.2).
        """
        maps, answers = self(images)
        proposing = self.rpn.losses(answers, truths, sizes_hw)
        proposals = self.rpn.propose(answers, sizes_hw, training=True)
        samples = [self.sampler(boxes, truth) for boxes, truth in zip(proposals, truths, strict=True)]
        logits, deltas = self.judge(maps, [sample.boxes for sample in samples])
        return maps, samples, proposing | region_losses(logits, deltas, samples, self.config.box.beta)


def filled(x: Tensor, counts: Sequence[int], length: int) -> Tensor:
    """(S, ...) in runs of `counts` -> (N, length, ...): each picture's rows, then zeros."""
    rows = x.new_zeros(len(counts), length, *x.shape[1:])
    for row, part in zip(rows, x.split(list(counts)), strict=True):
        row[: len(part)] = part
    return rows


def region_config(
    kind: type[Config],
    name: str,
    num_classes: int,
    options: Mapping[str, Any],
    anchors: Callable[[int], Any] | None,
) -> Config:
    """The config for new data: `options` over the defaults.

    The option `clusters` says how many anchors to make from the training boxes by `anchors(count)`, (count, 2) widths
    and heights in pixels of the frame, the smallest for the finest map; with 0, or where it answers None, `rpn.sizes`
    count. Raises DetsegError, naming the model, for an unknown option or one that does not fit.
    """
    settings = dict(options)
    clusters = settings.pop("clusters", 0)
    usual = kind(1)
    try:
        config = grouped({**settings, "num_classes": num_classes}, usual)
        found = anchors(int(clusters)) if clusters and anchors is not None and config.rpn.shapes is None else None
        if found is None:
            return config
        return grouped({**flat(config), "rpn.shapes": _shared_out(found, config.maps.count)}, usual)
    except (TypeError, ValueError) as error:
        raise DetsegError(f"{name} cannot be built so: {error}") from error


def _shared_out(wh: Sequence[Sequence[float]], maps: int) -> list[list[tuple[float, float]]]:
    """Anchors in order of size -> as many for each map. Raises ValueError unless they can be shared out evenly."""
    if len(wh) % maps:
        raise ValueError(f"clusters: {len(wh)} anchors cannot be shared out evenly to {maps} maps")
    each = len(wh) // maps
    sizes = [(round(float(w), 1), round(float(h), 1)) for w, h in wh]
    return [sizes[i * each : (i + 1) * each] for i in range(maps)]
