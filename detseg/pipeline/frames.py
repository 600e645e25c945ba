"""A picture, read once and laid into every frame that somebody looks at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detseg.errors import ImageError
from detseg.images import ImageFile, read_image, read_image_and_hw
from detseg.pipeline.members import Member
from detseg.postprocess.views import WHOLE, Part, View
from detseg.preprocess import Placement, Preprocess
from detseg.preprocess.recipe import lay_in, stack


class Look(NamedTuple):
    """A way to lay a picture, or a part of it, into a frame."""

    recipe: Preprocess
    part: Part

    @classmethod
    def of(cls, member: Member, view: View) -> Look:
        """What this view needs."""
        return cls(view.recipe(member.plain), view.part)


@dataclass(frozen=True, eq=False)
class Laid:
    """A picture, or a part of it, in a frame (H, W, 3), and how it was laid in."""

    frame: NDArray[np.uint8]
    placement: Placement


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture of `image_hw` pixels in all frames that somebody looks at, and itself if asked for.

    `proposals`: for each member, boxes (P, 4) in pixels of the picture, None for one that wants none.
    """

    image_hw: tuple[int, int]
    laid: dict[Look, Laid]
    image: NDArray[np.uint8] | None
    proposals: tuple[NDArray[np.float32] | None, ...]


@dataclass(frozen=True, eq=False)
class Seen:
    """Several pictures as one view shows them to a network: `frames` (N, H, W, 3), and how each was `laid` in."""

    view: View
    laid: list[Laid]
    frames: NDArray[np.uint8]

    @property
    def sizes_hw(self) -> NDArray[np.int64] | None:
        """(N, 2) how much of each frame is shown; None where it is all of it."""
        if not any(laid.placement.padded for laid in self.laid):
            return None
        return np.array([laid.placement.size_hw for laid in self.laid], np.int64)


def seen(group: Sequence[Shown], member: Member) -> Iterator[Seen]:
    """The pictures in each of a member's views."""
    for view in member.views.views:
        laid = [shown.laid[Look.of(member, view)] for shown in group]
        yield Seen(view, laid, stack([view.frame(one.frame, one.placement.size_hw) for one in laid]))


def decoder(members: Sequence[Member], keep_image: bool) -> Callable[[ImageFile], Shown]:
    """What reads a picture once and lays it into all frames that the members' views want."""
    looks = tuple(dict.fromkeys(Look.of(member, view) for member in members for view in member.views.views))

    def decode(file: ImageFile) -> Shown:
        image = read_whole(file) if keep_image else None
        pixels, full_hw = (image, hw_of(image)) if image is not None else _read_for(file, looks)
        places = tuple(None if m.proposals is None else m.proposals(file, full_hw) for m in members)
        return Shown(full_hw, {look: lay(pixels, full_hw, look) for look in looks}, image, places)

    return decode


def _read_for(file: ImageFile, looks: Sequence[Look]) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """A picture with as many pixels as any of the frames shows, and its full size."""
    largest = [
        (math.ceil(h / (y2 - y1)), math.ceil(w / (x2 - x1)))
        for (h, w), (x1, y1, x2, y2) in ((look.recipe.largest_hw, look.part) for look in looks)
    ]
    _expect_no_fault(file)
    return read_image_and_hw(file.path, target_hw=(max(h for h, _ in largest), max(w for _, w in largest)))


def read_whole(file: ImageFile) -> NDArray[np.uint8]:
    """A picture as large as it is. Raises ImageError."""
    _expect_no_fault(file)
    return read_image(file.path)


def _expect_no_fault(file: ImageFile) -> None:
    if file.fault is not None:
        raise ImageError(file.path, file.fault)


def lay(pixels: NDArray[np.uint8], full_hw: tuple[int, int], look: Look) -> Laid:
    """The picture of `full_hw`, or a smaller copy of it, in a frame."""
    if look.part == WHOLE:
        placement = look.recipe.placement(full_hw)
        return Laid(lay_in(pixels, placement, look.recipe.fill), placement)
    h, w = pixels.shape[:2]
    x1, y1, x2, y2 = (round(share * side) for share, side in zip(look.part, (w, h, w, h), strict=True))
    part = pixels[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
    placement = look.recipe.placement(hw_of(part))
    across, down = full_hw[1] / w, full_hw[0] / h
    window = (x1 * across, y1 * down, (x1 + part.shape[1]) * across, (y1 + part.shape[0]) * down)
    return Laid(lay_in(part, placement, look.recipe.fill), placement.within(full_hw, window))


def hw_of(image: NDArray[np.uint8]) -> tuple[int, int]:
    """The size of a picture (h, w, 3)."""
    return image.shape[0], image.shape[1]
