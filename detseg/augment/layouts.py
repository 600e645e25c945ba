"""How training pictures are laid into the frame: jittered, four in a mosaic (YOLOv4, sec. 3.3), two blended.

`turned` comes before any of them: a picture turned by 90 degrees is a picture of another shape, which fits any frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
    strength: float = 1.0,
) -> Sample:
    """One picture at a random scale, aspect and place: between zoomed out with a border and cropped.

    `strength`: how much of zoom and squeeze is used, on the scale of their logarithms; at 0 the picture is as large
    as fits.
    """
    h, w = sample.image.shape[:2]
    fit = min(frame_hw[0] / h, frame_hw[1] / w)
    return _placed(sample, frame_hw, rng, fit, zoom, squeeze, strength)


def _placed(
    sample: Sample,
    frame_hw: tuple[int, int],
    rng: Generator,
    scale: float,
    zoom: tuple[float, float],
    squeeze: float,
    strength: float,
) -> Sample:
    (h, w), (frame_h, frame_w) = sample.image.shape[:2], frame_hw
    fit = scale * float(np.exp(rng.uniform(*np.log(zoom)) * strength))
    aspect = float(np.exp(rng.uniform(-squeeze, squeeze) * strength))
    sx, sy = fit * aspect**0.5, fit / aspect**0.5
    # the slack between frame and picture, of either sign, is shared out at random
    ox, oy = rng.uniform(0, 1) * (frame_w - w * sx), rng.uniform(0, 1) * (frame_h - h * sy)
    frame = blank(frame_hw)
    seen = lay(sample, frame, Window(0, 0, frame_w, frame_h), (sx, sy), (ox, oy))
    return merge(frame, [seen])


def cropped(
    sample: Sample,
    frame_hw: tuple[int, int],
    rng: Generator,
    *,
    zoom: tuple[float, float] = (0.6, 1.8),
    squeeze: float = 0.15,
    strength: float = 1.0,
) -> Sample:
    """A part of one picture as large as the frame, at a random scale, aspect and place.

    At scale 1 the picture covers the frame, so that one side is seen whole. `strength` as in `jittered`.
    """
    h, w = sample.image.shape[:2]
    fit = max(frame_hw[0] / h, frame_hw[1] / w)
    return _placed(sample, frame_hw, rng, fit, zoom, squeeze, strength)


def mosaic(
    samples: Sequence[Sample],
    frame_hw: tuple[int, int],
    rng: Generator,
    *,
    zoom: tuple[float, float] = (0.4, 1.1),
    strength: float = 1.0,
) -> Sample:
    """Four pictures around a random centre, each at its own scale, cut where they meet.

    `strength`: how much of the zoom about its middle is used, on the scale of its logarithm.
    """
    low, high = np.log(zoom)
    reach = (high - low) / 2 * strength
    exponents = ((low + high) / 2 - reach, (low + high) / 2 + reach)
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
        scale = min(frame_h / h, frame_w / w) * float(np.exp(rng.uniform(*exponents)))
        # each picture touches the centre with its inner corner
        ox = cx - w * scale if window.x0 == 0 else cx
        oy = cy - h * scale if window.y0 == 0 else cy
        parts.append(lay(sample, frame, window, (scale, scale), (ox, oy)))
    return merge(frame, parts)


def mixed(first: Sample, second: Sample, rng: Generator, *, concentration: float = 8.0) -> Sample:
    """Two frames of one size blended, with the objects of both (Zhang et al. 2018, mixup; for detection Zhang et al.
    2019, arXiv 1902.04103, sec. 3.1).

    The share of the first is drawn from Beta(c, c): near one half, so that what can be seen of either is worth to be
    learnt in full. Raises ValueError for label maps: a pixel has one class.
    """
    if first.label_map is not None:
        raise ValueError("label maps cannot be blended")
    share = float(rng.beta(concentration, concentration))
    blend = first.image * np.float32(share) + second.image * np.float32(1 - share)
    return merge(np.rint(blend).astype(np.uint8), [first, second])


def mirrored(sample: Sample) -> Sample:
    """The picture and its objects, left to right."""
    h, w = sample.image.shape[:2]
    boxes = np.stack([w - sample.boxes[:, 2], sample.boxes[:, 1], w - sample.boxes[:, 0], sample.boxes[:, 3]], axis=1)
    masks = None if sample.masks is None else sample.masks.mirrored((h, w), x=True, y=False)
    label_map = None if sample.label_map is None else np.ascontiguousarray(sample.label_map[:, ::-1])
    image = np.ascontiguousarray(sample.image[:, ::-1])
    return replace(sample, image=image, boxes=boxes.astype(np.float32), masks=masks, label_map=label_map)


def turned(sample: Sample, quarters: int) -> Sample:
    """The picture and its objects turned counter-clockwise by `quarters` times 90 degrees."""
    image, boxes, masks, label_map = sample.image, sample.boxes, sample.masks, sample.label_map
    for _ in range(quarters % 4):
        w = image.shape[1]
        masks = None if masks is None else masks.turned(w)
        image = np.rot90(image)
        label_map = None if label_map is None else np.rot90(label_map)
        # what was x from the right edge is y from the top, what was y is x
        boxes = np.stack([boxes[:, 1], w - boxes[:, 2], boxes[:, 3], w - boxes[:, 0]], axis=1)
    label_map = None if label_map is None else np.ascontiguousarray(label_map)
    image = np.ascontiguousarray(image)
    return replace(sample, image=image, boxes=boxes.astype(np.float32), masks=masks, label_map=label_map)
