"""How training pictures are laid into the frame: still, jittered, or four in a mosaic (YOLOv4, sec. 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from detseg.augment.sample import Sample, Window, lay, merge

FILL = 114


def blank(frame_hw: tuple[int, int]) -> np.ndarray:
    """An empty frame, grey like the letterbox border."""
    return np.full((*frame_hw, 3), FILL, np.uint8)


def jittered(
    sample: Sample,
    frame_hw: tuple[int, int],
    rng: Generator,
    *,
    zoom: tuple[float, float] = (0.6, 1.5),
    squeeze: float = 0.15,
) -> Sample:
    """One picture at a random scale, aspect and place: between zoomed out with a border and cropped."""
    frame_h, frame_w = frame_hw
    h, w = sample.image.shape[:2]
    fit = min(frame_h / h, frame_w / w) * float(np.exp(rng.uniform(*np.log(zoom))))
    aspect = float(np.exp(rng.uniform(-squeeze, squeeze)))
    sx, sy = fit * aspect**0.5, fit / aspect**0.5
    # the slack between frame and picture, of either sign, is shared out at random
    ox, oy = rng.uniform(0, 1) * (frame_w - w * sx), rng.uniform(0, 1) * (frame_h - h * sy)
    frame = blank(frame_hw)
    seen = lay(sample, frame, Window(0, 0, frame_w, frame_h), (sx, sy), (ox, oy))
    return merge(frame, [seen])


def mosaic(
    samples: Sequence[Sample],
    frame_hw: tuple[int, int],
    rng: Generator,
    *,
    zoom: tuple[float, float] = (0.4, 1.1),
) -> Sample:
    """Four pictures around a random centre, each at its own scale, cut where they meet."""
    frame_h, frame_w = frame_hw
    cx, cy = (int(rng.uniform(0.3, 0.7) * side) for side in (frame_w, frame_h))
    windows = (
        Window(0, 0, cx, cy),
        Window(cx, 0, frame_w, cy),
        Window(0, cy, cx, frame_h),
        Window(cx, cy, frame_w, frame_h),
    )
    frame = blank(frame_hw)
    parts = []
    for sample, window in zip(samples, windows, strict=True):
        h, w = sample.image.shape[:2]
        scale = min(frame_h / h, frame_w / w) * float(np.exp(rng.uniform(*np.log(zoom))))
        # each picture touches the centre with its inner corner
        ox = cx - w * scale if window.x0 == 0 else cx
        oy = cy - h * scale if window.y0 == 0 else cy
        parts.append(lay(sample, frame, window, (scale, scale), (ox, oy)))
    return merge(frame, parts)
