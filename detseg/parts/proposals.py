"""`RegionProposals`: a small network slides over the maps and says where something is (RPN).

S. Ren, K. He, R. Girshick, J. Sun: Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks,
2015, arXiv 1506.01497, section 3.1; on the maps of a pyramid, each with anchors of its own sizes: T.-Y. Lin et al.
2017, Feature Pyramid Networks, arXiv 1612.03144, section 4.1.

Shapes: N pictures, L maps, A anchors a place, P anchors over all maps, T truths, R ignored regions.
Boxes are xyxy pixels of the network's frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detseg.parts.anchor_grid import AnchorShapes, anchor_grid, anchor_shapes
from detseg.parts.batch_share import normaliser
from detseg.parts.box_coder import BoxCoder
from detseg.parts.frames import clipped
from detseg.parts.ground_truth import Truth
from detseg.parts.matcher import BACKGROUND, Matcher
from detseg.parts.overlaps import inside_any, iou
from detseg.parts.sampler import balanced_sample
from detseg.parts.suppression import grouped_nms


@dataclass(frozen=True)
class ProposalConfig:
    """The region proposal network; the defaults are the paper's numbers, for one map."""

    sizes: tuple[tuple[float, ...], ...] = ((128, 256, 512),)  # of each map's anchors, in pixels, sec. 3.3
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width
    shapes: AnchorShapes | None = None  # (w, h) of each map's anchors, instead of sizes and aspect ratios
    depth: int = 1  # 3x3 convolutions before the two answers
    width: int = 0  # their channels; 0: as many as the maps have
    positive_iou: float = 0.7  # sec. 3.1.2; the best anchor of a truth is positive whatever its overlap
    negative_iou: float = 0.3
    samples: int = 256  # anchors a picture that are learnt, sec. 3.1.3
    positives: float = 0.5  # share of them, at most
    inside_only: bool = False  # anchors that reach over the picture's border are not learnt, sec. 3.3
    beta: float = 1 / 9  # where the box loss turns from square to linear (the authors' program)
    nms_iou: float = 0.7  # sec. 3.3
    min_score: float = 0.0
    candidates: int = 6000  # the best of each map that enter suppression in use (the authors' program)
    kept: int = 300  # proposals a picture in use, sec. 3.3
    train_candidates: int = 12000
    train_kept: int = 2000

    def __post_init__(self) -> None:
        if len({len(boxes) for boxes in self.anchors}) != 1 or not self.anchors[0]:
            raise ValueError("every map needs the same number of anchors, at least one")
        if not 0 <= self.negative_iou <= self.positive_iou <= 1:
            raise ValueError("0 <= negative_iou <= positive_iou <= 1 does not hold")
        if self.depth < 0 or min(self.samples, self.candidates, self.kept, self.train_candidates, self.train_kept) < 1:
            raise ValueError("samples, candidates and kept must be at least 1, depth at least 0")

    @property
    def anchors(self) -> AnchorShapes:
        """(w, h) of the anchors of each map."""
        return anchor_shapes(self.sizes, self.aspect_ratios) if self.shapes is None else self.shapes


class Answers(NamedTuple):
    """For each map: logits (N, P_l) that something is there, deltas (N, P_l, 4) to its box, anchors (P_l, 4)."""

    logits: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]


