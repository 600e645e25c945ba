"""The sliding window: a classifier of crops, asked about every window of a pyramid.

R. Vaillant, C. Monrocq, Y. Le Cun: Original approach for the localisation of objects in images, IEE Proceedings 141(4),
1994 ("Vaillant"); P. Sermanet, D. Eigen, X. Zhang, M. Mathieu, R. Fergus, Y. LeCun: OverFeat, 2014, arXiv 1312.6229
("OverFeat"); J. Long, E. Shelhamer, T. Darrell: Fully Convolutional Networks for Semantic Segmentation, 2015, arXiv
1411.4038 ("FCN"). Classifiers: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-Based Learning Applied to Document
Recognition, Proceedings of the IEEE 86(11), 1998 ("LeNet"); A. Krizhevsky, I. Sutskever, G. Hinton: ImageNet
Classification with Deep Convolutional Neural Networks, 2012 ("AlexNet").

    paper                                              here
    LeNet sec. II.B, fig. 2, C1 to S4                  `LeNet5`; C5 and F6: `FullyConnected`
    OverFeat sec. 3.5, AlexNet sec. 3.5, fc layers     `FullyConnected.of_crops`
    OverFeat sec. 3.5 and 5, FCN sec. 3.1, fc as conv  `FullyConnected.forward`
    Vaillant sec. 3, OverFeat sec. 3.3, scales         `Level`, one for each shape of window
    OverFeat sec. 3.5, one pass for all windows        `SlidingWindow.detect`
    the same, window by window                         `SlidingWindow.detect_naive`
    OverFeat sec. 5, negatives found while training    `SlidingWindow._mined`
    OverFeat sec. 4.2, box regression                  `SlidingWindowConfig.refine`

Both ways to look at the windows give the same scores. What stands in the way of that is padding: a crop has a border
where the picture goes on. So only those cells of a backbone's map are used that saw no padding
(`backbones.receptive_field`), and the side of a crop is what makes `cells` x `cells` of them.

Differences from the papers:
- Windows have the shapes of the data: k-means over the training boxes. Each shape is a level of the pyramid, for which
  the frame is resized so that the window becomes a crop; OverFeat and Vaillant have one square window.
- Any convolutional backbone, its ImageNet weights included. LeNet5 has ReLU, max pooling and all connections from S2
  to C3; a softmax with background as one class more judges, not radial basis functions.
- Half of the negatives are the most offending ones, a quarter are near misses, which overlap an object by 0.1 to 0.5:
  windows that nobody teaches score like their object, and suppression then keeps one that lies beside it. The others
  come from everywhere.
- A crop is its object by as much as it fits: all of it from an overlap of 0.8 on, nothing at 0.5. So of the windows
  about an object the best has the highest score.
- `magnify`: windows of small things also see what is around them, instead of the frame blown up without end.
- Boxes that survive suppression are kept; OverFeat merges them.

Shapes: N pictures, A windows over all levels, K classes (logits have 1 + K: background first), M crops of S x S pixels,
(R, C) rows and columns of a map, T truths. Boxes are xyxy pixels of the network's frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from detseg.backbones.catalog import build_backbone
from detseg.backbones.receptive_field import Field, receptive_field
from detseg.backbones.spec import Backbone, FeatureSpec, Stage
from detseg.detectors.contract import Detector, Target
from detseg.errors import DetsegError
from detseg.parts.batch_share import normaliser
from detseg.parts.box_coder import BoxCoder
from detseg.parts.box_losses import paired_iou
from detseg.parts.class_rows import ClassRows
from detseg.parts.overlaps import inside_any, iou
from detseg.parts.resampling import resampled
from detseg.results import RawDetections

LENET5 = "lenet5"
BATCH = 256  # crops that are judged at once, window by window
MINED_AT_ONCE = 4  # pictures: the maps of a whole batch would fill the memory
DISTINCT = 0.5  # mined windows overlap each other no more than this
TOUCHING = 0.1  # the least overlap of a near miss: R. Girshick, Fast R-CNN, 2015, sec. 2.3


@dataclass(frozen=True)
class SlidingWindowConfig:
    """What makes a sliding window; stored in its checkpoint."""

    num_classes: int
    backbone: str = "efficientnet_lite0"  # or lenet5, alexnet, any without global operations
    stride: int = 4  # of the map that is used; windows are as many pixels of their level apart
    cells: int = 4  # rows and columns of that map in a window
    hidden: tuple[int, ...] = (128,)  # sizes of the fully connected layers before the last
    dropout: float = 0.0  # before each of those and the last, AlexNet sec. 4.2
    windows: tuple[tuple[float, float], ...] | None = None  # (w, h) in pixels of the frame, instead of the next two
    sides: tuple[float, ...] = (32, 64, 128, 256)  # roots of the windows' areas
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # w / h
    magnify: float = 2.0  # most that a frame is enlarged; a smaller window sees more than its box
    refine: bool = False  # boxes move to where their objects are, OverFeat sec. 4
    sweep: Literal["convolutional", "naive"] = "convolutional"  # all windows of a level in one pass, or crop by crop
    positives: int = 16  # crops of objects from each picture, its classes in equal shares
    negatives: float = 3.0  # for each positive
    mined: float = 0.5  # share of the negatives that are the worst mistakes
    near: float = 0.25  # share of them that touch an object; what is left is drawn from everywhere
    mined_levels: int = 2  # levels, drawn anew for each batch, on which they are looked for
    positive_iou: float = 0.5  # crops of an object overlap it at least so much
    negative_iou: float = 0.5  # those of background any object less
    full_iou: float = 0.8  # a crop is its object wholly from here on, not at all at negative_iou; without refine
    box_weight: float = 1.0

    def __post_init__(self) -> None:
        shapes = self.shapes
        if not shapes or not all(len(wh) == 2 and wh[0] > 0 and wh[1] > 0 for wh in shapes):
            raise ValueError("there must be windows, each a width and a height above 0")
        if self.sweep not in ("convolutional", "naive"):
            raise ValueError(f"sweep must be convolutional or naive, got {self.sweep!r}")
        for name in ("cells", "positives", "mined_levels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.magnify <= 0 or self.negatives < 0 or not 0 <= self.dropout < 1:
            raise ValueError("magnify must be above 0, negatives not below, dropout within [0, 1)")
        if min(self.mined, self.near) < 0 or self.mined + self.near > 1:
            raise ValueError("mined and near are shares: not below 0, together at most 1")
        if not 0 < self.negative_iou <= self.positive_iou < 1 or not self.negative_iou < self.full_iou <= 1:
            raise ValueError("0 < negative_iou <= positive_iou < 1 and negative_iou < full_iou <= 1 must hold")

    @property
    def shapes(self) -> tuple[tuple[float, float], ...]:
        """(w, h) of every window in pixels of the frame."""
        if self.windows is not None:
            return self.windows
        return tuple((s * math.sqrt(r), s / math.sqrt(r)) for s in self.sides for r in self.aspect_ratios)


class Level(NamedTuple):
    """A picture of the pyramid: the frame resized so that the windows of one shape are crops of S x S pixels.

    `seen_wh` pixels of the frame that a crop shows, `box_wh` of it in its middle that a window stands for;
    `counts_rc` windows, `step_xy` pixels of the frame apart, the first of them seen from `origin_xy` on.
    """

    box_wh: tuple[float, float]
    seen_wh: tuple[float, float]
    counts_rc: tuple[int, int]
    step_xy: tuple[float, float]
    origin_xy: tuple[float, float]


class SlidingWindow(Detector):
    """A backbone up to one map, fully connected layers on `cells` x `cells` of it. Built by `build`."""

    def __init__(self, config: SlidingWindowConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.field: Field = receptive_field(backbone, config.backbone)[0]
        self.side = self.field.side(config.cells)  # S
        outputs = 1 + config.num_classes + 4 * config.refine
        self.head = FullyConnected(
            backbone.features[0].channels, config.cells, (*config.hidden, outputs), config.dropout
        )
        self.coder = BoxCoder()

    def class_rows(self) -> dict[str, ClassRows]:
        """Background, the classes, and what moves a box where that is learnt."""
        last = f"head.layers.{len(self.config.hidden)}"
        return {last: ClassRows(shared=1, after=4 * self.config.refine)}

    def levels(self, frame_hw: tuple[int, int]) -> list[Level]:
        """The pyramid of a frame of this size; its windows cover the frame and reach over it by less than a step."""
        return [self._level(wh, frame_hw) for wh in self.config.shapes]

    def _level(self, box_wh: tuple[float, float], frame_hw: tuple[int, int]) -> Level:
        least = self.side / self.config.magnify
        seen, counts, steps, origins = [], [], [], []
        for box, length in zip(box_wh, frame_hw[::-1], strict=True):
            seen.append(max(box, least))
            steps.append(self.field.step * seen[-1] / self.side)
            counts.append(1 + max(0, math.ceil((length - box) / steps[-1] - 1e-6)))
            first = (length - box - (counts[-1] - 1) * steps[-1]) / 2  # what reaches over is shared by both edges
            origins.append(first - (seen[-1] - box) / 2)
        return Level(box_wh, (seen[0], seen[1]), (counts[1], counts[0]), (steps[0], steps[1]), (origins[0], origins[1]))

    def windows(self, frame_hw: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
        """(A, 4) the boxes that the windows stand for: level by level, row by row."""
        return torch.cat([boxes_of(level, level.box_wh, device) for level in self.levels(frame_hw)])

    def forward(self, images: Tensor, levels: Sequence[Level] | None = None) -> Tensor:
        """(N, 3, H, W) -> (N, A, 1 + K or 5 + K): what is said of every window, one pass for each level.

        Of `levels` alone where they are named.
        """
        said = []
        for level in self.levels((images.shape[2], images.shape[3])) if levels is None else levels:
            outputs = self.head(self._clean_map(self._picture(images, level)))
            said.append(outputs.flatten(2).transpose(1, 2))
        return torch.cat(said, dim=1).float()

    def window_by_window(self, images: Tensor) -> Tensor:
        """As `forward`, each window cut out of the frame and judged alone, `BATCH` of them at a time."""
        said = []
        for level in self.levels((images.shape[2], images.shape[3])):
            windows = boxes_of(level, level.seen_wh, images.device)
            rois = _rois([windows] * images.shape[0]).split(BATCH)
            judged = [self.judge(self._crops(images, some, _samples(level, self.side))) for some in rois]
            said.append(torch.cat(judged).view(images.shape[0], len(windows), -1))
        return torch.cat(said, dim=1).float()

    def judge(self, crops: Tensor) -> Tensor:
        """(M, 3, S, S) -> (M, 1 + K or 5 + K): logits, then deltas where boxes are refined."""
        return self.head.of_crops(self._clean_map(crops)).float()

    def detect(self, images: Tensor) -> RawDetections:
        """Every window, or what it is refined to, cut to the frame; scores without background."""
        # an exported network has one pass for a level in any case: its scores are the same
        naive = self.config.sweep == "naive" and not torch.compiler.is_exporting()
        return self._answer(images, self.window_by_window(images) if naive else self(images))

    def detect_naive(self, images: Tensor) -> RawDetections:
        """As `detect`, crop by crop whatever the config says."""
        return self._answer(images, self.window_by_window(images))

    def _answer(self, images: Tensor, said: Tensor) -> RawDetections:
        height, width = images.shape[2:]
        boxes = self.windows((height, width), images.device)[None].expand(images.shape[0], -1, -1)
        logits = said[..., : 1 + self.config.num_classes]
        if self.config.refine:
            boxes = self.coder.decode(said[..., logits.shape[-1] :], boxes)
        x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
        return RawDetections(torch.stack([x, y], dim=-1).flatten(2), logits.softmax(dim=-1)[..., 1:])

    def _picture(self, images: Tensor, level: Level) -> Tensor:
        """(N, 3, H, W) -> the level's picture, of S + (windows - 1) * step pixels a side."""
        (rows, columns), (x, y), (w, h) = level.counts_rc, level.origin_xy, level.seen_wh
        size = [self.side + (count - 1) * self.field.step for count in (rows, columns)]
        spans = ((y, y + h / self.side * size[0]), (x, x + w / self.side * size[1]))
        samples = _samples(level, self.side)
        return resampled(images.float(), spans, (size[0], size[1]), (samples, samples))

    def _clean_map(self, pictures: Tensor) -> Tensor:
        """The backbone's map without the cells that saw padding."""
        maps = self.backbone(pictures.contiguous(memory_format=torch.channels_last))[0]
        rows, columns = (self.field.inside(pixels) for pixels in pictures.shape[2:])
        return maps[:, :, rows.start : rows.stop, columns.start : columns.stop]

    def _crops(self, images: Tensor, rois: Tensor, samples: int = 0) -> Tensor:
        return roi_align(images.float(), rois, (self.side, self.side), 1.0, samples, aligned=True)

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Cross entropy over all crops, and smooth L1 of the deltas of those that show objects where boxes are refined.

        A crop that fits its object badly is to be background in part, so that scores tell which window fits best.
        From each picture as many crops; none from a picture that is one ignored region.
        """
        boxes, labels, goals = self._lessons(images, targets)
        rois = _rois([self._seen(some) for some in boxes])
        classes, given, objects = torch.cat(labels), torch.cat(boxes), torch.cat(goals)
        shown = classes > 0
        count = normaliser(shown.sum())
        if not len(rois):
            nothing = torch.stack([p.sum() for p in self.head.parameters()]).sum() * 0.0
            return {"class": nothing, "box": nothing} if self.config.refine else {"class": nothing}
        said = self.judge(self._crops(images, rois))
        logits = said[:, : 1 + self.config.num_classes]
        fit = self._fit(given, objects)
        of_class, of_background = (F.cross_entropy(logits, c, reduction="none") for c in (classes, 0 * classes))
        found = {"class": (fit * of_class + (1 - fit) * of_background).mean()}
        if self.config.refine:
            wanted = self.coder.encode(objects[shown], given[shown])
            deltas = said[shown, 1 + self.config.num_classes :]
            loss = F.smooth_l1_loss(deltas, wanted, reduction="sum", beta=0.1) / count
            found["box"] = self.config.box_weight * loss
        return found

    def _fit(self, boxes: Tensor, objects: Tensor) -> Tensor:
        """(M, 4), (M, 4) -> (M,) how much of its object a crop is: 0 at `negative_iou`, 1 from `full_iou` on.

        All of it where boxes are refined: where the window lies is then not where the box will.
        """
        config = self.config
        if config.refine:
            return boxes.new_ones(len(boxes))
        above = paired_iou(boxes, objects) - config.negative_iou
        return (above / (config.full_iou - config.negative_iou)).clamp(0, 1)

    @torch.no_grad()
    def _lessons(self, images: Tensor, targets: list[Target]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """For each picture the boxes (m, 4) of its crops, their classes (m,), 0 for background, and objects (m, 4)."""
        config = self.config
        wanted = round(config.positives * config.negatives)
        mined = self._mined(images, targets, round(wanted * config.mined))
        levels = self.levels((images.shape[2], images.shape[3]))
        windows = torch.cat([boxes_of(level, level.box_wh, images.device) for level in levels])
        # all levels are drawn alike, however many windows they have
        share = torch.cat([windows.new_full((r * c,), 1.0 / (r * c)) for r, c in (level.counts_rc for level in levels)])
        boxes, labels, goals = [], [], []
        for target, hard in zip(targets, mined, strict=True):
            shown, classes, objects = self._positives(target)
            free = is_background(windows, target, config.negative_iou)
            close = windows[_drawn(share * (free & touches(windows, target)), round(wanted * config.near))]
            others = windows[_drawn(share * free, wanted - len(hard) - len(close))]
            negatives = torch.cat([hard, close, others])
            boxes.append(torch.cat([shown, negatives]))
            labels.append(F.pad(classes + 1, (0, len(negatives))))
            goals.append(torch.cat([objects, negatives]))
        return boxes, labels, goals

    def _positives(self, target: Target) -> tuple[Tensor, Tensor, Tensor]:
        """`positives` boxes about the picture's objects, their classes and objects; none where it has none."""
        boxes, labels = target.boxes[~target.ignored], target.labels[~target.ignored]
        if not len(boxes):
            return boxes, labels, boxes
        counts = torch.bincount(labels, minlength=self.config.num_classes)
        chosen = _drawn(1.0 / counts[labels], self.config.positives)
        return jittered(boxes[chosen], self.config.positive_iou), labels[chosen], boxes[chosen]

    def _mined(self, images: Tensor, targets: list[Target], count: int) -> list[Tensor]:
        """For each picture up to `count` windows (m, 4) of background, those with the highest scores of any class.

        They are looked for on some levels, in one pass as in use, and hardly overlap each other.
        """
        if not count:
            return [images.new_zeros(0, 4)] * len(images)
        levels = self.levels((images.shape[2], images.shape[3]))
        chosen = [levels[i] for i in torch.randperm(len(levels))[: self.config.mined_levels].tolist()]
        windows = torch.cat([boxes_of(level, level.box_wh, images.device) for level in chosen])
        with _in_use(self):
            said = torch.cat([self(some, chosen) for some in images.split(MINED_AT_ONCE)])
        scores = said[..., : 1 + self.config.num_classes].softmax(dim=-1)[..., 1:].amax(dim=-1)
        found = []
        for target, own in zip(targets, scores, strict=True):
            free = is_background(windows, target, self.config.negative_iou)
            best = own.masked_fill(~free, -1.0).topk(min(8 * count, len(own))).indices
            best = best[free[best]]
            found.append(windows[best[nms(windows[best], own[best], DISTINCT)[:count]]])
        return found

    def _seen(self, boxes: Tensor) -> Tensor:
        """What crops of these boxes show: no less than S / magnify pixels of the frame a side."""
        return widened(boxes, self.side / self.config.magnify)


