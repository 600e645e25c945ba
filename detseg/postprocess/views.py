"""Test-time augmentation: several views of a picture go through the network, and their answers become one.

A view is the network's frame at another size, mirrored or not, or a part of the picture in a frame of its own.
Mirroring is undone in the frame, where it is exact (the letterbox's border is mirrored too; of a padded frame only the
picture is, which stays at the top left); sizes and parts meet in the frame of the plain view. A box that ends at the
edge of a part is taken for a piece of an object and left to the views that show more of it.

A detection keeps the mask of the candidate it came from, mirrored as its view was; a box that is the mean of several
has the mask of the best of them, which is laid into the mean.
V views, A candidates, K classes, M side of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detseg.geometry.box_fusion import fuse_boxes
from detseg.postprocess.select import Selected, Selection, select
from detseg.preprocess import Placement, Preprocess
from detseg.preprocess.placement import MULTIPLE

Merge = Literal["nms", "wbf"]
Part = tuple[float, float, float, float]  # x1, y1, x2, y2 in shares of the picture's sides
WHOLE: Part = (0.0, 0.0, 1.0, 1.0)
SHARED = 0.25  # of a part's side: what it has in common with its neighbour
CUT = 0.01  # of a part's side: a box that ends as near to its edge is cut off by it


@dataclass(frozen=True)
class View:
    """One look at a `part` of the picture: `scale` of the frame's sides, mirrored on either axis, or not."""

    scale: float = 1.0
    mirror_x: bool = False
    mirror_y: bool = False
    part: Part = WHOLE

    def recipe(self, plain: Preprocess) -> Preprocess:
        """How the picture is laid into this view's frame: the sides are multiples of 32, unless they stay the same."""
        if self.scale == 1:
            return plain
        if plain.fit == "shorter":  # these are limits, and frames are multiples whatever they say
            least, most = (max(1, round(side * self.scale)) for side in plain.frame_hw)
            return replace(plain, frame_hw=(least, most))
        height, width = (max(MULTIPLE, round(side * self.scale / MULTIPLE) * MULTIPLE) for side in plain.frame_hw)
        return replace(plain, frame_hw=(height, width))

    def frame(self, frame: NDArray[Any], size_hw: tuple[int, int]) -> NDArray[Any]:
        """(H, W, ...) as this view shows it; `size_hw` is how much of it, from the top left, is mirrored.

        Its own way back: what is said of each pixel of a view becomes what is said of the frame.
        """
        if not (self.mirror_x or self.mirror_y):
            return frame
        height, width = size_hw
        mirrored = frame[:height, :width][:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]
        if mirrored.shape == frame.shape:
            return mirrored
        whole = frame.copy()
        whole[:height, :width] = mirrored
        return whole

    def boxes(self, boxes: NDArray[Any], size_hw: tuple[int, int]) -> NDArray[Any]:
        """(..., 4) xyxy seen in this view -> of its frame as it was laid."""
        if not (self.mirror_x or self.mirror_y):
            return boxes
        height, width = size_hw
        x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)
        if self.mirror_x:
            x1, x2 = width - x2, width - x1
        if self.mirror_y:
            y1, y2 = height - y2, height - y1
        return np.stack([x1, y1, x2, y2], axis=-1)

    def logits(self, logits: NDArray[np.float32], size_hw: tuple[int, int]) -> NDArray[np.float32]:
        """(K, H, W) of this view -> of its frame as it was laid."""
        back: NDArray[np.float32] = self.frame(logits.transpose(1, 2, 0), size_hw).transpose(2, 0, 1)
        return back

    def masks(self, masks: NDArray[Any]) -> NDArray[Any]:
        """(..., M, M) masks of boxes seen in this view -> of the boxes as they were laid."""
        return masks[..., :: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]


@dataclass(frozen=True)
class Views:
    """All looks at a picture, and how their answers are merged.

    "nms": all candidates together go through one selection. "wbf": each view is selected for itself, then boxes that
    agree become their weighted mean; what few views saw loses score (Solovyev et al. 2021).
    """

    views: tuple[View, ...] = (View(),)
    merge: Merge = "nms"

    def __post_init__(self) -> None:
        if not self.views or len(set(self.views)) < len(self.views):
            raise ValueError("views must be at least one, each once")
        if any(not 0 < view.scale < float("inf") for view in self.views):
            raise ValueError("the scale of a view must be positive")
        if any(not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1) for x1, y1, x2, y2 in (v.part for v in self.views)):
            raise ValueError("the part of a view must lie in the picture, (0, 0, 1, 1)")

    @property
    def is_plain(self) -> bool:
        """Whether the picture is looked at once, as it is."""
        return self.views == (View(),)

    @property
    def scales(self) -> tuple[float, ...]:
        """The different scales, in the views' order."""
        return tuple(dict.fromkeys(view.scale for view in self.views))

    @classmethod
    def of(
        cls, scales: Sequence[float] = (1.0,), flips: Literal["none", "horizontal", "all"] = "horizontal",
        merge: Merge = "nms", parts: int = 1,
    ) -> Views:  # fmt: skip
        """Every scale with every flip: none, left to right too, or top to bottom and both at once as well.

        `parts`: the same flips of parts x parts pieces of the picture, each as large as the frame.
        """
        mirrors = ((False, False), (True, False), (False, True), (True, True))
        some = mirrors[: {"none": 1, "horizontal": 2, "all": 4}[flips]]
        whole = tuple(View(scale, *mirror) for scale, mirror in product(dict.fromkeys(scales), some))
        pieces = _pieces(parts) if parts > 1 else ()
        return cls((*whole, *(View(1.0, *mirror, piece) for piece, mirror in product(pieces, some))), merge)

    def at_own_size(self) -> Views:
        """Only the flips and parts, for a model that takes no frame but its own."""
        return replace(self, views=tuple(dict.fromkeys(replace(view, scale=1.0) for view in self.views)))


