"""The way back: boxes of the network's frame become boxes of the picture, and their masks masks of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.geometry.boxes import clip, is_degenerate
from detseg.postprocess.paste import paste
from detseg.preprocess import Placement
from detseg.results import Detections

MIN_SIDE = 0.01  # pixels: less is a box outside the picture, cut to its edge; a picture may be one pixel wide


def restore(
    boxes: NDArray[Any],
    scores: NDArray[Any],
    labels: NDArray[Any],
    placement: Placement,
    path: Path | None = None,
    masks: NDArray[Any] | None = None,
) -> Detections:
    """(n, 4) boxes of the frame, (n,), (n,) -> detections in the picture's pixels, cut to it, order kept.

    Boxes that lie beside the picture (in the letterbox's border) are dropped. `masks` (n, M, M) are how sure the
    network is of each part of a box, as it gave that box: they are laid into it before it is cut.
    """
    in_image = placement.to_image(np.asarray(boxes, np.float64).reshape(-1, 4))
    clipped = clip(in_image, placement.image_hw).astype(np.float32)
    there = ~is_degenerate(clipped, MIN_SIDE)
    return Detections(
        placement.image_hw,
        clipped[there],
        np.asarray(scores, np.float32)[there],
        np.asarray(labels, np.int64)[there],
        path,
        None if masks is None else paste(masks[there], in_image[there], placement.image_hw),
    )