class FullyConnected(nn.Module):
    """Fully connected layers on `cells` x `cells` of a map with ReLU between them, kept as convolutions.

    The kernel of the first covers a window, the others are 1x1 (OverFeat sec. 3.5, FCN sec. 3.1).
    """

    def __init__(self, channels: int, cells: int, sizes: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        kernels = [cells, *[1] * (len(sizes) - 1)]
        self.layers = nn.ModuleList(
            nn.Conv2d(i, o, kernel) for (i, o), kernel in zip(pairwise((channels, *sizes)), kernels, strict=True)
        )
        self.dropout = nn.Dropout(dropout)
        for layer in self._convolutions():
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(layer.weight, std=0.01)  # the last says nothing much at first

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, R, C) -> (N, outputs, R', C'): every window of the map in one pass."""
        for i, layer in enumerate(self._convolutions()):
            maps = layer(self.dropout(maps if i == 0 else F.relu(maps)))
        return maps

    def of_crops(self, maps: Tensor) -> Tensor:
        """(M, C, cells, cells) -> (M, outputs): the same numbers by matrices, a row for each crop."""
        x = maps.flatten(1)
        for i, layer in enumerate(self._convolutions()):
            x = F.linear(self.dropout(x if i == 0 else F.relu(x)), layer.weight.flatten(1), layer.bias)
        return x

    def _convolutions(self) -> Iterator[nn.Conv2d]:
        for layer in self.layers:
            assert isinstance(layer, nn.Conv2d)
            yield layer


class LeNet5(Backbone):
    """C1 to S4 of LeNet-5 for colours, without padding: 16 channels at stride 4, of a 32 x 32 crop 5 x 5 cells."""

    features = (FeatureSpec(16, 4),)

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c3 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        for layer in (self.c1, self.c3):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> [(N, 16, R, C)]."""
        x = F.max_pool2d(F.relu(self.c1(images)), 2)
        return [F.max_pool2d(F.relu(self.c3(x)), 2)]

    def stages(self) -> list[Stage]:
        """C1, then C3; pooling learns nothing."""
        return [self.c1, self.c3]