class RegionProposals(nn.Module):
    """Maps -> class-agnostic boxes. The layers are shared by all maps."""

    def __init__(self, channels: int, config: ProposalConfig) -> None:
        super().__init__()
        self.config = config
        self.coder = BoxCoder()
        self.matcher = Matcher(config.positive_iou, config.negative_iou, forced="ties")
        layers: list[nn.Module] = []
        width = config.width or channels
        for i in range(config.depth):
            layers += [nn.Conv2d(width if i else channels, width, 3, padding=1), nn.ReLU(inplace=True)]
        self.convs = nn.Sequential(*layers)
        anchors = len(config.anchors[0])
        last = width if config.depth else channels
        self.logits = nn.Conv2d(last, anchors, 1)
        self.deltas = nn.Conv2d(last, 4 * anchors, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)  # sec. 3.1.3
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor], frame_hw: tuple[int, int]) -> Answers:
        """[(N, C, R, C)] maps of a frame of this size -> `Answers`."""
        logits, deltas = [], []
        for x in maps:
            x = self.convs(x)
            logits.append(self.logits(x).permute(0, 2, 3, 1).flatten(1).float())
            deltas.append(self.deltas(x).permute(0, 2, 3, 1).reshape(len(x), -1, 4).float())
        grids = [(x.shape[2], x.shape[3]) for x in maps]
        return Answers(logits, deltas, anchor_grid(self.config.anchors, grids, frame_hw, maps[0].device))

    @torch.no_grad()
    def propose(self, answers: Answers, sizes_hw: Tensor, *, training: bool = False) -> list[Tensor]:
        """For each picture its proposals (kept, 4), best first, cut to the picture; nothing flows back (sec. 3.2).

        `training`: as many as are wanted for the second stage to learn from.
        """
        config = self.config
        most, kept = (config.train_candidates, config.train_kept) if training else (config.candidates, config.kept)
        boxes, scores, levels = [], [], []
        for level, (logits, deltas, anchors) in enumerate(zip(*answers, strict=True)):
            best, rows = logits.topk(min(most, logits.shape[1]), dim=1)
            moved = deltas.gather(1, rows[..., None].expand(-1, -1, 4))
            boxes.append(self.coder.decode(moved, anchors[rows]))
            scores.append(best.sigmoid())
            levels.append(torch.full((rows.shape[1],), level, device=rows.device))
        inside, level_of = clipped(torch.cat(boxes, dim=1), sizes_hw), torch.cat(levels)
        return [self._of_one(*one, level_of)[:kept] for one in zip(inside, torch.cat(scores, dim=1), strict=True)]

    def _of_one(self, boxes: Tensor, scores: Tensor, levels: Tensor) -> Tensor:
        """One picture's proposals, best first: those with an extent and a score, suppressed map by map."""
        sides = boxes[:, 2:] - boxes[:, :2]
        sound = (sides >= LEAST_SIDE).all(dim=1) & (scores >= self.config.min_score)
        boxes, scores, levels = boxes[sound], scores[sound], levels[sound]
        return boxes[grouped_nms(boxes, scores, levels, self.config.nms_iou)]

    def losses(self, answers: Answers, truths: Sequence[Truth], sizes_hw: Tensor) -> dict[str, Tensor]:
        """objectness: cross entropy of the sampled anchors; rpn_box: smooth L1 of the positives, per sample (eq. 1)."""
        logits, deltas = torch.cat(answers.logits, dim=1), torch.cat(answers.deltas, dim=1)
        anchors = torch.cat(answers.anchors)
        taught, goals, moved, wanted = [], [], [], []
        for i, truth in enumerate(truths):
            positive, negative, goal = self._wanted(anchors, truth, sizes_hw[i])
            taught += [logits[i, positive], logits[i, negative]]
            goals += [torch.ones_like(taught[-2]), torch.zeros_like(taught[-1])]
            moved.append(deltas[i, positive])
            wanted.append(goal)
        count = normaliser(sum(map(len, taught)))
        objectness = F.binary_cross_entropy_with_logits(torch.cat(taught), torch.cat(goals), reduction="sum")
        box = F.smooth_l1_loss(torch.cat(moved), torch.cat(wanted), reduction="sum", beta=self.config.beta)
        return {"objectness": objectness / count, "rpn_box": box / count}

    @torch.no_grad()
    def _wanted(self, anchors: Tensor, truth: Truth, size_hw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of one picture the rows of the positives drawn, of the negatives, and the deltas of the former."""
        match = self.matcher(iou(truth.boxes, anchors))
        positive = match >= 0
        negative = (match == BACKGROUND) & ~inside_any(anchors, truth.regions)
        if self.config.inside_only:
            inside = (anchors[:, :2] >= 0).all(dim=1) & (anchors[:, 2:] <= size_hw.flip(0)).all(dim=1)
            positive, negative = positive & inside, negative & inside
        drawn, rest = balanced_sample(positive, negative, self.config.samples, self.config.positives)
        return drawn, rest, self.coder.encode(truth.boxes[match[drawn]], anchors[drawn])


LEAST_SIDE = 1e-3  # pixels; nothing is pooled from less
