"""YOLO with anchor boxes.

J. Redmon, A. Farhadi: YOLO9000: Better, Faster, Stronger, 2017, arXiv 1612.08242 ("v2" below);
J. Redmon, A. Farhadi: YOLOv3: An Incremental Improvement, 2018, arXiv 1804.02767 ("v3").

    paper                                          here
    v2 sec. 2, convolutional with anchor boxes     `YOLO.forward`: (S, S, A, 5 + K) outputs, one per scale
    v2 sec. 2, dimension clusters                  `annotations.anchors.kmeans_anchors`, `YOLOConfig.anchors`
    v2 sec. 2, direct location prediction          `decode(..., "exp")`
    v3 sec. 2.1, one prior per truth, ignore > 0.5 `assign_best`, `YOLOConfig.ignore_iou`
    v3 sec. 2.2, independent logistic classifiers  binary cross entropy in `YOLO.losses`
    v3 sec. 2.3, predictions across three scales   `Neck` and one `Head` per stride

Differences from the papers, each switchable in `YOLOConfig`:
- Any backbone of the shared module instead of Darknet-19/53, with a light neck of separable convolutions that goes
  down and up again (Liu et al. 2018, PANet) around a pooled top (He et al. 2014, SPP): made for CPUs.
- `assignment="neighbours"`: every prior whose sides are within a factor of 4 of the truth's answers for it, from the
  cell of its centre and the two nearest ones; several positives per truth train faster than the one of v3.
  `decoding="bounded"` goes with it: a sigmoid reaches half a cell over its border, sides up to 4 times the prior.
- `assignment="dynamic"`: of those, each truth keeps the few that already answer best, as many as their IoUs with it
  add up to (Z. Ge et al. 2021, YOLOX, arXiv 2107.08430, sec. 2.1, SimOTA).
- `box_loss`: an IoU-type loss instead of squared errors of t_x, t_y, t_w, t_h.
- `objectness="iou"`: the objectness learns the IoU of its box with the truth (v1 and v2 say Pr(object) * IoU).
- `focal_gamma` > 0: objectness and classes learn by the focal loss instead of the cross entropy (v3 sec. 4 tried it).

Shapes: N pictures, s scale, A priors a scale, (R, C) rows and columns of its grid, K classes, P positives, T truths
of the batch. Boxes are xyxy pixels of the network's frame unless named `xywh` (centre and size).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detseg.backbones.catalog import build_backbone
from detseg.backbones.spec import FeatureSpec
from detseg.detectors.contract import Detector, Target
from detseg.errors import DetsegError
from detseg.parts.batch_share import normaliser
from detseg.parts.box_losses import IoUKind, paired_iou
from detseg.parts.class_rows import ClassRows
from detseg.parts.focal_loss import binary_focal_loss
from detseg.results import RawDetections

Anchors = tuple[tuple[tuple[float, float], ...], ...]  # scale -> priors -> (w, h) pixels of the frame

V2_ANCHORS: Anchors = (  # YOLOv2's clusters on VOC, 32 times their 1.32 x 1.73 ... 11.24 x 10.01 cells
    ((42.3, 55.4), (102.2, 128.3), (161.8, 259.2), (303.1, 154.9), (359.6, 320.2)),
)

_CHOICES = {
    "decoding": ("exp", "bounded"),
    "assignment": ("best", "neighbours", "dynamic"),
    "objectness": ("iou", "one"),
    "box_loss": get_args(IoUKind),
}


@dataclass(frozen=True)
class YOLOConfig:
    """What makes a YOLO; stored in its checkpoint. The defaults are those that measured best (yolo.md)."""

    num_classes: int
    backbone: str = "efficientnet_lite0"
    strides: tuple[int, ...] = (8, 16, 32)  # v3 sec. 2.3; v2 has (32,) alone
    anchors: Anchors = (  # v3 sec. 2.3, clusters on COCO at 416 px
        ((10, 13), (16, 30), (33, 23)),
        ((30, 61), (62, 45), (59, 119)),
        ((116, 90), (156, 198), (373, 326)),
    )
    neck_channels: int = 128
    skips: bool = True  # what each convolution of neck and head makes is added to what it was made from
    kernel: int = 3  # of the last convolution
    decoding: Literal["exp", "bounded"] = "bounded"  # "exp": v2 sec. 2
    assignment: Literal["best", "neighbours", "dynamic"] = "dynamic"  # "best": v3 sec. 2.1
    max_side_ratio: float = 4.0  # all but "best": a prior answers for truths within this factor of its sides
    ignore_iou: float = 0.5  # "best": other boxes over this IoU are not called background, v3 sec. 2.1
    objectness: Literal["iou", "one"] = "iou"  # "one": v3 sec. 2.1
    box_loss: IoUKind = "ciou"
    label_smoothing: float = 0.0  # a class that is there counts 1 - x / 2, the others x / 2
    focal_gamma: float = 0.0  # 0: cross entropy; 2 in the paper of the focal loss
    box_weight: float = 5.0
    objectness_weight: float = 1.0
    class_weight: float = 1.0

    def __post_init__(self) -> None:
        if len(self.anchors) != len(self.strides):
            raise ValueError(f"{len(self.strides)} strides need as many groups of anchors, got {len(self.anchors)}")
        if len({len(group) for group in self.anchors}) != 1:
            raise ValueError("every scale needs the same number of anchors")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}")
        if not self.focal_gamma >= 0:
            raise ValueError(f"focal_gamma must not be negative, got {self.focal_gamma}")


class YOLO(Detector):
    """Backbone, neck, one head per scale. Built by `build`."""

    def __init__(self, config: YOLOConfig, backbone: nn.Module, in_specs: Sequence[FeatureSpec]) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.neck = Neck([spec.channels for spec in in_specs], config.neck_channels, config.skips)
        per_scale = len(config.anchors[0])
        self.heads = nn.ModuleList(
            Head(config.neck_channels, per_scale, config.num_classes, config.skips, config.kernel)
            for _ in config.strides
        )
        for i, group in enumerate(config.anchors):
            self.register_buffer(f"anchors{i}", torch.tensor(group, dtype=torch.float32), persistent=False)

    def class_rows(self) -> dict[str, ClassRows]:
        """Of each prior x, y, w, h, objectness, and then one a class."""
        return {f"heads.{i}.predict": ClassRows(len(group), 5) for i, group in enumerate(self.anchors)}

    @property
    def anchors(self) -> list[Tensor]:
        """Per scale (A, 2) widths and heights of its priors in pixels."""
        return [getattr(self, f"anchors{i}") for i in range(len(self.config.strides))]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> per scale (N, A, R, C, 5 + K): t_x, t_y, t_w, t_h, objectness, classes, all raw."""
        maps = self.neck(self.backbone(images))
        return [head(features) for head, features in zip(self.heads, maps, strict=True)]

    def detect(self, images: Tensor) -> RawDetections:
        """Boxes of every prior in every cell; score = Pr(object) * Pr(class | object) (v2 sec. 2)."""
        boxes, scores = [], []
        for raw, anchors, stride in zip(self(images), self.anchors, self.config.strides, strict=True):
            n, a, r, c, width = raw.shape
            flat = raw.reshape(n, a * r * c, width).float()
            cells = cell_corners(r, c, raw.device).repeat(a, 1)
            priors = anchors.repeat_interleave(r * c, dim=0)
            boxes.append(decode(flat[..., :4], cells, priors, stride, self.config.decoding))
            scores.append(flat[..., 4:5].sigmoid() * flat[..., 5:].sigmoid())
        return RawDetections(torch.cat(boxes, dim=1), torch.cat(scores, dim=1))

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Box, objectness and class loss: sums over the batch, divided by its number of positives."""
        raws = self(images)
        truths = Truths.of(targets)
        sizes = [(raw.shape[2], raw.shape[3]) for raw in raws]
        matches = self._assign(truths, sizes)
        if self.config.assignment == "dynamic":
            matches = self._cheapest(raws, truths, matches)
        count = normaliser(sum(len(match.truth) for match in matches))
        parts = [
            self._losses_at(raw.float(), anchors, stride, truths, match)
            for raw, anchors, stride, match in zip(raws, self.anchors, self.config.strides, matches, strict=True)
        ]
        weights = (self.config.box_weight, self.config.objectness_weight, self.config.class_weight)
        totals = [
            weight * torch.stack(terms).sum() / count
            for weight, terms in zip(weights, zip(*parts, strict=True), strict=True)
        ]
        return dict(zip(("box", "objectness", "class"), totals, strict=True))

    @torch.no_grad()
    def _assign(self, truths: Truths, sizes: list[tuple[int, int]]) -> list[Match]:
        if self.config.assignment == "best":
            return assign_best(truths.xywh, self.anchors, self.config.strides, sizes)
        return [
            assign_neighbours(truths.xywh, anchors, stride, size, self.config.max_side_ratio)
            for anchors, stride, size in zip(self.anchors, self.config.strides, sizes, strict=True)
        ]

    @torch.no_grad()
    def _cheapest(self, raws: list[Tensor], truths: Truths, matches: list[Match]) -> list[Match]:
        """Of all scales' candidates those that `cheapest_of` keeps; their cost: class loss + 3 box loss (YOLOX)."""
        columns: tuple[list[Tensor], ...] = ([], [], [], [])
        before = 0
        for raw, anchors, stride, match in zip(raws, self.anchors, self.config.strides, matches, strict=True):
            chosen, boxes = self._answers(raw.float(), anchors, stride, truths, match)
            overlap = paired_iou(boxes, truths.boxes[match.truth]).clamp(1e-7, 1)
            score = (chosen[:, 4:5].sigmoid() * chosen[:, 5:].sigmoid()).sqrt().clamp(1e-7, 1 - 1e-7)
            classes = F.one_hot(truths.labels[match.truth], self.config.num_classes).bool()
            cost = -torch.where(classes, score, 1 - score).log().sum(dim=1) - 3 * overlap.log()
            _, a, r, c, _ = raw.shape
            cell = ((truths.image[match.truth] * a + match.anchor) * r + match.row) * c + match.col
            for column, values in zip(columns, (match.truth, cell + before, overlap, cost), strict=True):
                column.append(values)
            before += raw[..., 0].numel()
        truth, cells, ious, prices = (torch.cat(column) for column in columns)
        kept = cheapest_of(truth, cells, ious, prices)
        parts = kept.split([len(m.truth) for m in matches])
        return [Match(*(column[keep] for column in m)) for m, keep in zip(matches, parts, strict=True)]

    def _answers(
        self, raw: Tensor, anchors: Tensor, stride: int, truths: Truths, match: Match
    ) -> tuple[Tensor, Tensor]:
        """What the matched priors of one scale say: (P, 5 + K) raw numbers, (P, 4) boxes."""
        chosen = raw[truths.image[match.truth], match.anchor, match.row, match.col]
        cells = torch.stack([match.col, match.row], dim=1).to(raw.dtype)
        return chosen, decode(chosen[:, :4], cells, anchors[match.anchor], stride, self.config.decoding)

    def _losses_at(
        self, raw: Tensor, anchors: Tensor, stride: int, truths: Truths, match: Match
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The three summed losses of one scale: raw (N, A, R, C, 5 + K)."""
        _, _, r, c, _ = raw.shape
        where = (truths.image[match.truth], match.anchor, match.row, match.col)
        chosen, boxes = self._answers(raw, anchors, stride, truths, match)
        overlap = paired_iou(boxes, truths.boxes[match.truth], self.config.box_loss)
        box = (1 - overlap).sum()

        wanted = raw.new_zeros(raw.shape[:-1])  # (N, A, R, C)
        quality = torch.ones_like(overlap)
        if self.config.objectness == "iou":
            quality = paired_iou(boxes.detach(), truths.boxes[match.truth]).clamp(0, 1)
        _keep_best(wanted, where, quality.detach())
        with torch.no_grad():
            all_boxes = decode(
                raw[..., :4],
                cell_corners(r, c, raw.device).reshape(r, c, 2),
                anchors[:, None, None],
                stride,
                self.config.decoding,
            )
            counted = self._counted(all_boxes, truths)
            counted[where] = True
        gamma = self.config.focal_gamma
        objectness = binary_focal_loss(raw[..., 4], wanted, gamma)[counted].sum()

        smooth = self.config.label_smoothing
        classes = torch.full_like(chosen[:, 5:], smooth / 2)
        classes[torch.arange(len(chosen), device=raw.device), truths.labels[match.truth]] = 1 - smooth / 2
        return box, objectness, binary_focal_loss(chosen[:, 5:], classes, gamma).sum()

    def _counted(self, boxes: Tensor, truths: Truths) -> Tensor:
        """(N, A, R, C, 4) decoded boxes -> (N, A, R, C) False where background may not be claimed.

        That is: boxes lying mostly in an ignored region (crowd, difficult), and in v3's way boxes that cover a truth
        better than `ignore_iou` without being the one responsible for it.
        """
        counted = torch.ones(boxes.shape[:-1], dtype=torch.bool, device=boxes.device)
        for i in range(len(boxes)):
            flat = boxes[i].reshape(-1, 4)
            skip = torch.zeros(len(flat), dtype=torch.bool, device=boxes.device)
            regions = truths.ignored_boxes[truths.ignored_image == i]
            if len(regions):
                inside = _shared_area(flat, regions) / _area(flat)[:, None].clamp(min=1e-7)
                skip |= (inside > 0.5).any(dim=1)
            own = truths.boxes[truths.image == i]
            if self.config.assignment == "best" and len(own):
                shared = _shared_area(flat, own)
                union = _area(flat)[:, None] + _area(own)[None] - shared
                skip |= (shared / union.clamp(min=1e-7) > self.config.ignore_iou).any(dim=1)
            counted[i] = ~skip.reshape(counted[i].shape)
        return counted


class Truths(NamedTuple):
    """The truths of a batch in one row each: T counted ones, and the ignored regions apart."""

    image: Tensor  # (T,) which picture of the batch
    boxes: Tensor  # (T, 4)
    labels: Tensor  # (T,)
    ignored_image: Tensor
    ignored_boxes: Tensor

    @property
    def xywh(self) -> Tensor:
        """(T, 4) centres and sizes."""
        return torch.cat([(self.boxes[:, :2] + self.boxes[:, 2:]) / 2, self.boxes[:, 2:] - self.boxes[:, :2]], dim=1)

    @classmethod
    def of(cls, targets: list[Target]) -> Truths:
        """Gathers the targets of a batch."""
        counts = torch.tensor([len(t.boxes) for t in targets], device=targets[0].boxes.device)
        image = torch.repeat_interleave(torch.arange(len(targets), device=counts.device), counts)
        boxes = torch.cat([t.boxes for t in targets])
        labels = torch.cat([t.labels for t in targets])
        ignored = torch.cat([t.ignored for t in targets])
        return cls(image[~ignored], boxes[~ignored], labels[~ignored], image[ignored], boxes[ignored])


class Match(NamedTuple):
    """The positives of one scale, a row each: which truth, which prior, which cell."""

    truth: Tensor
    anchor: Tensor
    row: Tensor
    col: Tensor


def decode(t: Tensor, cells: Tensor, priors: Tensor, stride: int, how: Literal["exp", "bounded"] = "exp") -> Tensor:
    """Raw (..., 4) t_x, t_y, t_w, t_h -> (..., 4) xyxy pixels; `cells` (col, row) corners, `priors` (w, h) pixels.

    "exp": b_xy = (sigmoid(t_xy) + c_xy) * stride, b_wh = p_wh * exp(t_wh) (v2 sec. 2, fig. 3).
    "bounded": b_xy = (2 sigmoid(t_xy) - 0.5 + c_xy) * stride, b_wh = p_wh * (2 sigmoid(t_wh))^2, at most 4 p_wh.
    """
    if how == "exp":
        xy = t[..., :2].sigmoid()
        wh = t[..., 2:4].clamp(max=8.0).exp()  # e^8 priors is more than any picture; a wild t must not overflow
    else:
        squashed = t.sigmoid()
        xy = squashed[..., :2] * 2 - 0.5
        wh = (squashed[..., 2:4] * 2) ** 2
    centre, half = (xy + cells) * stride, wh * priors / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def cell_corners(rows: int, cols: int, device: torch.device | None = None) -> Tensor:
    """(R * C, 2) the (col, row) of every cell, row by row."""
    row, col = torch.meshgrid(
        torch.arange(rows, device=device, dtype=torch.float32),
        torch.arange(cols, device=device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack([col, row], dim=-1).reshape(-1, 2)


def assign_neighbours(
    xywh: Tensor, anchors: Tensor, stride: int, grid_rc: tuple[int, int], max_ratio: float = 4.0
) -> Match:
    """Several positives per truth at one scale.

    xywh (T, 4) truths, anchors (A, 2). A prior answers where no side differs by more than `max_ratio`; it does so in
    the cell of the truth's centre and in the horizontal and the vertical neighbour nearest to the centre.
    """
    rows, cols = grid_rc
    ratio = xywh[:, None, 2:] / anchors[None]  # (T, A, 2)
    fits = torch.maximum(ratio, 1 / ratio.clamp(min=1e-6)).amax(dim=2) < max_ratio
    truth, anchor = fits.nonzero(as_tuple=True)
    centre = xywh[truth, :2] / stride
    cell = centre.floor()
    side = torch.where(centre - cell < 0.5, -1.0, 1.0)  # towards the nearer neighbour
    steps = torch.stack([torch.zeros_like(side), side * side.new_tensor([1, 0]), side * side.new_tensor([0, 1])])
    col_row = (cell[None] + steps).reshape(-1, 2)
    inside = (col_row >= 0).all(dim=1) & (col_row < col_row.new_tensor([cols, rows])).all(dim=1)
    col, row = col_row[inside].long().unbind(dim=1)
    return Match(truth.repeat(3)[inside], anchor.repeat(3)[inside], row, col)


def assign_best(
    xywh: Tensor, anchors: Sequence[Tensor], strides: Sequence[int], grids_rc: Sequence[tuple[int, int]]
) -> list[Match]:
    """One positive per truth over all scales: the prior that overlaps it most when centred on it (v3 sec. 2.1)."""
    priors = torch.cat(list(anchors))  # (sum of A, 2)
    shared = torch.minimum(xywh[:, None, 2:], priors[None]).prod(dim=2)
    overlap = shared / (xywh[:, 2:].prod(dim=1)[:, None] + priors.prod(dim=1)[None] - shared)
    best = overlap.argmax(dim=1)
    matches, first = [], 0
    for group, stride, (rows, cols) in zip(anchors, strides, grids_rc, strict=True):
        truth = ((best >= first) & (best < first + len(group))).nonzero(as_tuple=True)[0]
        col = (xywh[truth, 0] / stride).long().clamp(0, cols - 1)
        row = (xywh[truth, 1] / stride).long().clamp(0, rows - 1)
        matches.append(Match(truth, best[truth] - first, row, col))
        first += len(group)
    return matches


def cheapest_of(truth: Tensor, cell: Tensor, overlap: Tensor, cost: Tensor, most: int = 10) -> Tensor:
    """(P,) which candidates stay: for each truth its cheapest, each cell answering for one truth at most.

    A truth keeps as many as the IoUs of its `most` best candidates add up to, rounded down and at least one: when
    nothing fits yet, one prior learns; when many fit, many do. `truth` and `cell` (P,) name the pairs, `overlap` their
    IoU. A truth may lose all its cells to others it costs them less to answer for (YOLOX sec. 2.1, SimOTA).
    """
    if not len(truth):
        return truth.bool()
    best = _rank_within(truth, -overlap) < most
    wanted = overlap.new_zeros(int(truth.max()) + 1).index_add_(0, truth[best], overlap[best]).long().clamp(min=1)
    kept = _rank_within(truth, cost) < wanted[truth]
    claims = kept.nonzero()[:, 0]
    kept[claims] = _rank_within(cell[claims], cost[claims]) == 0
    return kept


def _rank_within(group: Tensor, value: Tensor) -> Tensor:
    """(P,) the place of each among its group, 0 for the smallest value; ties in their order."""
    order = value.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]
    sizes = torch.unique_consecutive(group[order], return_counts=True)[1]
    firsts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - firsts
    return rank


class Neck(nn.Module):
    """Mixes the scales: a pooled top, top-down, then bottom-up; all maps get the same number of channels."""

    def __init__(self, in_channels: Sequence[int], channels: int, skips: bool) -> None:
        super().__init__()
        self.skips = skips
        self.laterals = nn.ModuleList(conv_bn(c, channels, 1) for c in in_channels)
        self.context = PooledContext(channels)
        self.down = nn.ModuleList(Separable(channels) for _ in in_channels[1:])
        self.up_stride = nn.ModuleList(Separable(channels, stride=2) for _ in in_channels[1:])
        self.up = nn.ModuleList(Separable(channels) for _ in in_channels[1:])

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Maps finest first -> as many maps, same sizes."""
        maps = [lateral(f) for lateral, f in zip(self.laterals, features, strict=True)]
        maps[-1] = self.context(maps[-1])
        for i in range(len(maps) - 2, -1, -1):
            coarse = F.interpolate(maps[i + 1], size=maps[i].shape[-2:], mode="nearest")
            maps[i] = _after(self.down[i], maps[i] + coarse, self.skips)
        for i in range(1, len(maps)):
            maps[i] = _after(self.up[i - 1], maps[i] + self.up_stride[i - 1](maps[i - 1]), self.skips)
        return maps


class Head(nn.Module):
    """One scale's predictions: a separable convolution, then 5 + K numbers for each of A priors."""

    def __init__(self, channels: int, anchors: int, classes: int, skips: bool, kernel: int) -> None:
        super().__init__()
        self.skips = skips
        self.shape = (anchors, 5 + classes)
        self.mix = Separable(channels)
        self.predict = nn.Conv2d(channels, anchors * (5 + classes), kernel, padding=kernel // 2)
        bias = torch.zeros(self.shape)
        bias[:, 4] = -5.0  # few cells hold an object: start near Pr(object) = 0.007, else background drowns the rest
        bias[:, 5:] = -2.0
        nn.init.normal_(self.predict.weight, std=0.01)
        self.predict.bias = nn.Parameter(bias.reshape(-1))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, R, C) -> (N, A, R, C, 5 + K)."""
        n, _, r, c = features.shape
        return self.predict(_after(self.mix, features, self.skips)).reshape(n, *self.shape, r, c).permute(0, 1, 3, 4, 2)


class Separable(nn.Sequential):
    """5x5 depthwise then 1x1 convolution, each with batch norm: a large view for few operations."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__(conv_bn(channels, channels, 5, stride=stride, groups=channels), conv_bn(channels, channels, 1))


def _after(layer: nn.Module, x: Tensor, skip: bool) -> Tensor:
    made: Tensor = layer(x)
    return x + made if skip else made


class PooledContext(nn.Module):
    """Max pooling over growing windows beside the map itself, mixed by 1x1 convolutions (SPP, in series)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = conv_bn(channels, channels // 2, 1)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.mix = conv_bn(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, R, C) -> the same shape."""
        views = [self.squeeze(x)]
        for _ in range(3):
            views.append(self.pool(views[-1]))
        return self.mix(torch.cat(views, dim=1))


def conv_bn(cin: int, cout: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, leaky ReLU with Darknet's slope 0.1."""
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), nn.LeakyReLU(0.1, inplace=True))


