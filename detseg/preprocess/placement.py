"""`Placement`: how a picture was laid into the network's frame, and the way back, in one class so they cannot drift."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from detseg.geometry.boxes import Boxes

MULTIPLE = 32  # sides of frames that take a picture's own shape: what the coarsest map of the usual networks divides by


@dataclass(frozen=True)
class Placement:
    """An axis-aligned map: frame = image * scale + offset, in continuous pixels.

    `image_hw` the picture, `frame_hw` the network's frame, `scale_xy` and `offset_xy` the map. `padded`: what the
    picture, which lies at the top left, does not cover is no part of what the network is shown. `window`: the part of
    the picture (x1, y1, x2, y2) that is laid in, where it is not all of it.
    Promise: `to_image(to_frame(boxes)) == boxes` up to rounding.
    """

    image_hw: tuple[int, int]
    frame_hw: tuple[int, int]
    scale_xy: tuple[float, float]
    offset_xy: tuple[float, float]
    padded: bool = False
    window: tuple[float, float, float, float] | None = None

    @classmethod
    def letterbox(cls, image_hw: tuple[int, int], frame_hw: tuple[int, int]) -> Placement:
        """The picture as large as fits, its shape kept, in the middle of the frame.

        The scale is that of the whole pixels the picture is resized to, so that boxes follow the pixels exactly.
        """
        (h, w), (frame_h, frame_w) = image_hw, frame_hw
        fit = min(frame_h / h, frame_w / w)
        new_h, new_w = max(1, min(frame_h, round(h * fit))), max(1, min(frame_w, round(w * fit)))
        offset_xy = (float((frame_w - new_w) // 2), float((frame_h - new_h) // 2))
        return cls(image_hw, frame_hw, (new_w / w, new_h / h), offset_xy)

    @classmethod
    def stretch(cls, image_hw: tuple[int, int], frame_hw: tuple[int, int]) -> Placement:
        """The picture pulled to the frame's size, whatever its shape."""
        (h, w), (frame_h, frame_w) = image_hw, frame_hw
        return cls(image_hw, frame_hw, (frame_w / w, frame_h / h), (0.0, 0.0))

    @classmethod
    def shorter(cls, image_hw: tuple[int, int], limits: tuple[int, int]) -> Placement:
        """The shorter side as long as the first of `limits`, unless the longer one would exceed the second.

        Sides are whole pixels, rounded down, and the frame is the least that holds them with sides that are multiples
        of 32: the rule of Fast R-CNN (Girshick 2015, sec. 4.1) with the numbers of torchvision's detectors.
        """
        (h, w), (least, most) = image_hw, limits
        fit = min(least / min(h, w), most / max(h, w))
        new_h, new_w = max(1, math.floor(h * fit)), max(1, math.floor(w * fit))
        frame_hw = (-(-new_h // MULTIPLE) * MULTIPLE, -(-new_w // MULTIPLE) * MULTIPLE)
        return cls(image_hw, frame_hw, (new_w / w, new_h / h), (0.0, 0.0), padded=True)

    @property
    def size_hw(self) -> tuple[int, int]:
        """What the network is shown, from the frame's top left: the picture where it is `padded`, else the frame."""
        return self.content_hw if self.padded else self.frame_hw

    @property
    def content_hw(self) -> tuple[int, int]:
        """The whole pixels of the frame that the picture covers, or its window."""
        x1, y1, x2, y2 = self.window or (0, 0, self.image_hw[1], self.image_hw[0])
        return round((y2 - y1) * self.scale_xy[1]), round((x2 - x1) * self.scale_xy[0])

    def within(self, image_hw: tuple[int, int], window: tuple[float, float, float, float]) -> Placement:
        """How a picture of `image_hw` is laid in of which only this `window` is, as a picture of its own, by this map.

        The window may be larger or smaller than the picture that was laid in: that is then a copy at another scale.
        """
        x1, y1, x2, y2 = window
        sx, sy = self.scale_xy[0] * self.image_hw[1] / (x2 - x1), self.scale_xy[1] * self.image_hw[0] / (y2 - y1)
        offset_xy = (self.offset_xy[0] - x1 * sx, self.offset_xy[1] - y1 * sy)
        return replace(self, image_hw=image_hw, scale_xy=(sx, sy), offset_xy=offset_xy, window=window)

    def to_frame(self, boxes: Boxes) -> Boxes:
        """(n, 4) boxes of the picture -> of the frame."""
        return boxes * np.array(self.scale_xy * 2, boxes.dtype) + np.array(self.offset_xy * 2, boxes.dtype)

    def to_image(self, boxes: Boxes) -> Boxes:
        """(n, 4) boxes of the frame -> of the picture; not clipped."""
        return (boxes - np.array(self.offset_xy * 2, boxes.dtype)) / np.array(self.scale_xy * 2, boxes.dtype)
