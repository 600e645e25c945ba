"""What a network takes from a picture as a whole, so that a tile cut from it can be told.

Some layers take the mean over all of a map: the image-level features of DeepLab, the gate of LR-ASPP, squeeze and
excitation within a backbone. Of a tile it is another mean than the picture's, and the answer another. So the picture is
looked at twice: once in tiles side by side, of whose maps each cell counts once, then as it would be without this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detseg.runtimes.contract import Means, Parts


class PictureMeans:
    """The layers of a network that take means over all of a map, `nn.AdaptiveAvgPool2d(1)`.

    Several threads may ask the network at the same time.
    """

    def __init__(self, network: nn.Module) -> None:
        self._pass: ContextVar[_Pass | None] = ContextVar("pass", default=None)
        pools = [m for m in network.modules() if isinstance(m, nn.AdaptiveAvgPool2d) and m.output_size in (1, (1, 1))]
        self.any = bool(pools)
        for pool in pools:
            pool.register_forward_hook(self._pooled)

    def average(self, run: Callable[[NDArray[np.uint8]], object], parts: Iterable[Parts]) -> Means:
        """What the network takes from all that counts of all frames together; `run` shows it some."""
        runs: list[list[_Sum]] = []
        for frames, boxes in parts:
            height, width = frames.shape[1:3]
            noting = _Noting(np.divide(boxes, [width, height, width, height], dtype=np.float32))
            with self._passing(noting):
                run(frames)
            runs.append(noting.sums)
        return tuple(_mean(layer) for layer in zip(*runs, strict=True))

    @contextmanager
    def told(self, means: Means) -> Iterator[None]:
        """The network takes these for the means of all frames that are asked for here; its own where there are none."""
        with self._passing(_Telling(means) if means else None):
            yield

    @contextmanager
    def _passing(self, now: _Pass | None) -> Iterator[None]:
        before = self._pass.set(now)
        try:
            yield
        finally:
            self._pass.reset(before)

    def _pooled(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        now = self._pass.get()
        return None if now is None else now(inputs[0], output)


class _Pass(Protocol):
    """One run of the network: a layer's maps (N, C, h, w) and their means (N, C, 1, 1) -> what takes the place of the
    means, None to leave them.
    """

    def __call__(self, maps: Tensor, output: Tensor) -> Tensor | None: ...


class _Sum(NamedTuple):
    """Over the cells that count, of a layer in one run."""

    values: Tensor  # (C,)
    cells: Tensor  # ()


def _mean(sums: Sequence[_Sum]) -> NDArray[np.float32]:
    values, cells = (torch.stack(parts).sum(dim=0) for parts in zip(*sums, strict=True))
    mean: NDArray[np.float32] = (values / cells).cpu().numpy()
    return mean


class _Noting:
    def __init__(self, boxes: NDArray[np.float32]) -> None:
        self._boxes = boxes  # (N, 4) xyxy what counts of each frame, in shares of its sides
        self.sums: list[_Sum] = []  # of each layer

    def __call__(self, maps: Tensor, output: Tensor) -> None:
        boxes = torch.from_numpy(self._boxes).to(maps.device, maps.dtype)
        columns, rows = (_covered(boxes[:, axis::2], maps.shape[3 - axis]) for axis in (0, 1))
        values = torch.einsum("nchw,nh,nw->c", maps, rows, columns)
        self.sums.append(_Sum(values, (rows.sum(dim=1) * columns.sum(dim=1)).sum()))


def _covered(spans: Tensor, cells: int) -> Tensor:
    """(N, 2) from where to where, in shares of a side -> (N, cells) how much of each cell along it that is."""
    begin, end = (spans * cells).split(1, dim=1)
    first = torch.arange(cells, device=spans.device, dtype=spans.dtype)
    return (torch.minimum(end, first + 1) - torch.maximum(begin, first)).clamp(min=0)


class _Telling:
    def __init__(self, means: Means) -> None:
        self._left = iter(means)

    def __call__(self, maps: Tensor, output: Tensor) -> Tensor:
        mean = torch.from_numpy(next(self._left)).to(output.device, output.dtype)
        return mean[:, None, None].expand_as(output)