def boxes_of(level: Level, wh: tuple[float, float], device: torch.device | str = "cpu") -> Tensor:
    """(R * C, 4) boxes of `wh` in the middle of what each window of `level` sees, row by row."""
    (rows, columns), (step_x, step_y), (x, y) = level.counts_rc, level.step_xy, level.origin_xy
    across = torch.arange(columns, dtype=torch.float32, device=device) * step_x + x + (level.seen_wh[0] - wh[0]) / 2
    down = torch.arange(rows, dtype=torch.float32, device=device) * step_y + y + (level.seen_wh[1] - wh[1]) / 2
    top, left = torch.meshgrid(down, across, indexing="ij")
    return torch.stack([left, top, left + wh[0], top + wh[1]], dim=-1).reshape(-1, 4)


def is_background(windows: Tensor, target: Target, below: float) -> Tensor:
    """(A,) True where a window overlaps every object by less than `below` and does not lie in an ignored region."""
    objects, regions = target.boxes[~target.ignored], target.boxes[target.ignored]
    free = ~inside_any(windows, regions) if len(regions) else windows.new_ones(len(windows), dtype=torch.bool)
    return free & (iou(objects, windows).amax(dim=0) < below) if len(objects) else free


def touches(windows: Tensor, target: Target) -> Tensor:
    """(A,) True where a window overlaps some object by `TOUCHING`."""
    objects = target.boxes[~target.ignored]
    return iou(objects, windows).amax(dim=0) >= TOUCHING if len(objects) else windows.new_zeros(len(windows)).bool()


