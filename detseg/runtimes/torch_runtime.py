"""Trained models on torch: fused, channels-last, on the CPU or a GPU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from detseg.errors import DetsegError, WeightsError
from detseg.runtimes.contract import Doors, Means, Parts
from detseg.runtimes.network import as_tensors, fused, read_network, trial_hw
from detseg.runtimes.picture_means import PictureMeans


class TorchRuntime(Doors):
    """A model as trained. See `contract.Runtime`."""

    name = "torch"

    def __init__(self, weights: Path, *, device: str = "auto", threads: int | None = None) -> None:
        self.device = choose_device(device)
        if threads is not None:
            torch.set_num_threads(threads)
        self._path = weights
        self.card, network = read_network(weights)
        network = fused(network, trial_hw(self.card.preprocess))
        self._network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._picture_means = PictureMeans(self._network)

    def segment(
        self, frames: NDArray[np.uint8], sizes_hw: NDArray[np.int64] | None = None, means: Means = ()
    ) -> NDArray[np.float32]:
        """See `Runtime.segment`."""
        with self._picture_means.told(means):
            return super().segment(frames, sizes_hw)

    def picture_means(self, parts: Iterable[Parts]) -> Means:
        """See `Runtime.picture_means`."""
        if not self._picture_means.any:
            return ()
        return self._picture_means.average(lambda frames: self._run(frames, None, None), parts)

    @torch.inference_mode()
    def _run(
        self,
        frames: NDArray[np.uint8],
        sizes_hw: NDArray[np.int64] | None,
        proposals: Sequence[NDArray[np.float32]] | None,
    ) -> list[NDArray[np.float32]]:
        try:
            answer = self._network(*as_tensors(frames, sizes_hw, self.device, proposals))
        except torch.OutOfMemoryError as error:
            raise DetsegError(f"{self.device}: out of memory; a smaller --batch needs less") from error
        except RuntimeError as error:
            if self.card.preprocess.fit == "shorter" or frames.shape[1:3] == self.card.preprocess.frame_hw:
                raise
            size = f"{frames.shape[1]}x{frames.shape[2]}"
            raise WeightsError(f"{self._path}: cannot take frames of {size} pixels: {error}") from error
        return [part.cpu().numpy() for part in answer]


def choose_device(device: str = "auto") -> str:
    """ "auto" -> the GPU where there is one, else the CPU. Raises DetsegError when `device` is not there."""
    has_mps = torch.backends.mps.is_available()
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    kind, _, index = device.partition(":")
    present = {"cpu": 1, "mps": int(has_mps), "cuda": torch.cuda.device_count()}.get(kind, 0)
    if not (index or "0").isdigit() or int(index or 0) >= present:
        raise DetsegError(f"there is no device '{device}' here; use --device cpu, or auto for what there is")
    return device
