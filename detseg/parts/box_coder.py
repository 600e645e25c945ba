"""`BoxCoder`: a box said as its difference from a reference box (R. Girshick et al. 2014, R-CNN, appendix C).

With reference centre (x_a, y_a) and size (w_a, h_a), the deltas of a box (x, y, w, h) are
    d_x = weight_x (x - x_a) / w_a,    d_w = weight_w log(w / w_a),    likewise d_y and d_h.
The weights bring the four to a like spread; SSD calls their inverse variances (0.1, 0.1, 0.2, 0.2).

Promise: `decode(encode(boxes, references), references) == boxes`, unless a side is over 62.5 times its reference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_LARGEST_LOG = math.log(1000 / 16)  # a wild prediction must not overflow: 16 pixels become 1000 at most


@dataclass(frozen=True)
class BoxCoder:
    """Between xyxy boxes and deltas (d_x, d_y, d_w, d_h), each multiplied by its weight."""

    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)

    def encode(self, boxes: Tensor, references: Tensor) -> Tensor:
        """(..., 4) boxes with sides over 0, (..., 4) references -> (..., 4) deltas."""
        sizes, own = _sizes(references), _sizes(boxes)
        shift = (_centres(boxes) - _centres(references)) / sizes
        deltas = torch.cat([shift, (own / sizes).log()], dim=-1)
        return deltas * deltas.new_tensor(self.weights)

    def decode(self, deltas: Tensor, references: Tensor) -> Tensor:
        """(..., 4) deltas, (..., 4) references -> (..., 4) boxes."""
        plain = deltas / deltas.new_tensor(self.weights)
        sizes = _sizes(references)
        centre = plain[..., :2] * sizes + _centres(references)
        half = plain[..., 2:].clamp(max=_LARGEST_LOG).exp() * sizes / 2
        return torch.cat([centre - half, centre + half], dim=-1)


def _sizes(boxes: Tensor) -> Tensor:
    return boxes[..., 2:] - boxes[..., :2]


def _centres(boxes: Tensor) -> Tensor:
    return boxes[..., :2] + (boxes[..., 2:] - boxes[..., :2]) / 2
