"""Regions of a picture: where they lie, which touch, and what they look like, all of a segmentation at once.

R regions, P pixels, C channels. Uijlings et al. 2013, section 3.2: colour is a histogram of 25 bins a channel, texture
one of 10 bins for each of 8 directions of Gaussian derivatives (sigma 1) a channel; both have the sum 1, so that the
similarity of two regions is the sum of the smaller of each pair of bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

COLOUR_BINS = 25
TEXTURE_BINS = 10
DIRECTIONS = 8
_SIGNED = 2 * TEXTURE_BINS - 1  # a derivative and its negative are counted in one go: bins -9 .. 9
# A derivative of sigma 1 across an edge from 0 to 255 peaks at 255 / sqrt(2 pi) = 102; few edges in photographs have
# a quarter of that, and what is above shares the last bin.
_TEXTURE_RANGE = 25.0


@dataclass(frozen=True, eq=False)
class Regions:
    """R regions: sizes (R,) pixels; boxes (R, 4) xyxy whole pixels, outer edges; pairs (m, 2) that touch, i < j;
    colour (R, C * 25), texture (R, C * 80) float32, each row with the sum 1; area of the picture in pixels.
    """

    sizes: NDArray[np.int64]
    boxes: NDArray[np.int64]
    pairs: NDArray[np.int64]
    colour: NDArray[np.float32]
    texture: NDArray[np.float32]
    area: int


@dataclass(frozen=True, eq=False)
class PixelBins:
    """Which bins each pixel of a picture counts in; made once a colour space. Both (C', P)."""

    colour: NDArray[np.int64]
    texture: NDArray[np.int64]
    channels: int


def pixel_bins(image: NDArray[np.uint8]) -> PixelBins:
    """(h, w, C) of any colour space -> the bins of its pixels."""
    h, w, channels = image.shape
    planes = np.ascontiguousarray(image.transpose(2, 0, 1)).reshape(channels, h * w)
    colour = (planes.astype(np.int64) * COLOUR_BINS >> 8) + np.arange(channels)[:, None] * COLOUR_BINS
    across, down = _derivatives(image)
    angles = np.arange(DIRECTIONS // 2) * (2 * np.pi / DIRECTIONS)
    texture = np.empty((channels, len(angles), h * w), np.int64)
    for index, angle in enumerate(angles):  # a Gaussian derivative can be steered: any direction from two
        slope = across * np.float32(np.cos(angle)) + down * np.float32(np.sin(angle))
        texture[:, index] = _signed_bins(slope).reshape(h * w, channels).T
    texture = texture.reshape(-1, h * w)
    texture += np.arange(len(texture))[:, None] * _SIGNED
    return PixelBins(colour, texture, channels)


def describe(labels: NDArray[np.int64], bins: PixelBins) -> Regions:
    """The regions of a segmentation, (h, w) of 0 .. R - 1 without holes."""
    flat = labels.ravel()
    sizes = np.bincount(flat)
    colour = _counts(flat, bins.colour, len(sizes), bins.channels * COLOUR_BINS)
    signed = _counts(flat, bins.texture, len(sizes), len(bins.texture) * _SIGNED)
    texture = _both_directions(signed.reshape(len(sizes), len(bins.texture), _SIGNED))
    return Regions(
        sizes=sizes,
        boxes=_boxes(labels, len(sizes)),
        pairs=_touching(labels),
        colour=(colour / (sizes * bins.channels)[:, None]).astype(np.float32),
        texture=(texture / (sizes * bins.channels * DIRECTIONS)[:, None]).astype(np.float32),
        area=labels.size,
    )


def _derivatives(image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gaussian derivatives (sigma 1) to the right and downwards, each (h, w, C)."""
    at = np.arange(-4, 5, dtype=np.float64)
    smooth = np.exp(-(at**2) / 2)
    smooth /= smooth.sum()
    slope = at * smooth  # cv2 correlates: a positive answer where it gets brighter
    border = cv2.BORDER_REFLECT_101

    def filtered(x: Any, y: Any) -> NDArray[np.float32]:
        found = cv2.sepFilter2D(image, cv2.CV_32F, x, y, borderType=border)
        return np.asarray(found, np.float32).reshape(image.shape)  # cv2 drops a single channel's axis

    return filtered(slope, smooth), filtered(smooth, slope)


def _signed_bins(slope: NDArray[np.float32]) -> NDArray[np.int64]:
    """Bins 0 .. 18; the middle one, 9, is the first of both directions."""
    steps = np.clip(slope * np.float32(TEXTURE_BINS / _TEXTURE_RANGE), 1 - TEXTURE_BINS, TEXTURE_BINS - 1)
    return steps.astype(np.int64) + (TEXTURE_BINS - 1)  # astype cuts towards 0


def _counts(flat: NDArray[np.int64], bins: NDArray[np.int64], regions: int, width: int) -> NDArray[np.int64]:
    """(regions, width) how many pixels of each region lie in each bin."""
    places = flat * width
    total = np.zeros(regions * width, np.int64)
    for plane in bins:  # one plane after the other stays in the processor's cache
        total += np.bincount(places + plane, minlength=regions * width)
    return total.reshape(regions, width)


def _both_directions(signed: NDArray[np.int64]) -> NDArray[np.int64]:
    """(R, D, 19) -> (R, D * 20): ten bins of each direction, where the other's pixels lie in the first bin."""
    middle = TEXTURE_BINS - 1
    forward, backward = signed[..., middle:].copy(), signed[..., middle::-1].copy()
    forward[..., 0] += signed[..., :middle].sum(axis=-1)
    backward[..., 0] += signed[..., middle + 1 :].sum(axis=-1)
    return np.concatenate([forward, backward], axis=-1).reshape(len(signed), -1)


def _boxes(labels: NDArray[np.int64], regions: int) -> NDArray[np.int64]:
    """(R, 4) xyxy around each region."""
    from scipy.ndimage import find_objects  # type: ignore[import-untyped]

    found = find_objects(labels.astype(np.int32) + 1, max_label=regions)
    return np.array([[x.start, y.start, x.stop, y.stop] for y, x in found], np.int64).reshape(-1, 4)


def _touching(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """(m, 2) pairs i < j of regions that share an edge or a corner of a pixel, sorted."""
    regions = int(labels.max()) + 1
    views = (
        (labels[:, 1:], labels[:, :-1]),
        (labels[1:], labels[:-1]),
        (labels[1:, 1:], labels[:-1, :-1]),
        (labels[1:, :-1], labels[:-1, 1:]),
    )
    codes = []
    for a, b in views:
        differ = a != b
        one, other = a[differ], b[differ]
        codes.append(np.minimum(one, other) * regions + np.maximum(one, other))
    unique = np.unique(np.concatenate(codes))
    return np.stack([unique // regions, unique % regions], axis=1)
