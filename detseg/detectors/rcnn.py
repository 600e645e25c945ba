"""R-CNN: proposals cut out of the picture, each warped to a square and judged by a network alone.

R. Girshick, J. Donahue, T. Darrell, J. Malik: Rich feature hierarchies for accurate object detection and semantic
segmentation, 2014, arXiv 1311.2524v5 ("paper"); R. Girshick: the authors' program, 2013, where the paper is silent.

    paper                                              here
    sec. 2.1 and app. A, warping with context          `warped`
    sec. 2.3, fine-tuning, 32 and 96 of each batch     `RCNN.losses`
    sec. 2.3 and app. B, what teaches an SVM           `detectors.rcnn_stages.learn_svms`
    sec. 2.3, hard negative mining                     `detectors.rcnn_stages.MinedSVM`
    sec. 2.2, judging proposals                        `RCNN.detect`
    app. B, softmax instead of SVMs                    `RCNNConfig.judge`
    app. C, a regression of boxes for each class       `detectors.rcnn_stages.learn_regression`, `parts.box_coder`

Training by gradient (fine-tuning with a softmax) comes first. Then come `later_stages`: features of all proposals are
written down, SVMs learn from them, and box regressions. Until these are learnt the softmax judges, and boxes stay.

Differences from the paper:
- Any backbone of the shared module, at any size of crops. `rcnn` is light: crops of 112 pixels; `rcnn-alexnet` has the
  paper's network and its 227 pixels.
- Crops are cut from the network's frame, whose border beyond the picture is grey, not from the picture itself.
- Fine-tuning draws from the pictures of a batch, not from all of the data set; they are mirrored and altered in
  colour and size as for other models.
- A score is the logistic function of three times an SVM's answer: 0.5 lies on its border.
- Of a class with fewer than 1,000 objects each mistake of its SVM counts for more, as if there were so many.
- Boxes are moved before suppression, not after it.
- Ignored regions (crowds, difficult objects) are neither objects nor background.

Shapes: N pictures, P proposals of a picture, S crops over all pictures, K classes, V features that SVMs judge, D that
boxes are moved by. Boxes are xyxy pixels of the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import roi_align

from detseg.backbones.catalog import build_backbone
from detseg.backbones.spec import Backbone
from detseg.detectors import rcnn_stages as stages
from detseg.detectors.contract import Detector, Lessons, Target
from detseg.errors import DetsegError
from detseg.parts.box_coder import BoxCoder
from detseg.parts.class_rows import ClassRows
from detseg.parts.frames import clipped, sizes_of, whole_frames
from detseg.parts.ground_truth import Truth
from detseg.parts.grouped_settings import flat, grouped
from detseg.parts.matcher import BACKGROUND, Matcher
from detseg.parts.overlaps import inside_any, iou
from detseg.parts.sampler import balanced_sample
from detseg.proposals.sources import ProposalSettings
from detseg.results import RawDetections

AT_ONCE = 256  # crops that go through the network together
STEEP = 3.0  # an SVM's margin, -1 and 1, becomes the scores 0.05 and 0.95


@dataclass(frozen=True)
class RCNNConfig:
    """What makes an R-CNN; stored in its checkpoint, each entry of a group as group.entry."""

    num_classes: int
    backbone: str = "efficientnet_lite0"
    proposals: ProposalSettings = field(default_factory=ProposalSettings)  # 2000 of fast mode, sec. 2.2
    side: int = 227  # of a crop, sec. 2.1
    context: int = 16  # pixels of a crop, on each side, that show what is around the proposal, app. A
    sampling: int = 2  # points that a pixel of a crop is the mean of, along each side
    stride: int = 32  # of the backbone's map that is used
    cells: int = 6  # rows and columns that this map is pooled to: pool5
    hidden: tuple[int, ...] = (4096, 4096)  # fc6, fc7
    dropout: float = 0.5  # behind each of those in fine-tuning
    samples: int = 128  # crops of a batch, sec. 2.3
    positives: float = 0.25  # share of them, at most: 32
    positive_iou: float = 0.5  # in fine-tuning
    judge: Literal["svm", "softmax"] = "svm"
    svm_negative_iou: float = 0.3  # negatives of an SVM overlap all objects of its class less, sec. 2.3
    svm_c: float = 0.001  # the authors' program, as the next
    svm_positive_weight: float = 2.0  # of a positive's mistake
    refine: bool = True  # boxes are moved, app. C
    box_iou: float = 0.6  # what a regression learns from overlaps its object more, app. C
    ridge: float = 1000.0  # how strongly it is held back, app. C

    def __post_init__(self) -> None:
        if self.side < 1 or not 0 <= 2 * self.context < self.side:
            raise ValueError("side must be at least 1 and hold the context twice")
        if min(self.sampling, self.cells, self.samples) < 1 or not self.hidden or min(self.hidden) < 1:
            raise ValueError("sampling, cells, samples and every hidden layer must be at least 1; one layer is needed")
        if not (0 <= self.positives <= 1 and 0 <= self.dropout < 1):
            raise ValueError("positives must lie in [0, 1], dropout in [0, 1)")
        if not (0 < self.positive_iou < 1 and 0 < self.svm_negative_iou <= 1 and 0 < self.box_iou < 1):
            raise ValueError("positive_iou, svm_negative_iou and box_iou must lie between 0 and 1")
        if min(self.svm_c, self.svm_positive_weight, self.ridge) <= 0:
            raise ValueError("svm_c, svm_positive_weight and ridge must be above 0")


class RCNN(Detector):
    """A classifier of crops, and what is learnt on its features. Built by `build`."""

    takes_proposals: ClassVar[bool] = True
    svm_weight: Tensor
    svm_bias: Tensor
    box_weight: Tensor
    box_bias: Tensor
    judges: Tensor
    moves: Tensor

    def __init__(self, config: RCNNConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config, self.backbone = config, backbone
        pooled = backbone.features[0].channels * config.cells**2  # D
        layers: list[nn.Module] = []
        width = pooled
        for out in config.hidden:
            layers += [nn.Linear(width, out), nn.ReLU(), nn.Dropout(config.dropout)]
            width = out
        self.fcs = nn.Sequential(*layers)
        self.logits = nn.Linear(width, 1 + config.num_classes)
        nn.init.normal_(self.logits.weight, std=0.01)
        nn.init.zeros_(self.logits.bias)
        self.register_buffer("svm_weight", torch.zeros(config.num_classes, width))
        self.register_buffer("svm_bias", torch.zeros(config.num_classes))
        self.register_buffer("box_weight", torch.zeros(config.num_classes, 4, pooled))
        self.register_buffer("box_bias", torch.zeros(config.num_classes, 4))
        # whether these are learnt: 1 or 0
        self.register_buffer("judges", torch.zeros((), dtype=torch.int64))
        self.register_buffer("moves", torch.zeros((), dtype=torch.int64))
        self.coder = BoxCoder()
        self.matcher = Matcher(config.positive_iou, config.positive_iou)

    def pooled(self, crops: Tensor) -> Tensor:
        """(S, 3, side, side) -> (S, D): the last map in few cells."""
        maps = self.backbone(crops.contiguous(memory_format=torch.channels_last))[0]
        return F.adaptive_max_pool2d(maps, self.config.cells).flatten(1).float()

    def crops(self, image: Tensor, boxes: Tensor) -> Tensor:
        """(3, H, W), (P, 4) -> (P, 3, side, side); see `warped`."""
        return warped(image, boxes, self.config.side, self.config.context, self.config.sampling)

    def features(self, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """(3, H, W), (P, 4) -> what boxes are moved by, (P, D), and what SVMs judge, (P, V)."""
        if not len(boxes):
            return boxes.new_zeros(0, self.box_weight.shape[2]), boxes.new_zeros(0, self.svm_weight.shape[1])
        pooled = torch.cat([self.pooled(self.crops(image, some)) for some in boxes.split(AT_ONCE)])
        return pooled, self.fcs(pooled)

    def detect(self, images: Tensor, proposals: Sequence[Tensor] | None = None) -> RawDetections:
        """Every proposal moved as each class wants it, boxes (N, P, K, 4), cut to the frame; not yet suppressed.

        P is that of the picture with the most; what others lack has score 0. Without proposals each frame is one.
        """
        proposals = whole_frames(images) if proposals is None else proposals
        answers = [self._answer(image, boxes) for image, boxes in zip(images, proposals, strict=True)]
        boxes, scores = (pad_sequence(list(rows), batch_first=True) for rows in zip(*answers, strict=True))
        return RawDetections(boxes, scores)

    def _answer(self, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """(3, H, W), (P, 4) -> boxes (P, K, 4), scores (P, K)."""
        pooled, seen = self.features(image, boxes)
        moved = boxes[:, None].expand(-1, self.config.num_classes, 4)
        if self.config.refine:
            deltas = torch.einsum("pd,kcd->pkc", pooled, self.box_weight) + self.box_bias
            moved = self.coder.decode(deltas * self.moves, moved)
        by_softmax = self.logits(seen).float().softmax(dim=1)[:, 1:]
        by_svm = torch.sigmoid(STEEP * (seen @ self.svm_weight.T + self.svm_bias))
        scores = torch.where(self.judges > 0, by_svm, by_softmax)
        return clipped(moved, sizes_of(image[None], None).expand(len(boxes), 2)), scores

    def rehearse(self, images: Tensor) -> None:
        """See `Detector.rehearse`: as many crops as it wants proposals."""
        side, count = self.config.side, self.config.proposals.count * images.shape[0]
        self.fcs(self.pooled(images.new_zeros(count, 3, side, side)))

    def class_rows(self) -> dict[str, ClassRows]:
        """The softmax knows background, too."""
        svms_and_boxes = dict.fromkeys(("svm_weight", "svm_bias", "box_weight", "box_bias"), ClassRows())
        return {"logits": ClassRows(shared=1), **svms_and_boxes}

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Cross entropy over the crops of a batch, at most a quarter of them objects (sec. 2.3); 0 without any."""
        boxes, classes = self._lessons(targets)
        crops = [self.crops(image, some) for image, some in zip(images, boxes, strict=True) if len(some)]
        if sum(map(len, crops)) < 2:  # a batch norm that learns has no use for a single value
            return {"class": sum(p.sum() for p in self.logits.parameters()) * torch.zeros((), device=images.device)}
        logits = self.logits(self.fcs(self.pooled(torch.cat(crops)))).float()
        return {"class": F.cross_entropy(logits, torch.cat(classes))}

    @torch.no_grad()
    def _lessons(self, targets: Sequence[Target]) -> tuple[list[Tensor], list[Tensor]]:
        """For each picture the boxes (m, 4) that are learnt and their classes (m,), 0 for background.

        Drawn over all pictures together; objects themselves are among what is drawn from.
        """
        boxes, labels, marks = [], [], []
        for target in targets:
            truth = Truth.of(target)
            given = target.boxes[:0] if target.proposals is None else target.proposals
            some = torch.cat([given, truth.boxes])
            match = self.matcher(iou(truth.boxes, some))
            found = torch.zeros_like(match)
            found[match >= 0] = truth.labels[match[match >= 0]] + 1
            boxes.append(some)
            labels.append(found)
            marks.append((match == BACKGROUND) & ~inside_any(some, truth.regions))
        classes, negative = torch.cat(labels), torch.cat(marks)
        drawn = torch.cat(balanced_sample(classes > 0, negative, self.config.samples, self.config.positives))
        chosen = torch.zeros_like(negative)
        chosen[drawn] = True
        parts = chosen.split([len(b) for b in boxes])
        return ([b[p] for b, p in zip(boxes, parts, strict=True)], [c[p] for c, p in zip(labels, parts, strict=True)])

    @property
    def later_stages(self) -> tuple[str, ...]:
        """What comes behind fine-tuning."""
        svms = ("SVMs",) if self.config.judge == "svm" else ()
        regressions = ("box regressions",) if self.config.refine else ()
        return ("features", *svms, *regressions) if svms or regressions else ()

    def learn_stage(self, stage: str, lessons: Lessons, folder: Path) -> Iterator[tuple[int, int]]:
        """See `Detector.learn_stage`."""
        config = self.config
        if stage == "features":
            yield from stages.write_features(
                self, lessons, folder, classes=config.num_classes, least_iou=config.box_iou
            )
        elif stage == "SVMs":
            yield from stages.learn_svms(folder, config)
            weight, bias = stages.read_svms(folder)
            self.svm_weight.copy_(weight)
            self.svm_bias.copy_(bias)
            self.judges.fill_(1)
        else:
            yield from stages.learn_regressions(folder, config)
            weight, bias = stages.read_regressions(folder, config.num_classes)
            self.box_weight.copy_(weight)
            self.box_bias.copy_(bias)
            self.moves.fill_(1)


