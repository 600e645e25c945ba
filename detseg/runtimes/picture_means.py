"""What a network takes from a picture as a whole, so that a tile cut from it can be told.

Some layers take the mean over all of a map: the image-level features of DeepLab, the gate of LR-ASPP, squeeze and
excitation within a backbone. Of a tile it is another mean than the picture's, and the answer another. So the picture is
looked at twice: once in tiles side by side, whose means are averaged, then as it would be without this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detseg.runtimes.contract import Means


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

    def average(self, run: Callable[[NDArray[np.uint8]], object], parts: Iterable[NDArray[np.uint8]]) -> Means:
        """What the network takes from all frames (N, H, W, 3) together; `run` shows it some."""
        runs: list[list[Tensor]] = []
        for frames in parts:
            noting = _Noting()
            with self._passing(noting):
                run(frames)
            runs.append(noting.means)
        return tuple(torch.cat(layer).mean(dim=0).cpu().numpy() for layer in zip(*runs, strict=True))

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
        return None if now is None else now(output)


class _Pass(Protocol):
    """One run of the network: (N, C, 1, 1) of a layer -> what takes its place, None to leave it."""

    def __call__(self, output: Tensor) -> Tensor | None: ...


class _Noting:
    def __init__(self) -> None:
        self.means: list[Tensor] = []  # (N, C) of each layer

    def __call__(self, output: Tensor) -> None:
        self.means.append(output.flatten(1))


class _Telling:
    def __init__(self, means: Means) -> None:
        self._left = iter(means)

    def __call__(self, output: Tensor) -> Tensor:
        mean = torch.from_numpy(next(self._left)).to(output.device, output.dtype)
        return mean[:, None, None].expand_as(output)