def jittered(boxes: Tensor, least_iou: float, tries: int = 16) -> Tensor:
    """(m, 4) -> (m, 4) each moved, stretched or shrunk at random so that it overlaps what it was by `least_iou`."""
    wh = boxes[:, None, 2:] - boxes[:, None, :2]
    random = torch.rand(len(boxes), tries, 4, device=boxes.device) * 2 - 1
    centre = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2 + random[..., :2] * (1 - least_iou) / 2 * wh
    half = (random[..., 2:] * -math.log(least_iou)).exp() * wh / 2
    tried = torch.cat([centre - half, centre + half], dim=-1)
    top_left, bottom_right = torch.maximum(tried, boxes[:, None]), torch.minimum(tried, boxes[:, None])
    both = (bottom_right[..., 2:] - top_left[..., :2]).clamp(min=0).prod(dim=-1)
    overlap = both / ((2 * half).prod(dim=-1) + wh.prod(dim=-1) - both)
    good, first = (overlap >= least_iou).max(dim=1)  # the first that is good; of none the box itself
    return torch.where(good[:, None], tried[torch.arange(len(boxes), device=boxes.device), first], boxes)


def widened(boxes: Tensor, least: float) -> Tensor:
    """(m, 4) -> (m, 4) with sides of at least `least`, about the same centres."""
    more = (least - (boxes[:, 2:] - boxes[:, :2])).clamp(min=0) / 2
    return torch.cat([boxes[:, :2] - more, boxes[:, 2:] + more], dim=1)