def _pieces(count: int) -> tuple[Part, ...]:
    """count x count parts, row by row, neighbours with `SHARED` of a part in common."""
    side = 1 / (count - (count - 1) * SHARED)
    starts = [i * (1 - SHARED) * side for i in range(count)]
    spans = [(start, min(1.0, start + side)) for start in starts]
    return tuple((x1, y1, x2, y2) for (y1, y2), (x1, x2) in product(spans, spans))


class Answer(NamedTuple):
    """What the network said to one view of one picture: boxes (A, 4) of its frame, scores (A, K), its placement.

    masks (A, M, M) of a network that outlines objects.
    """

    view: View
    boxes: NDArray[Any]
    scores: NDArray[Any]
    placement: Placement
    masks: NDArray[Any] | None = None


def merge(answers: Sequence[Answer], plain: Placement, selection: Selection, how: Merge = "nms") -> Selected:
    """One picture's answers -> what stays of them, boxes in the frame of the `plain` placement, with their masks.

    Candidates are counted through all answers, one after another.
    """
    if how == "wbf" and len(answers) > 1:
        found = _fused(answers, plain, selection)
    else:
        boxes = _joined([_to_plain(a, plain, a.boxes) for a in answers])
        scores = _joined([_uncut_scores(a) for a in answers])
        found = select(boxes, scores, replace(selection, top_k=selection.top_k * len(answers)))
    return found._replace(masks=_masks(answers, found.candidates))


def _fused(answers: Sequence[Answer], plain: Placement, selection: Selection) -> Selected:
    # an object may be weak in one view and strong in others: what can still matter lies below the threshold
    single = replace(selection, conf=selection.conf / 10)
    found = [select(a.boxes, _uncut_scores(a), single) for a in answers]
    boxes = np.concatenate([_to_plain(a, plain, mine.boxes) for a, mine in zip(answers, found, strict=True)])
    scores, labels = (np.concatenate([part[i] for part in found]) for i in (1, 2))
    starts = _starts(answers)
    candidates = np.concatenate([start + mine.candidates for start, mine in zip(starts, found, strict=True)])
    rivals = np.zeros_like(labels) if selection.agnostic else labels
    fused = fuse_boxes(boxes, scores, rivals, selection.iou, views=len(answers))
    keep = np.flatnonzero(fused.scores > np.float32(selection.conf))[: selection.max_det]
    rows = fused.founders[keep]
    return Selected(
        fused.boxes[keep].astype(np.float32),
        np.minimum(fused.scores[keep], 1).astype(np.float32),
        labels[rows],
        candidates[rows],
    )


def _uncut_scores(answer: Answer) -> NDArray[Any]:
    """(A, K) scores, 0 for boxes that the edge of the view's part of the picture may have cut off."""
    window = answer.placement.window
    if window is None:
        return answer.scores
    h, w = answer.placement.image_hw
    x1, y1, x2, y2 = window
    margin_x, margin_y = CUT * (x2 - x1), CUT * (y2 - y1)
    seen = answer.placement.to_image(answer.view.boxes(answer.boxes, answer.placement.size_hw))
    # an edge that is the picture's own cuts nothing off
    cut = (seen[..., 0] < x1 + margin_x) & (x1 > 0)
    cut |= (seen[..., 1] < y1 + margin_y) & (y1 > 0)
    cut |= (seen[..., 2] > x2 - margin_x) & (x2 < w)
    cut |= (seen[..., 3] > y2 - margin_y) & (y2 < h)
    return np.where(cut if cut.ndim == 2 else cut[:, None], 0, answer.scores)


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _starts(answers: Sequence[Answer]) -> NDArray[np.int64]:
    """(V,) the number of each answer's first candidate."""
    return np.cumsum([0, *(len(a.scores) for a in answers[:-1])])


def _masks(answers: Sequence[Answer], candidates: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """(n, M, M) the masks of the candidates, in the order given."""
    first = answers[0].masks
    if first is None:
        return None
    starts = _starts(answers)
    chosen = np.zeros((len(candidates), *first.shape[1:]), np.float32)
    for view, (start, answer) in enumerate(zip(starts, answers, strict=True)):
        mine = np.flatnonzero(np.searchsorted(starts, candidates, "right") - 1 == view)
        assert answer.masks is not None
        chosen[mine] = answer.view.masks(answer.masks[candidates[mine] - start])
    return chosen


def _to_plain(answer: Answer, plain: Placement, boxes: NDArray[Any]) -> NDArray[Any]:
    """(n, 4) boxes of the answer's view -> of the plain view's frame."""
    laid = answer.view.boxes(boxes, answer.placement.size_hw)
    if answer.placement == plain:
        return laid
    return plain.to_frame(answer.placement.to_image(laid))