def build(
    config: YOLOConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> YOLO:
    """The detector of `config`; `backbone_weights` and `progress` as `build_backbone` takes them."""
    backbone = build_backbone(config.backbone, strides=config.strides, weights=backbone_weights, progress=progress)
    return YOLO(config, backbone, backbone.features)


def configure(num_classes: int, options: Mapping[str, Any], anchors: Callable[[int], Any] | None) -> YOLOConfig:
    """The config for new data: `options` over the defaults, and priors from `anchors(count)` where it is given.

    `anchors(k)` answers (k, 2) widths and heights in pixels of the frame, smallest first; they are shared out over
    the scales, the smallest to the finest (v3 sec. 2.3); it answers None when it cannot, and the priors stay as they
    are. The option `anchors_per_scale` says how many each scale gets. Raises DetsegError for an unknown option.
    """
    settings = dict(options)
    per_scale = int(settings.pop("anchors_per_scale", 3))
    known = {f.name for f in fields(YOLOConfig)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise DetsegError(f"YOLO has no option {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    strides = tuple(settings.get("strides", YOLOConfig.strides))
    found = anchors(per_scale * len(strides)) if anchors is not None and "anchors" not in settings else None
    if found is not None:
        sizes = [(round(float(w), 1), round(float(h), 1)) for w, h in found]
        settings["anchors"] = [sizes[i * per_scale : (i + 1) * per_scale] for i in range(len(strides))]
    fallback = V2_ANCHORS if strides == (32,) and per_scale == 5 else YOLOConfig.anchors
    settings.setdefault("anchors", fallback)
    try:
        return _config({**settings, "strides": strides, "num_classes": num_classes})
    except (TypeError, ValueError) as error:
        raise DetsegError(f"YOLO cannot be built so: {error}") from error


def config_from_json(values: dict[str, Any]) -> YOLOConfig:
    """The config from a checkpoint's JSON (lists become tuples)."""
    return _config({"skips": False, "kernel": 1, **values})  # some checkpoints are older than these two fields


def config_to_json(config: YOLOConfig) -> dict[str, Any]:
    """The config as plain JSON values."""
    return asdict(config)


def _config(values: Mapping[str, Any]) -> YOLOConfig:
    anchors = tuple(tuple((float(w), float(h)) for w, h in group) for group in values["anchors"])
    return YOLOConfig(**{**values, "strides": tuple(values["strides"]), "anchors": anchors})


def _keep_best(grid: Tensor, where: tuple[Tensor, ...], values: Tensor) -> None:
    """Writes `values` into `grid` at `where`; a cell named several times keeps its largest, whatever the order."""
    _, a, r, c = grid.shape
    image, anchor, row, col = where
    flat = ((image * a + anchor) * r + row) * c + col
    grid.view(-1).scatter_reduce_(0, flat, values.to(grid.dtype), reduce="amax")


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)


def _shared_area(a: Tensor, b: Tensor) -> Tensor:
    """(n, 4), (m, 4) -> (n, m) areas shared."""
    top_left = torch.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    return (bottom_right - top_left).clamp(min=0).prod(dim=2)
