"""R-FCN: every layer sees the whole picture; what a region holds is voted by maps that each know one part of it.

J. Dai, Y. Li, K. He, J. Sun: R-FCN: Object Detection via Region-based Fully Convolutional Networks, 2016,
arXiv 1605.06409 ("paper"; its section 2 is told by the names of its paragraphs).

    paper                                              here
    sec. 2, "Backbone architecture", 1024-d 1x1        `ScoreMaps.reduce`
    sec. 2, "Position-sensitive score maps"            `ScoreMaps`
    eq. 1, position-sensitive RoI pooling              `position_pool`
    sec. 2, voting by averaging                        `vote`
    sec. 2, boxes by 4 k^2 maps, class-agnostic        `ScoreMaps.boxes`
    sec. 2, "Training", loss                           `region_losses`
    sec. 2, "Training", online hard example mining     `hardest`
    sec. 2, "A trous and stride"                       `build`: stage 5 dilated; proposals from stage 4
    Faster R-CNN, proposals                            `parts.proposals`

Differences from the paper:
- Proposals and judgement are trained jointly (Faster R-CNN, sec. 3.2), not in four alternating steps.
- Any backbone of the shared module that has maps of stride 16 and 32. `rfcn` is light: 3 x 3 parts, 256 channels
  before the score maps, parts read by bilinear interpolation (`head.kind`, as RoIAlign), since whole cells of 16
  pixels are coarse for small frames.
- The truth's own boxes are among the regions that are learnt (the authors' program).
- Ignored regions (crowds, difficult objects) are neither objects nor background, in both halves.
- Suppression of the answers is left to whoever selects (0.3 in the paper, 0.5 usual here).

Shapes: N pictures, S regions over all pictures, K classes, k parts along each side of a region, D answers a region
(1 + K classes and 4 deltas). Boxes are xyxy pixels of the network's frame. Pictures of different sizes lie at the top
left of their frames: sizes_hw (N, 2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import ps_roi_align

from detseg.backbones.catalog import build_backbone
from detseg.backbones.spec import Backbone, BackboneError
from detseg.detectors.contract import Detector, Target
from detseg.errors import DetsegError
from detseg.parts.batch_share import normaliser
from detseg.parts.box_coder import BoxCoder
from detseg.parts.class_rows import ClassRows
from detseg.parts.frames import clipped, padded, sizes_of
from detseg.parts.ground_truth import Truth
from detseg.parts.grouped_settings import flat, grouped
from detseg.parts.matcher import BACKGROUND, UNDECIDED, Matcher
from detseg.parts.norms import BatchNorm
from detseg.parts.overlaps import inside_any, iou
from detseg.parts.proposals import Answers, ProposalConfig, RegionProposals
from detseg.parts.region_network import filled
from detseg.parts.sampler import balanced_sample
from detseg.results import RawDetections

_DEEPEST = 32  # stride of stage 5 as it is without dilation; the map before it makes the proposals
_LEAST_SIDE = 0.01  # pixels; a smaller box shows nothing


@dataclass(frozen=True)
class HeadConfig:
    """The score maps and how a region reads them; the defaults are the paper's numbers."""

    grid: int = 7  # k, sec. 4.1
    width: int = 1024  # channels of the 1x1 convolution after stage 5, "Backbone architecture"; 0: no such layer
    norm: bool = False  # batch norm behind it
    kind: Literal["pool", "align"] = "pool"  # eq. 1, or points read by bilinear interpolation
    sampling: int = 2  # such points along each side of a part

    def __post_init__(self) -> None:
        if min(self.grid, self.sampling) < 1 or self.width < 0:
            raise ValueError("head.grid and head.sampling must be at least 1, head.width at least 0")


@dataclass(frozen=True)
class LessonConfig:
    """Which regions teach what; the defaults are the paper's numbers."""

    positive_iou: float = 0.5  # "Training"; below, a region is background
    samples: int = 128  # B, regions a picture that are learnt, "Training"
    hardest: bool = True  # those with the highest loss; otherwise drawn as in Fast R-CNN, sec. 2.3
    positives: float = 0.25  # share of positives, at most, where they are drawn
    box_weight: float = 1.0  # lambda, "Training"
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)  # of the deltas (the authors' program)
    beta: float = 1.0  # where the box loss turns from square to linear (Fast R-CNN, eq. 3)

    def __post_init__(self) -> None:
        if self.samples < 1 or not 0 <= self.positives <= 1 or not 0 < self.positive_iou <= 1:
            raise ValueError("regions.samples must be at least 1, positives in [0, 1], positive_iou in (0, 1]")
        if self.box_weight < 0 or self.beta < 0 or min(self.weights) <= 0:
            raise ValueError("regions.box_weight and beta must be at least 0, weights above 0")