def _drawn(weights: Tensor, count: int) -> Tensor:
    """`count` indices drawn by `weights`, one more than once perhaps; none where all weights are 0."""
    if count <= 0 or not bool((weights > 0).any()):
        return torch.zeros(0, dtype=torch.int64, device=weights.device)
    return torch.multinomial(weights, count, replacement=True)


def _rois(boxes: Sequence[Tensor]) -> Tensor:
    """[(m, 4)] of each picture -> (M, 5) with the picture's number in front, as roi_align wants them."""
    numbered = [torch.cat([some.new_full((len(some), 1), i), some], dim=1) for i, some in enumerate(boxes)]
    return torch.cat(numbered)


def _samples(level: Level, side: int) -> int:
    """Samples a pixel of a crop, by each axis: as many as pixels of the frame lie in it."""
    return max(1, math.ceil(max(level.seen_wh) / side - 1e-6))


@contextmanager
def _in_use(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while, so that looking on changes no statistics."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def build(
    config: SlidingWindowConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> SlidingWindow:
    """The detector of `config`; `backbone_weights` and `progress` as `build_backbone` takes them."""
    if config.backbone == LENET5:
        if backbone_weights is not None:
            raise DetsegError("lenet5 has no weights to start from; use --backbone-weights none")
        if config.stride != 4:
            raise DetsegError(f"lenet5 has features at stride 4; asked for {config.stride}")
        return SlidingWindow(config, LeNet5())
    backbone = build_backbone(config.backbone, strides=(config.stride,), weights=backbone_weights, progress=progress)
    return SlidingWindow(config, backbone)


def configure(
    num_classes: int, options: Mapping[str, Any], anchors: Callable[[int], Any] | None
) -> SlidingWindowConfig:
    """The config for new data: `options` over the defaults.

    The option `clusters` says how many shapes of windows to make from the training boxes by `anchors(count)`,
    (count, 2) widths and heights in pixels of the frame; with 0, where it answers None, or where `windows` are given,
    those of the config count. Raises DetsegError for an unknown option or one that does not fit.
    """
    settings = dict(options)
    clusters = settings.pop("clusters", 0)
    known = {f.name for f in fields(SlidingWindowConfig)} - {"num_classes"}
    unknown = sorted(set(settings) - known)
    if unknown:
        names = f"clusters, {', '.join(sorted(known))}"
        raise DetsegError(f"the sliding window has no option {', '.join(unknown)}; there are: {names}")
    try:
        found = anchors(int(clusters)) if clusters and anchors is not None and not settings.get("windows") else None
        if found is not None:
            settings["windows"] = tuple((round(float(w), 1), round(float(h), 1)) for w, h in found)
        return config_from_json({**settings, "num_classes": num_classes})
    except (TypeError, ValueError) as error:
        raise DetsegError(f"the sliding window cannot be built so: {error}") from error


def config_from_json(values: dict[str, Any]) -> SlidingWindowConfig:
    """The config from a checkpoint's JSON (lists become tuples)."""
    return SlidingWindowConfig(**{name: _tuples(value) for name, value in values.items()})


def config_to_json(config: SlidingWindowConfig) -> dict[str, Any]:
    """The config as plain JSON values."""
    return asdict(config)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
