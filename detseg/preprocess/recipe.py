"""`Preprocess`: how a model wants its pictures. Stored in every checkpoint, obeyed by every runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg.preprocess.placement import Placement

Frame = NDArray[np.uint8]  # (H, W, 3) RGB
Fit = Literal["letterbox", "stretch", "shorter"]
FITS: tuple[str, ...] = get_args(Fit)


@dataclass(frozen=True)
class Preprocess:
    """Size, way of fitting and normalisation of a model's input.

    `frame_hw` pixels; `fit` "letterbox" keeps the picture's shape and fills the rest with `fill`, "stretch" does
    not. With "shorter" frames have the picture's own shape: `frame_hw` then are the most pixels of its shorter and of
    its longer side, and what it does not cover is 0 to the network. The network sees (pixel - mean) / std per RGB
    channel, pixels 0..255.
    """

    frame_hw: tuple[int, int] = (320, 320)
    fit: Fit = "letterbox"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # ImageNet, as torchvision, times 255
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    fill: int = 114

    def place(self, image: NDArray[np.uint8]) -> tuple[Frame, Placement]:
        """(h, w, 3) uint8 RGB of any size -> (H, W, 3) uint8 frame and how it was laid in."""
        h, w = image.shape[:2]
        placement = self.placement((h, w))
        return lay_in(image, placement, self.fill), placement

    def placement(self, image_hw: tuple[int, int]) -> Placement:
        """How a picture of this size is laid into the frame."""
        lay = {"letterbox": Placement.letterbox, "stretch": Placement.stretch, "shorter": Placement.shorter}
        return lay[self.fit](image_hw, self.frame_hw)

    def sized(self, frame_hw: tuple[int, int]) -> Preprocess:
        """The same in frames of `frame_hw`; where they have their pictures' shape one side twice is the shorter side,
        and the limit of the longer one stays in proportion.
        """
        least, most = frame_hw
        if self.fit == "shorter" and least == most:
            most = round(least * self.frame_hw[1] / self.frame_hw[0])
        return replace(self, frame_hw=(least, most))

    @property
    def largest_hw(self) -> tuple[int, int]:
        """The most pixels that a picture may come to cover, in height and width, whatever its shape."""
        side = max(self.frame_hw)
        return (side, side) if self.fit == "shorter" else self.frame_hw

    def normalise(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, H, W, 3) uint8 frames -> (N, 3, H, W) float32, as the network sees them."""
        scaled = (frames.astype(np.float32) - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def lay_in(image: NDArray[np.uint8], placement: Placement, fill: int = 114) -> Frame:
    """The picture's pixels put into a new frame as `placement` says (offsets must be whole pixels)."""
    content_h, content_w = placement.content_hw
    shrinks = content_h <= image.shape[0] and content_w <= image.shape[1]
    if (content_h, content_w) != image.shape[:2]:
        # INTER_AREA averages every source pixel when shrinking much; linear is as good and faster near 1:1. Where a
        # side grows, INTER_AREA would shift the pixels by half a step
        far = image.shape[0] > 2 * content_h or image.shape[1] > 2 * content_w
        how = cv2.INTER_AREA if shrinks and far else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, (content_w, content_h), interpolation=how), np.uint8)
    if image.shape[:2] == placement.frame_hw:
        return np.ascontiguousarray(image)
    left, top = round(placement.offset_xy[0]), round(placement.offset_xy[1])
    frame = np.full((*placement.frame_hw, 3), fill, np.uint8)
    frame[top : top + content_h, left : left + content_w] = image
    return frame


def lay_in_map(label_map: NDArray[np.uint8], placement: Placement, fill: int) -> NDArray[np.uint8]:
    """(h, w) classes of the picture's pixels -> (H, W) of the frame's, each that of the nearest; `fill` beside it."""
    content_h, content_w = placement.content_hw
    drawn = np.full(placement.frame_hw, fill, np.uint8)
    left, top = round(placement.offset_xy[0]), round(placement.offset_xy[1])
    resized = cv2.resize(label_map, (content_w, content_h), interpolation=cv2.INTER_NEAREST_EXACT)
    drawn[top : top + content_h, left : left + content_w] = resized
    return drawn


def stack(frames: Sequence[Frame]) -> NDArray[np.uint8]:
    """(H_i, W_i, 3) frames -> (N, H, W, 3), as large as the largest, each at the top left with black beside it."""
    if len({frame.shape for frame in frames}) == 1:
        return np.stack(frames)
    height, width = (max(frame.shape[axis] for frame in frames) for axis in (0, 1))
    whole = np.zeros((len(frames), height, width, 3), np.uint8)
    for row, frame in zip(whole, frames, strict=True):
        row[: frame.shape[0], : frame.shape[1]] = frame
    return whole
