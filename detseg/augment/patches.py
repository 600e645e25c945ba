"""SSD's way of laying a training picture into its frame: zoomed out, or a patch of it, or whole.

W. Liu et al.: SSD: Single Shot MultiBox Detector, 2016, arXiv 1512.02325. Section 2.2, data augmentation: the whole
picture, or a patch that overlaps an object by at least 0.1 ... 0.9, or any patch. Section 3.6: before that, the
picture is put at random on a canvas of up to 16 times its area, which makes small objects of large ones.

Both only choose what part of the plane around the picture is seen: a `view` (x1, y1, x2, y2) in pixels of the picture,
which is then stretched over the frame in one step.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from detseg.augment.layouts import blank
from detseg.augment.sample import Sample, Window, lay, merge
from detseg.geometry.boxes import iou

View = NDArray[np.float32]  # (4,) xyxy, in pixels of the picture; may reach beyond it

ZOOM_OUT_SHARE = 0.5
LARGEST_CANVAS = 4.0  # times each side, section 3.6
LEAST_OVERLAPS = (None, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # section 2.2; None: the whole picture, 0: any patch
PATCH_SCALES = (0.3, 1.0)  # root of its share of the area; section 2.2 says 0.1, its authors' program 0.3
PATCH_ASPECTS = (0.5, 2.0)  # section 2.2; of the shares of width and height, as in the authors' program
_TRIES = 40


def patched(sample: Sample, frame_hw: tuple[int, int], rng: Generator) -> Sample:
    """One picture as SSD sees it in training, stretched over a frame of `frame_hw`.

    As in the paper an object counts where its centre is in view. One whose centre is not, but whose rest is, becomes
    an ignored region, so that what is still seen of it is not taught as background.
    """
    view = _zoomed_out(sample, rng) if rng.random() < ZOOM_OUT_SHARE else _whole(sample)
    view = _patch(sample, view, rng)
    frame_h, frame_w = frame_hw
    scale_xy = float(frame_w / (view[2] - view[0])), float(frame_h / (view[3] - view[1]))
    offset_xy = float(-view[0] * scale_xy[0]), float(-view[1] * scale_xy[1])
    lost = ~_centres_inside(sample.boxes, view)
    known = replace(sample, ignored=sample.ignored | lost)
    frame = blank(frame_hw)
    return merge(frame, [lay(known, frame, Window(0, 0, frame_w, frame_h), scale_xy, offset_xy)])


def _whole(sample: Sample) -> View:
    h, w = sample.image.shape[:2]
    return np.array([0, 0, w, h], np.float32)


def _zoomed_out(sample: Sample, rng: Generator) -> View:
    """A canvas larger than the picture, which lies on it at random."""
    h, w = sample.image.shape[:2]
    ratio = rng.uniform(1, LARGEST_CANVAS)
    x, y = rng.uniform(0, w * (ratio - 1)), rng.uniform(0, h * (ratio - 1))
    return np.array([-x, -y, w * ratio - x, h * ratio - y], np.float32)


def _patch(sample: Sample, canvas: View, rng: Generator) -> View:
    """The whole canvas, or a patch of it that fulfils one of the conditions, drawn anew until one is met."""
    objects = sample.boxes[~sample.ignored]
    while True:
        least = LEAST_OVERLAPS[rng.integers(len(LEAST_OVERLAPS))]
        if least is None:
            return canvas
        for _ in range(_TRIES):
            view = _random_part(canvas, rng)
            if not len(objects) or _shows(view, objects, least):
                return view


def _random_part(canvas: View, rng: Generator) -> View:
    sides = canvas[2:] - canvas[:2]
    scale = rng.uniform(*PATCH_SCALES)
    # neither side of the part may be longer than the canvas: scale * aspect ** 0.5 <= 1 and scale / aspect ** 0.5 <= 1
    aspect = rng.uniform(max(PATCH_ASPECTS[0], scale**2), min(PATCH_ASPECTS[1], 1 / scale**2))
    part = sides * np.array([scale * aspect**0.5, scale / aspect**0.5])
    corner = canvas[:2] + rng.uniform(0, 1, size=2) * (sides - part)
    return np.concatenate([corner, corner + part]).astype(np.float32)


def _shows(view: View, objects: NDArray[np.float32], least: float) -> bool:
    """Whether an object's centre is in view, and an object overlaps the view by at least `least`."""
    inside = _centres_inside(objects, view)
    return bool(inside.any() and iou(objects[inside], view[None]).max() >= least)


def _centres_inside(boxes: NDArray[np.float32], view: View) -> NDArray[np.bool_]:
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.asarray(((centres > view[:2]) & (centres < view[2:])).all(axis=1))