@dataclass(frozen=True)
class RFCNConfig:
    """What makes an R-FCN; stored in its checkpoint, each entry of a group as group.entry."""

    num_classes: int
    backbone: str = "resnet101"  # sec. 2
    stride: Literal[8, 16, 32] = 16  # of the score maps, "A trous and stride"; 32: nothing is dilated
    stage: Literal[4, 5] = 5  # whose maps judge, sec. 2; 4: fine maps of small networks cost less, stage 5 is left out
    rpn: ProposalConfig = field(default_factory=lambda: ProposalConfig(width=512, train_kept=300))  # N = 300, sec. 4.1
    head: HeadConfig = field(default_factory=HeadConfig)
    regions: LessonConfig = field(default_factory=LessonConfig)

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise ValueError("num_classes must be at least 1")
        if self.stage == 4 and self.stride == _DEEPEST:
            raise ValueError("stage 4 has a stride of 16 at most; take stride=16 or 8")
        if len(self.rpn.anchors) != 1:
            raise ValueError(f"proposals are made from one map, rpn.sizes are for {len(self.rpn.anchors)}")


class Seen(NamedTuple):
    """Of a batch: what the proposal network says, and the score maps (N, D * k * k, rows, columns)."""

    answers: Answers
    scores: Tensor


class RFCN(Detector):
    """Maps of stage 4, from which regions are proposed, and of stage 5, which judge them. Built by `build`.

    With `stage=4` the former do both.
    """

    takes_sizes: ClassVar[bool] = True

    def __init__(self, config: RFCNConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config, self.backbone = config, backbone
        proposing, judging = backbone.features[0], backbone.features[-1]
        self.stride = judging.stride
        self.rpn = RegionProposals(proposing.channels, config.rpn)
        self.head = ScoreMaps(judging.channels, config.num_classes, config.head)
        self.coder = BoxCoder(config.regions.weights)
        self.matcher = Matcher(config.regions.positive_iou, config.regions.positive_iou)

    def class_rows(self) -> dict[str, ClassRows]:
        """Parts of background, then of each class."""
        return {"head.classes": ClassRows(shared=self.config.head.grid**2, each=self.config.head.grid**2)}

    def forward(self, images: Tensor) -> Seen:
        """(N, 3, H, W) -> `Seen`."""
        images = padded(images, _DEEPEST)
        maps = self.backbone(images)
        answers = self.rpn([maps[0]], (images.shape[2], images.shape[3]))
        return Seen(answers, self.head(maps[-1]))

    def judge(self, scores: Tensor, boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """For each picture regions (S_i, 4) -> logits (S, 1 + K), deltas (S, 4), picture by picture."""
        votes = vote(position_pool(scores, boxes, self.config.head, 1 / self.stride))
        return votes[:, :-4], votes[:, -4:]

    def detect(self, images: Tensor, sizes_hw: Tensor | None = None) -> RawDetections:
        """Every proposal moved to its object, boxes (N, P, 4), cut to its picture; not yet suppressed.

        P is the same for all pictures: proposals that there are not have score 0.
        """
        sizes = sizes_of(images, sizes_hw)
        seen = self(images)
        proposals = self.rpn.propose(seen.answers, sizes)
        counts, length = [len(p) for p in proposals], self.config.rpn.kept
        logits, deltas = self.judge(seen.scores, proposals)
        limits = sizes.repeat_interleave(torch.tensor(counts, device=sizes.device), dim=0)
        boxes = clipped(self.coder.decode(deltas, torch.cat(proposals)), limits)
        shows = (boxes[:, 2:] - boxes[:, :2] >= _LEAST_SIDE).all(dim=1, keepdim=True)
        scores = logits.softmax(dim=1)[:, 1:] * shows
        return RawDetections(filled(boxes, counts, length), filled(scores, counts, length))

    def rehearse(self, images: Tensor) -> None:
        """The maps, which are all that costs: no layer stands behind the regions."""
        self(images)

    def losses(self, images: Tensor, targets: list[Target], sizes_hw: Tensor | None = None) -> dict[str, Tensor]:
        """objectness and rpn_box of the sampled anchors, class and box of the regions that are learnt.

        Without any object rpn_box and box are zero. Proposals carry no gradient.
        """
        sizes = sizes_of(images, sizes_hw)
        truths = [Truth.of(target) for target in targets]
        seen = self(images)
        proposals = self.rpn.propose(seen.answers, sizes, training=True)
        lessons = [self.lesson(boxes, truth) for boxes, truth in zip(proposals, truths, strict=True)]
        logits, deltas = self.judge(seen.scores, [lesson.boxes for lesson in lessons])
        return self.rpn.losses(seen.answers, truths, sizes) | region_losses(
            logits, deltas, lessons, self.config.regions
        )

    @torch.no_grad()
    def lesson(self, proposals: Tensor, truth: Truth) -> Lesson:
        """(P, 4) proposals of a picture, to which its truths are added -> what each should say."""
        boxes = torch.cat([proposals, truth.boxes.to(proposals.dtype)])
        match = self.matcher(iou(truth.boxes, boxes))
        positive = match >= 0
        classes = torch.zeros_like(match)
        classes[positive] = truth.labels[match[positive]] + 1
        classes[(match == BACKGROUND) & inside_any(boxes, truth.regions)] = UNDECIDED
        deltas = torch.zeros_like(boxes)
        deltas[positive] = self.coder.encode(truth.boxes[match[positive]], boxes[positive])
        return Lesson(boxes, classes, deltas)


class ScoreMaps(nn.Module):
    """Features -> for each answer k * k maps, one for each part of a region: those of the classes, then of the box."""

    def __init__(self, channels: int, classes: int, config: HeadConfig) -> None:
        super().__init__()
        self.reduce: nn.Module = nn.Identity()
        if config.width:
            conv = nn.Conv2d(channels, config.width, 1, bias=not config.norm)
            norm = [BatchNorm(config.width)] if config.norm else []
            self.reduce = nn.Sequential(conv, *norm, nn.ReLU(inplace=True))
        parts = config.grid**2
        self.classes = nn.Conv2d(config.width or channels, parts * (1 + classes), 1)
        self.boxes = nn.Conv2d(config.width or channels, parts * 4, 1)
        self._start(config)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, rows, columns) -> (N, D * k * k, rows, columns): of each answer its parts, row by row."""
        x = self.reduce(x)
        return torch.cat([self.classes(x), self.boxes(x)], dim=1).float()

    def _start(self, config: HeadConfig) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                if config.norm and layer not in (self.classes, self.boxes):
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                else:
                    nn.init.normal_(layer.weight, std=0.01)  # as the layers that Fast R-CNN adds, its sec. 2.3
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)


def position_pool(maps: Tensor, boxes: Sequence[Tensor], config: HeadConfig, scale: float) -> Tensor:
    """(N, D * k * k, rows, columns) maps, for each picture (S_i, 4) boxes -> (S, D, k, k), eq. 1.

    Part (i, j) of a region is the mean of its own map over cells floor(i h / k) to ceil((i + 1) h / k) of the region's
    rows, likewise of its columns; regions are rounded to whole cells, half a cell upwards, and have at least one. With
    `config.kind` "align" nothing is rounded. A part beyond the map is 0. `scale`: cells per pixel of the frame.
    """
    counts = torch.tensor([len(b) for b in boxes], device=maps.device)
    picture = torch.arange(len(boxes), device=maps.device).repeat_interleave(counts)
    joined = torch.cat(list(boxes)).to(maps.dtype)
    if config.kind == "pool":
        return _means(maps, picture, joined * scale, config.grid)
    regions = torch.cat([picture[:, None].to(maps.dtype), joined], dim=1)
    pooled: Tensor = ps_roi_align(maps, regions, config.grid, scale, config.sampling)
    return pooled


def _means(maps: Tensor, picture: Tensor, cells: Tensor, k: int) -> Tensor:
    """Regions of pictures (S,), in cells (S, 4) -> (S, D, k, k), whatever their size from four sums for each part.

    Sums run from the top left of the map, in double precision where there is one: their differences stay exact.
    """
    rows, columns = maps.shape[2:]
    exact = torch.float32 if maps.device.type == "mps" else torch.float64
    sums = F.pad(maps.to(exact), (1, 0, 1, 0)).cumsum(dim=2).cumsum(dim=3)
    table = sums.unflatten(1, (-1, k * k)).permute(0, 2, 3, 4, 1).flatten(0, 3)  # a row for each part's map and place
    whole = torch.floor(cells + 0.5).long()
    y, x = (_edges(whole[:, side::2], k, most) for side, most in ((1, rows), (0, columns)))  # (2, S, k)
    part = torch.arange(k * k, device=maps.device).reshape(k, k)
    plane = (picture[:, None, None] * k * k + part) * (rows + 1)

    def upto(bottom: Tensor, right: Tensor) -> Tensor:
        return table[(plane + bottom[:, :, None]) * (columns + 1) + right[:, None]]

    total = upto(y[1], x[1]) - upto(y[0], x[1]) - upto(y[1], x[0]) + upto(y[0], x[0])
    count = (y[1] - y[0])[:, :, None] * (x[1] - x[0])[:, None]
    return (total / count.clamp(min=1)[..., None]).permute(0, 3, 1, 2).to(maps.dtype)


def _edges(ends: Tensor, k: int, most: int) -> Tensor:
    """(S, 2) first and last cell of regions along one axis -> (2, S, k) those of their parts, within the map."""
    start, length = ends[:, :1], (ends[:, 1:] - ends[:, :1]).clamp(min=1)
    i = torch.arange(k, device=ends.device)
    first, last = i * length // k, -(-(i + 1) * length // k)
    return (start + torch.stack([first, last])).clamp(0, most)


def vote(parts: Tensor) -> Tensor:
    """(S, D, k, k) -> (S, D): every part has one vote."""
    return parts.mean(dim=(2, 3))


class Lesson(NamedTuple):
    """The regions of one picture: boxes (S, 4), classes (S,) 0 background, 1 + class or UNDECIDED, deltas (S, 4).

    Deltas are to the truth that a region answers for, 0 where none.
    """

    boxes: Tensor
    classes: Tensor
    deltas: Tensor


def region_losses(logits: Tensor, deltas: Tensor, lessons: Sequence[Lesson], config: LessonConfig) -> dict[str, Tensor]:
    """class: cross entropy; box: smooth L1 of the positives; of the regions that are learnt, per such region.

    logits (S, 1 + K), deltas (S, 4) of the lessons' boxes in their order. Without any region both are zero.
    """
    classes = torch.cat([lesson.classes for lesson in lessons])
    goals = torch.cat([lesson.deltas for lesson in lessons])
    by_class = F.cross_entropy(logits, classes.clamp(min=0), reduction="none")
    by_box = F.smooth_l1_loss(deltas, goals, reduction="none", beta=config.beta).sum(dim=1) * (classes > 0)
    both = (by_class + config.box_weight * by_box).detach().split([len(lesson.classes) for lesson in lessons])
    taught = torch.cat([learnt(loss, lesson.classes, config) for loss, lesson in zip(both, lessons, strict=True)])
    count = normaliser(taught.sum())
    return {"class": by_class[taught].sum() / count, "box": config.box_weight * by_box[taught].sum() / count}


def learnt(loss: Tensor, classes: Tensor, config: LessonConfig) -> Tensor:
    """(S,) losses and classes of one picture's regions -> (S,) True for those that are learnt."""
    if config.hardest:
        return hardest(loss, classes != UNDECIDED, config.samples)
    chosen = torch.zeros_like(classes, dtype=torch.bool)
    chosen[torch.cat(balanced_sample(classes > 0, classes == 0, config.samples, config.positives))] = True
    return chosen


def hardest(loss: Tensor, counts: Tensor, most: int) -> Tensor:
    """(S,) losses, (S,) bool which regions count -> (S,) True for the `most` of these with the highest losses.

    Positives and negatives compete alike ("Training"; A. Shrivastava et al. 2016, arXiv 1604.03540).
    """
    chosen = torch.zeros_like(counts)
    chosen[loss.masked_fill(~counts, -torch.inf).topk(min(most, len(loss))).indices] = True
    return chosen & counts


def build(
    config: RFCNConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> RFCN:
    """The detector of `config`; `backbone_weights` and `progress` as `build_backbone` takes them.

    Raises BackboneError for a backbone that has not both maps or cannot be dilated.
    """
    strides = (_DEEPEST // 2, _DEEPEST) if config.stage == 5 else (_DEEPEST // 2,)
    dilate = config.stride if config.stride < strides[-1] else None
    try:
        backbone = build_backbone(
            config.backbone, strides=strides, weights=backbone_weights, dilate=dilate, progress=progress
        )
    except BackboneError as error:
        if "dilat" not in str(error):
            raise
        raise BackboneError(f"{error}; R-FCN does without dilation with the option stride={_DEEPEST}") from error
    return RFCN(config, backbone)


def configure(num_classes: int, options: Mapping[str, Any], anchors: Callable[[int], Any] | None) -> RFCNConfig:
    """The config for new data: `options` over the defaults.

    The option `clusters` says how many anchors to make from the training boxes by `anchors(count)`, (count, 2) widths
    and heights in pixels of the frame; with 0, or where it answers None, `rpn.sizes` count. Raises DetsegError for an
    unknown option or one that does not fit.
    """
    settings = dict(options)
    clusters = settings.pop("clusters", 0)
    try:
        config = config_from_json({**settings, "num_classes": num_classes})
        found = anchors(int(clusters)) if clusters and anchors is not None and config.rpn.shapes is None else None
    except (TypeError, ValueError) as error:
        raise DetsegError(f"R-FCN cannot be built so: {error}") from error
    if found is None:
        return config
    shapes = (tuple((round(float(w), 1), round(float(h), 1)) for w, h in found),)
    return replace(config, rpn=replace(config.rpn, shapes=shapes))


def config_from_json(values: dict[str, Any]) -> RFCNConfig:
    """The config from a checkpoint's JSON (lists become tuples); what is left out is as in `RFCNConfig`."""
    return grouped(values, RFCNConfig(1))


def config_to_json(config: RFCNConfig) -> dict[str, Any]:
    """The config as plain JSON values, flat."""
    return flat(config)
