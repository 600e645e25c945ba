"""SSD's default boxes: fixed shapes around the centre of every cell of every map (Liu et al. 2016, sec. 2.2).

Sizes are shares of the frame's width and height, so that they grow with it. Shapes: L maps, A_l boxes a cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Shapes = tuple[tuple[tuple[float, float], ...], ...]  # map -> boxes of a cell -> (w, h), shares of the frame


def spread_scales(least: float, most: float, maps: int, *, above: float = 1.0) -> tuple[float, ...]:
    """`maps` scales from `least` to `most` in equal steps (eq. 4), and one `above` them for the last s'."""
    if maps < 1:
        raise ValueError(f"there must be a map at least, got {maps}")
    steps = max(1, maps - 1)
    return (*(least + (most - least) * k / steps for k in range(maps)), above)


def shapes_of(scales: Sequence[float], aspect_ratios: Sequence[Sequence[float]]) -> Shapes:
    """The shapes of each map: (s, s), (s', s') with s'_k = sqrt(s_k s_{k+1}), then for each ratio a both
    (s sqrt(a), s / sqrt(a)) and its like turned upright. Raises ValueError unless there is one scale more than maps.
    """
    if len(scales) != len(aspect_ratios) + 1:
        raise ValueError(f"{len(aspect_ratios)} maps need {len(aspect_ratios) + 1} scales, got {len(scales)}")
    shapes = []
    for k, ratios in enumerate(aspect_ratios):
        scale, between = scales[k], math.sqrt(scales[k] * scales[k + 1])
        boxes = [(scale, scale), (between, between)]
        for ratio in ratios:
            long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            boxes += [(long, short), (short, long)]
        shapes.append(tuple(boxes))
    return tuple(shapes)


def default_boxes(
    shapes: Shapes,
    grids_rc: Sequence[tuple[int, int]],
    frame_hw: tuple[int, int],
    steps: Sequence[float] | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """(P, 4) xyxy in pixels of the frame: map by map, row by row, cell by cell, all shapes of a cell together.

    `steps`: pixels between the cells of each map; None: the cells share out the frame evenly (sec. 2.2). A shape
    larger than the frame is cut to its size; boxes reach over the border of the frame where they lie so.
    """
    height, width = frame_hw
    maps = []
    for k, (boxes, (rows, cols)) in enumerate(zip(shapes, grids_rc, strict=True)):
        step_y, step_x = (height / rows, width / cols) if steps is None else (steps[k], steps[k])
        y = (torch.arange(rows, dtype=torch.float32, device=device) + 0.5) * step_y
        x = (torch.arange(cols, dtype=torch.float32, device=device) + 0.5) * step_x
        centre = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).reshape(-1, 1, 2)
        half = torch.tensor(boxes, dtype=torch.float32, device=device).reshape(-1, 2).clamp(0, 1)
        half = half * torch.tensor([width, height], dtype=torch.float32, device=device) / 2
        maps.append(torch.cat([centre - half, centre + half], dim=-1).reshape(-1, 4))
    return torch.cat(maps)