def warped(image: Tensor, boxes: Tensor, side: int, context: int, sampling: int = 1) -> Tensor:
    """(C, H, W), (P, 4) -> (P, C, side, side): each box pulled to a square, with what is around it (app. A).

    `context` pixels on each side of a crop show the surroundings, at the scale of the box, each axis its own. What
    lies beyond the image is 0: the mean colour of a normalised image. Each pixel is the mean of `sampling` points
    along each side.
    """
    inner = side - 2 * context
    around = (boxes[:, 2:] - boxes[:, :2]) * (context / inner)
    seen = torch.cat([boxes[:, :2] - around, boxes[:, 2:] + around], dim=1).to(torch.float32)
    rois = torch.cat([seen.new_zeros(len(seen), 1), seen], dim=1)
    crops: Tensor = roi_align(image[None].float(), rois, (side, side), 1.0, sampling, aligned=True)
    # beyond the border RoIAlign goes on with its colour for half a pixel
    height, width = image.shape[1:]
    rows = _within(seen[:, 1], seen[:, 3], height, side)
    columns = _within(seen[:, 0], seen[:, 2], width, side)
    return crops * (rows[:, None, :, None] & columns[:, None, None, :])


def _within(start: Tensor, end: Tensor, length: int, side: int) -> Tensor:
    """(P,), (P,) -> (P, side) bool: which of the centres of `side` pixels between start and end lie in 0 .. length."""
    steps = (torch.arange(side, device=start.device) + 0.5) / side
    centres = start[:, None] + (end - start)[:, None] * steps
    return (centres > 0) & (centres < length)


def build(
    config: RCNNConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> RCNN:
    """The detector of `config`; `backbone_weights` and `progress` as `build_backbone` takes them."""
    backbone = build_backbone(config.backbone, strides=(config.stride,), weights=backbone_weights, progress=progress)
    return RCNN(config, backbone)


def configure(num_classes: int, options: Mapping[str, Any], anchors: Callable[[int], Any] | None) -> RCNNConfig:
    """The config for new data: `options` over the defaults. Raises DetsegError for one that there is not or not so."""
    try:
        return grouped({**options, "num_classes": num_classes}, RCNNConfig(1))
    except (TypeError, ValueError) as error:
        raise DetsegError(f"R-CNN cannot be built so: {error}") from error


def config_from_json(values: dict[str, Any]) -> RCNNConfig:
    """The config from a checkpoint's JSON (lists become tuples)."""
    return grouped(values, RCNNConfig(1))


def config_to_json(config: RCNNConfig) -> dict[str, Any]:
    """The config as plain JSON values, flat."""
    return flat(config)
