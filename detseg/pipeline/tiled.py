"""Large pictures, tile by tile: what is asked of each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detseg.pipeline.frames import hw_of
from detseg.pipeline.members import Member
from detseg.postprocess.label_maps import resized, shares
from detseg.postprocess.tiles import Ask, Tiling, side_by_side
from detseg.postprocess.views import View
from detseg.preprocess import Placement, Preprocess
from detseg.preprocess.recipe import lay_in
from detseg.runtimes import Means, Parts


class TileLook(NamedTuple):
    """A view of the tiles of one picture, and what the network takes from all of it."""

    member: Member
    view: View
    means: Means


def asker(members: Sequence[Member], image: NDArray[np.uint8], tiling: Tiling, batch: int) -> Ask:
    """Whom to ask about tiles of this picture: all views of all members, told what they take from it as a whole."""

    def look(member: Member, view: View) -> TileLook:
        if tiling.count(hw_of(image)) == 1:
            return TileLook(member, view, ())
        parts = (_seen_of_tiles(view, *tiles) for tiles in side_by_side(image, tiling, batch))
        return TileLook(member, view, member.runtime.picture_means(parts))

    return partial(_shares, [look(member, view) for member in members for view in member.views.views])


def _shares(looks: Sequence[TileLook], tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, H, W, 3) tiles -> (N, K, H, W) the mean of all views' and members' probabilities."""
    whole = sum(look.member.weight_of_view for look in looks)
    mean = np.zeros((), np.float32)
    for look in looks:
        own, planes = shares(_of_tiles(look, tiles)), look.member.planes
        known = own if planes is None else own[:, planes]
        mean = mean + known * np.float32(look.member.weight_of_view / whole)
    return mean


def _of_tiles(look: TileLook, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, H, W, 3) tiles -> (N, K, H, W) logits of this view of them, in their own pixels."""
    tile_hw, frames = hw_of(tiles[0]), _tile_frames(look.view, tiles)
    logits = look.member.runtime.segment(frames, means=look.means)
    back = np.stack([look.view.logits(own, hw_of(frames[0])) for own in logits])
    if hw_of(frames[0]) == tile_hw:
        return back
    return np.stack([np.stack([resized(plane, tile_hw) for plane in own]) for own in back])


def _tile_frames(view: View, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W, 3) tiles as this view shows them."""
    laid = _tile_placement(view, tiles)
    return np.stack([view.frame(lay_in(tile, laid), laid.frame_hw) for tile in tiles])


def _seen_of_tiles(view: View, tiles: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Parts:
    """(N, H, W, 3) tiles and boxes (N, 4) in them as this view shows them; mirroring is its own way back."""
    laid = _tile_placement(view, tiles)
    return _tile_frames(view, tiles), view.boxes(laid.to_frame(boxes), laid.frame_hw)


def _tile_placement(view: View, tiles: NDArray[np.uint8]) -> Placement:
    return Placement.stretch(hw_of(tiles[0]), view.recipe(Preprocess(hw_of(tiles[0]))).frame_hw)
