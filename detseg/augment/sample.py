"""`Sample`: a picture with its boxes or its label map, and the one way they are laid into a frame together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg.annotations.semantic import IGNORE
from detseg.augment.cutouts import Cutouts
from detseg.geometry import boxes as box_geometry

MIN_VISIBLE = 0.3  # an object of which less than this is left in view becomes an ignored region


@dataclass(frozen=True, eq=False)
class Sample:
    """image (h, w, 3) uint8 RGB; boxes (n, 4) float32 xyxy of it; labels (n,) int64; ignored (n,) bool.

    `masks` (n), where a model learns from them. A box is not narrowed to what is left of its mask. `label_map` (h, w)
    uint8, the class of each pixel or IGNORE, for models that learn from that; what borders a picture is IGNORE.
    `weights` (h, w), how much each pixel counts: made last, when nothing moves any more.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    ignored: NDArray[np.bool_]
    masks: Cutouts | None = None
    label_map: NDArray[np.uint8] | None = None
    weights: NDArray[np.float32] | None = None

    @classmethod
    def of_map(cls, image: NDArray[np.uint8], label_map: NDArray[np.uint8]) -> Sample:
        """A picture and the classes of its pixels, without objects."""
        nothing = np.zeros(0, np.int64)
        return cls(image, np.zeros((0, 4), np.float32), nothing, nothing.astype(np.bool_), None, label_map)

    def select(self, rows: NDArray[Any]) -> Sample:
        """Only the objects at `rows` (indices or a mask)."""
        masks = None if self.masks is None else self.masks[rows]
        return replace(self, boxes=self.boxes[rows], labels=self.labels[rows], ignored=self.ignored[rows], masks=masks)


_PROPOSAL = -1  # what stands for the class of a proposal on its way


def with_proposals(sample: Sample, proposals: NDArray[np.float32]) -> Sample:
    """The sample with (P, 4) proposals among its boxes, so that they move with the pixels as objects do.

    They count as ignored on the way: no object is looked for where they are. A sample with masks cannot have any.
    """
    if sample.masks is not None:
        raise ValueError("proposals have no masks")
    count = len(proposals)
    return replace(
        sample,
        boxes=np.concatenate([sample.boxes, proposals]).astype(np.float32),
        labels=np.concatenate([sample.labels, np.full(count, _PROPOSAL, np.int64)]),
        ignored=np.concatenate([sample.ignored, np.ones(count, np.bool_)]),
    )


def parted(sample: Sample) -> tuple[Sample, NDArray[np.float32]]:
    """The sample without proposals, and those that are left of them, (P, 4)."""
    proposed = sample.labels == _PROPOSAL
    return sample.select(~proposed), sample.boxes[proposed]


@dataclass(frozen=True)
class Window:
    """A part of the frame: pixels x0..x1, y0..y1."""

    x0: int
    y0: int
    x1: int
    y1: int


def lay(
    sample: Sample,
    frame: NDArray[np.uint8],
    window: Window,
    scale_xy: tuple[float, float],
    offset_xy: tuple[float, float],
) -> Sample:
    """Draws the sample into `window` of `frame` by frame = image * scale + offset; returns what is seen of it there.

    `frame` is the caller's fresh canvas and is drawn on; pixels of the window that the picture does not reach keep
    their colour. Boxes and masks are cut to the window; what is hardly visible is ignored, what is not visible is gone.
    """
    (sx, sy), (ox, oy) = scale_xy, offset_xy
    h, w = sample.image.shape[:2]
    left, top = max(window.x0, int(np.floor(ox))), max(window.y0, int(np.floor(oy)))
    right, bottom = min(window.x1, int(np.ceil(ox + w * sx))), min(window.y1, int(np.ceil(oy + h * sy)))
    inside = Window(left, top, right, bottom)
    if right <= left or bottom <= top:
        label_map = None if sample.label_map is None else np.full(frame.shape[:2], IGNORE, np.uint8)
        return replace(sample.select(np.zeros(len(sample.boxes), np.bool_)), label_map=label_map)
    # pixel i covers i .. i + 1, its centre is i + 0.5: hence the half pixels
    matrix = np.array([[sx, 0, ox - left + 0.5 * sx - 0.5], [0, sy, oy - top + 0.5 * sy - 0.5]])
    frame[top:bottom, left:right] = cv2.warpAffine(
        sample.image,
        matrix,
        (right - left, bottom - top),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    label_map = None if sample.label_map is None else _drawn(sample.label_map, frame.shape[:2], inside, matrix)
    moved = sample.boxes * np.array([sx, sy, sx, sy], np.float32) + np.array([ox, oy, ox, oy], np.float32)
    masks = None if sample.masks is None else sample.masks.moved(scale_xy, offset_xy, (left, top, right, bottom))
    sample = replace(sample, image=frame, boxes=moved, masks=masks, label_map=label_map)
    return seen(sample, inside)


def _drawn(
    label_map: NDArray[np.uint8], frame_hw: tuple[int, ...], inside: Window, matrix: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """(h, w) classes -> those of the whole frame, IGNORE where the picture is not seen."""
    drawn = np.full(frame_hw, IGNORE, np.uint8)
    size = (inside.x1 - inside.x0, inside.y1 - inside.y0)
    drawn[inside.y0 : inside.y1, inside.x0 : inside.x1] = cv2.warpAffine(
        label_map, matrix, size, flags=cv2.INTER_NEAREST, borderValue=IGNORE
    )
    return drawn


def seen(sample: Sample, window: Window) -> Sample:
    """Boxes cut to the window; what is hardly visible is ignored, what is not visible is gone. Masks are not cut."""
    bounds = np.array([[window.x0, window.y0], [window.x1, window.y1]], np.float32)
    cut = np.concatenate([np.clip(sample.boxes[:, :2], *bounds), np.clip(sample.boxes[:, 2:], *bounds)], axis=1)
    whole = np.maximum(box_geometry.area(sample.boxes), 1e-6)
    ignored = sample.ignored | (box_geometry.area(cut) / whole < MIN_VISIBLE)
    return replace(sample, boxes=cut, ignored=ignored).select(~box_geometry.is_degenerate(cut, 1.0))


def merge(frame: NDArray[np.uint8], parts: list[Sample]) -> Sample:
    """What several samples that share one frame hold; masks and label maps where all of them have them."""
    masks = [p.masks for p in parts if p.masks is not None]
    maps = [p.label_map for p in parts if p.label_map is not None]
    return Sample(
        frame,
        np.concatenate([p.boxes for p in parts]).astype(np.float32),
        np.concatenate([p.labels for p in parts]).astype(np.int64),
        np.concatenate([p.ignored for p in parts]).astype(np.bool_),
        Cutouts.concatenate(masks) if len(masks) == len(parts) else None,
        # they cover different places, and IGNORE, where they do not, is the largest value
        np.minimum.reduce(maps) if len(maps) == len(parts) else None,
    )
