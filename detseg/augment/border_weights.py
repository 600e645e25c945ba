"""What the pixels between objects count: the weight map of the U-Net.

O. Ronneberger, P. Fischer, T. Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015, arXiv
1505.04597, section 3, eq. 2: w(x) = w_c(x) + w0 exp(-(d1(x) + d2(x))^2 / (2 sigma^2)), where d1 and d2 are the
distances to the nearest and to the second nearest object, and w_c balances the classes. A narrow gap between two cells
has few pixels; without weights it costs next to nothing to close it.

Objects are the connected components of what is not background; cells that touch by a corner only are two, so that a
line of background one pixel wide keeps cells apart whichever way it runs. The second term is that of the background
alone, as in the paper's figure: in a cell nothing is to be separated. Distances run between the middles of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg.annotations.semantic import IGNORE

_NEGLIGIBLE = 1e-5  # a smaller second term is left out: that is what lets distances be measured in windows


def border_weights(
    labels: NDArray[np.uint8],
    *,
    background: int = 0,
    w0: float = 10.0,
    sigma: float = 5.0,
    class_weights: Sequence[float] = (),
) -> NDArray[np.float32]:
    """(h, w) classes -> (h, w) weights, within 1e-5 of the formula; w0 and sigma (in pixels) are the paper's.

    `class_weights`: w_c of each class, 1 where there are none. The map is that of the frame as it is learnt: sigma
    counts its pixels, so weights are made after the picture was resized.
    """
    table = np.ones(256, np.float32)
    table[: len(class_weights)] = class_weights
    weights = table[labels]
    objects = ((labels != background) & (labels != IGNORE)).astype(np.uint8)
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(objects, connectivity=4, ltype=cv2.CV_32S)
    if count < 3 or w0 <= _NEGLIGIBLE:  # number 0 is the background: there is no second object
        return weights
    both = _two_nearest(numbers, stats[1:], _reach(w0, sigma)).sum(axis=0)
    free = labels == background
    weights[free] += w0 * np.exp(-(both[free] ** 2) / (2 * sigma**2))
    return weights


def _reach(w0: float, sigma: float) -> int:
    """Pixels from which on d1 + d2 makes no difference."""
    return math.ceil(sigma * math.sqrt(2 * math.log(w0 / _NEGLIGIBLE)))


def _two_nearest(numbers: NDArray[np.int32], boxes: NDArray[np.int32], reach: int) -> NDArray[np.float32]:
    """(2, h, w) distances to the nearest and the second nearest object; infinite where farther than `reach`.

    numbers (h, w): 1 + its object's row in boxes (n, >= 4) left, top, width, height.
    """
    nearest = np.full((2, *numbers.shape), np.inf, np.float32)
    for number, (left, top, width, height) in enumerate(boxes[:, :4].tolist(), start=1):
        # d2 is less than `reach` where it counts, so that an object is not needed farther away
        rows = slice(max(0, top - reach), top + height + reach)
        columns = slice(max(0, left - reach), left + width + reach)
        others = (numbers[rows, columns] != number).astype(np.uint8)
        distance = cv2.distanceTransform(others, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        first, second = nearest[:, rows, columns]
        np.minimum(second, np.maximum(first, distance), out=second)
        np.minimum(first, distance, out=first)
    return nearest
