"""Anchors: boxes of a few shapes around every place of every map (S. Ren et al. 2015, Faster R-CNN, sec. 3.1.1).

Shapes: L maps, A anchors a place (the same number on each map), P anchors over all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

AnchorShapes = tuple[tuple[tuple[float, float], ...], ...]  # map -> anchors of a place -> (w, h) in pixels


def anchor_shapes(sizes: Sequence[Sequence[float]], aspect_ratios: Sequence[float]) -> AnchorShapes:
    """(w, h) of each map: for every ratio h / w, for every size s a box of area s * s."""
    return tuple(tuple((s / r**0.5, s * r**0.5) for r in aspect_ratios for s in row) for row in sizes)


def anchor_grid(
    shapes: AnchorShapes,
    grids_rc: Sequence[tuple[int, int]],
    frame_hw: tuple[int, int],
    device: torch.device | None = None,
) -> list[Tensor]:
    """For each map its anchors (rows * cols * A, 4) xyxy in pixels of the frame: row by row, place by place.

    Centred on the top left corners of the cells, sides rounded to even pixels, cells as many whole pixels apart as
    the frame has for each: all three as in Detectron and torchvision, whose weights count on it.
    """
    maps = []
    for boxes, (rows, cols) in zip(shapes, grids_rc, strict=True):
        half = (torch.tensor(boxes, dtype=torch.float32, device=device).reshape(-1, 2) / 2).round()
        y = torch.arange(rows, dtype=torch.float32, device=device) * (frame_hw[0] // rows)
        x = torch.arange(cols, dtype=torch.float32, device=device) * (frame_hw[1] // cols)
        centre = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).reshape(-1, 1, 2)
        maps.append(torch.cat([centre - half, centre + half], dim=-1).reshape(-1, 4))
    return maps
