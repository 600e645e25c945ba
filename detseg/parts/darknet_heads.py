"""What Darknet's [region] (YOLOv2) and [yolo] (v3 and later) layers say, and how they learn.

J. Redmon, A. Farhadi: YOLO9000, 2017 ("v2"); YOLOv3, 2018 ("v3"); A. Bochkovskiy et al.: YOLOv4, 2020 ("v4");
C.-Y. Wang et al.: Scaled-YOLOv4, 2021 ("scaled").

    paper                                           here
    v2 sec. 2, fig. 3, direct location prediction   `Head.decode`
    v4 sec. 3.3, "eliminate grid sensitivity"       `scale_xy`: centres reach over the edge of their cell
    scaled, new coordinates                         `new_coords`: sigmoids in place of exponentials
    v3 sec. 2.1, one prior a truth, ignore > 0.5    `assign`, `Head.losses`
    v4 sec. 3.4, multiple anchors for a truth       `assign`: also priors over `iou_thresh`

Shapes: N pictures, A priors of a head, (R, C) rows and columns of its grid, K classes, T truths of the batch, P
positives. Boxes are xyxy pixels of the network's frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detseg.parts.box_losses import IoUKind, paired_iou
from detseg.parts.overlaps import area, inside_any, shared_area

MAX_LOG_SIDE = 8.0  # e^8 priors is more than any picture; a wild number must not overflow


class Positives(NamedTuple):
    """What one head answers for, a row each: which truth, which of its priors, which cell."""

    truth: Tensor
    prior: Tensor
    row: Tensor
    col: Tensor


class BatchTruth(NamedTuple):
    """The truths of a batch in one row each, and the regions that count neither way."""

    image: Tensor  # (T,)
    boxes: Tensor  # (T, 4)
    labels: Tensor  # (T,)
    ignored_image: Tensor
    ignored_boxes: Tensor


class Head(nn.Module):
    """The convolution `predictor` and the meaning of its numbers: A times x, y, w, h, objectness, K classes.

    `anchors` (w, h) of its priors: pixels of the frame, or cells where `in_cells`. `softmax`: the classes exclude each
    other. `new_coords`: the predictor ends in a sigmoid, which is left to `decode` and the losses.
    """

    anchors: Tensor

    def __init__(
        self,
        predictor: nn.Module,
        anchors: Sequence[tuple[float, float]],
        classes: int,
        *,
        in_cells: bool = False,
        softmax: bool = False,
        scale_xy: float = 1.0,
        new_coords: bool = False,
        ignore_iou: float = 0.5,
        box_loss: IoUKind = "ciou",
    ) -> None:
        super().__init__()
        self.predictor = predictor
        self.classes, self.in_cells, self.softmax = classes, in_cells, softmax
        self.scale_xy, self.new_coords = scale_xy, new_coords
        self.ignore_iou, self.box_loss = ignore_iou, box_loss
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(N, channels, R, C) -> (N, A, R, C, 5 + K), before any sigmoid."""
        r, c = features.shape[2:]
        raw = self.predictor(features)
        return raw.reshape(-1, len(self.anchors), 5 + self.classes, r, c).permute(0, 1, 3, 4, 2).float()

    def priors(self, frame_hw: tuple[int, int], grid_rc: tuple[int, int]) -> Tensor:
        """(A, 2) widths and heights in pixels of the frame."""
        return self.anchors * self._cell(frame_hw, grid_rc) if self.in_cells else self.anchors

    def answer(self, raw: Tensor, frame_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(N, A, R, C, 5 + K) -> boxes (N, A * R * C, 4), scores (N, A * R * C, K) = Pr(object) * Pr(class)."""
        count = raw.shape[1] * raw.shape[2] * raw.shape[3]
        boxes = self.decode(raw[..., :4], frame_hw)
        classes = raw[..., 5:].softmax(dim=-1) if self.softmax else raw[..., 5:].sigmoid()
        scores = raw[..., 4:5].sigmoid() * classes
        return boxes.reshape(-1, count, 4), scores.reshape(-1, count, self.classes)

    def decode(self, t: Tensor, frame_hw: tuple[int, int]) -> Tensor:
        """(N, A, R, C, 4) x, y, w, h as predicted -> boxes of the same shape."""
        rows, cols = t.shape[2], t.shape[3]
        priors = self.priors(frame_hw, (rows, cols))[:, None, None]
        return self._boxes(t, _cells(rows, cols, t.device), priors, self._cell(frame_hw, (rows, cols)))

    def _boxes(self, t: Tensor, cells: Tensor, priors: Tensor, cell_xy: Tensor) -> Tensor:
        """(..., 4) predictions in `cells` (..., 2) (col, row) with `priors` (..., 2) -> (..., 4) boxes."""
        # v4: sigmoid * s - (s - 1) / 2, so that centres on the edge of a cell need no infinite number
        xy = t[..., :2].sigmoid() * self.scale_xy - (self.scale_xy - 1) / 2
        if self.new_coords:
            wh = (2 * t[..., 2:4].sigmoid()) ** 2
        else:
            wh = t[..., 2:4].clamp(max=MAX_LOG_SIDE).exp()
        centre, half = (xy + cells) * cell_xy, wh * priors / 2
        return torch.cat([centre - half, centre + half], dim=-1)

    def _cell(self, frame_hw: tuple[int, int], grid_rc: tuple[int, int]) -> Tensor:
        """(2,) width and height of a cell in pixels; the grid covers the frame whatever its size."""
        return self.anchors.new_tensor([frame_hw[1] / grid_rc[1], frame_hw[0] / grid_rc[0]])

    def losses(
        self, raw: Tensor, truth: BatchTruth, positives: Positives, frame_hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Box, objectness and class loss, summed over the batch."""
        rows, cols = raw.shape[2], raw.shape[3]
        where = (truth.image[positives.truth], positives.prior, positives.row, positives.col)
        chosen = raw[where]  # (P, 5 + K)
        boxes = self._boxes(
            chosen[:, :4],
            torch.stack([positives.col, positives.row], dim=1).to(raw.dtype),
            self.priors(frame_hw, (rows, cols))[positives.prior],
            self._cell(frame_hw, (rows, cols)),
        )
        box = (1 - paired_iou(boxes, truth.boxes[positives.truth], self.box_loss)).sum()
        wanted = torch.zeros_like(raw[..., 4])
        wanted[where] = 1
        counted = self._counted(raw, truth, frame_hw)
        counted[where] = True
        objectness = F.binary_cross_entropy_with_logits(raw[..., 4], wanted, reduction="none")[counted].sum()
        return box, objectness, self._class_loss(chosen[:, 5:], truth.labels[positives.truth])

    def _class_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(P, K), (P,) -> one number."""
        if self.softmax:
            return F.cross_entropy(logits, labels, reduction="sum")
        return F.binary_cross_entropy_with_logits(logits, F.one_hot(labels, self.classes).float(), reduction="sum")

    @torch.no_grad()
    def _counted(self, raw: Tensor, truth: BatchTruth, frame_hw: tuple[int, int]) -> Tensor:
        """(N, A, R, C): False where a box is not called background.

        These are boxes that cover some truth better than `ignore_iou` (v3 sec. 2.1), and those that lie mostly in an
        ignored region (crowd, difficult).
        """
        boxes = self.decode(raw[..., :4], frame_hw)
        counted = torch.ones(boxes.shape[:-1], dtype=torch.bool, device=boxes.device)
        for i in range(len(boxes)):
            flat, own = boxes[i].reshape(-1, 4), truth.boxes[truth.image == i]
            regions = truth.ignored_boxes[truth.ignored_image == i]
            shared = shared_area(flat, own)
            covers = shared > self.ignore_iou * (area(flat)[:, None] + area(own)[None] - shared)
            skipped = covers.any(dim=1) | inside_any(flat, regions)
            counted[i] = ~skipped.reshape(counted[i].shape)
        return counted


@torch.no_grad()
def assign(
    boxes: Tensor,
    priors: Sequence[Tensor],
    grids_rc: Sequence[tuple[int, int]],
    frame_hw: tuple[int, int],
    iou_thresh: Sequence[float],
) -> list[Positives]:
    """(T, 4) truths -> the positives of each head, in the cell of the truth's centre.

    Of all priors (A, 2) of all heads the one that overlaps a truth most when centred on it answers for it (v3 sec.
    2.1), and with it every prior that does so over its head's `iou_thresh` (v4; 1: none).
    """
    sides, centres = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2
    every = torch.cat(list(priors))
    shared = torch.minimum(sides[:, None], every[None]).prod(dim=2)
    overlap = shared / (sides.prod(dim=1)[:, None] + every.prod(dim=1)[None] - shared)  # (T, sum of A)
    best = overlap.argmax(dim=1) if len(boxes) else overlap.new_zeros(0, dtype=torch.int64)
    found, first = [], 0
    for own, (rows, cols), thresh in zip(priors, grids_rc, iou_thresh, strict=True):
        here = torch.arange(first, first + len(own), device=boxes.device)
        answers = (best[:, None] == here[None]) | (overlap[:, first : first + len(own)] > thresh)
        truth, prior = answers.nonzero(as_tuple=True)
        col = (centres[truth, 0] * (cols / frame_hw[1])).long().clamp(0, cols - 1)
        row = (centres[truth, 1] * (rows / frame_hw[0])).long().clamp(0, rows - 1)
        found.append(Positives(truth, prior, row, col))
        first += len(own)
    return found


def _cells(rows: int, cols: int, device: torch.device) -> Tensor:
    """(R, C, 2) the (col, row) of every cell."""
    row, col = torch.meshgrid(
        torch.arange(rows, device=device, dtype=torch.float32),
        torch.arange(cols, device=device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack([col, row], dim=-1)
