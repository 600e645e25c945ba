"""A map of any size averaged to a fixed grid of cells, each by the exact share of the map that it covers."""

from __future__ import annotations

import torch
from torch import Tensor


def area_pool(maps: Tensor, cells: int) -> Tensor:
    """(N, C, R, C') -> (N, C, cells, cells) means over equal parts of the map; whole numbers of cells are not needed.

    Where they divide the map's sides it is ordinary average pooling, and a map with fewer cells is spread.
    """
    down, across = (shares(length, cells).to(maps) for length in maps.shape[2:])
    return down @ (maps @ across.T)


def shares(length: int, cells: int) -> Tensor:
    """(cells, length): what share of each of `cells` equal parts every one of `length` places makes."""
    edges = torch.arange(cells + 1, dtype=torch.float64) * (length / cells)
    place = torch.arange(length, dtype=torch.float64)
    shared = torch.minimum(edges[1:, None], place + 1) - torch.maximum(edges[:-1, None], place)
    return (shared.clamp(min=0) * (cells / length)).float()
