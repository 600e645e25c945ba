"""From a weight file to a network that takes frames: rebuilding, fusing, normalising inside."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detseg.checkpoints import Card, load, load_into
from detseg.detectors import catalog
from detseg.detectors.contract import Detector
from detseg.errors import DetsegError, WeightsError
from detseg.preprocess import Preprocess
from detseg.results import RawDetections


class FrameNetwork(nn.Module):
    """A detector behind its normalisation: (N, H, W, 3) uint8 RGB -> boxes (N, A, 4), scores (N, A, K).

    Of a detector that outlines its objects also masks (N, A, M, M).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, detector: Detector, preprocess: Preprocess) -> None:
        super().__init__()
        self.detector = detector
        std = torch.tensor(preprocess.std, dtype=torch.float32)
        self.register_buffer("scale", 1 / std, persistent=False)
        self.register_buffer("shift", -torch.tensor(preprocess.mean, dtype=torch.float32) / std, persistent=False)

    def forward(self, frames: Tensor, sizes_hw: Tensor | None = None) -> tuple[Tensor, ...]:
        """`sizes_hw` (N, 2): how much of each frame is shown, from its top left; None: all of it.

        Seen as NCHW the pixels of frames lie channels-last, as convolutions like them: nothing moves.
        """
        images = (frames.to(torch.float32) * self.scale + self.shift).permute(0, 3, 1, 2)
        if sizes_hw is not None:
            images = images * _shown(sizes_hw, images)
        answer = self._answer(images, sizes_hw)
        return tuple(part.to(torch.float32) for part in answer if part is not None)

    def _answer(self, images: Tensor, sizes_hw: Tensor | None) -> RawDetections:
        if not self.detector.takes_sizes:
            return self.detector.detect(images)
        if sizes_hw is None:
            sizes_hw = torch.tensor([images.shape[2:]] * len(images), dtype=torch.int64, device=images.device)
        detect: Any = self.detector.detect
        answer: RawDetections = detect(images, sizes_hw.reshape(-1, 2))
        return answer


def as_tensors(
    frames: NDArray[np.uint8], sizes_hw: NDArray[np.int64] | None, device: torch.device | str
) -> tuple[Tensor, Tensor | None]:
    """What a `FrameNetwork` takes, on `device`."""
    sizes = None if sizes_hw is None else torch.from_numpy(np.ascontiguousarray(sizes_hw, np.int64)).to(device)
    return torch.from_numpy(np.ascontiguousarray(frames)).to(device), sizes


def _shown(sizes_hw: Tensor, images: Tensor) -> Tensor:
    """(N, 2), images (N, 3, H, W) -> (N, 1, H, W): 1 where a frame shows its picture, else 0."""
    rows = torch.arange(images.shape[2], device=images.device) < sizes_hw[:, :1]
    columns = torch.arange(images.shape[3], device=images.device) < sizes_hw[:, 1:]
    return (rows[:, None, :, None] & columns[:, None, None, :]).to(images.dtype)


def read_network(weights: Path) -> tuple[Card, FrameNetwork]:
    """The card and the network of a .safetensors file, as trained, in evaluation mode, on the CPU.

    Raises WeightsError when the file cannot be used or does not fit the model that its card names.
    """
    card, state = load(weights)
    try:
        detector = catalog.build(card.model, card.config, len(card.categories))
    except (DetsegError, ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
        raise WeightsError(f"{weights}: its model '{card.model}' cannot be built: {error}") from error
    load_into(detector, state, weights)
    return card, FrameNetwork(detector, card.preprocess).eval().requires_grad_(False)


@torch.no_grad()
def fused(network: FrameNetwork, frame_hw: tuple[int, int]) -> FrameNetwork:
    """The same network with batch norms folded into the convolutions before them, where that changes nothing.

    Which belongs to which is seen in one run, not guessed from the order of definition; the fused network is
    used only if it then answers like the original.
    """
    frames = torch.randint(0, 256, (1, *frame_hw, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    twin = copy.deepcopy(network)
    pairs, before = _convolutions_before_norms(twin, frames)
    for conv_name, norm_name in pairs:
        conv, norm = twin.get_submodule(conv_name), twin.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        twin.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
        twin.set_submodule(norm_name, nn.Identity())
    after = twin(frames)
    close = all(torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(before, after, strict=True))
    return twin if close else network


def _convolutions_before_norms(network: nn.Module, frames: Tensor) -> tuple[list[tuple[str, str]], tuple[Tensor, ...]]:
    """Names of (convolution, batch norm of its output) where both ran exactly once; and the run's answer."""
    names = {module: name for name, module in network.named_modules()}
    runs: dict[nn.Module, int] = {}
    # what each convolution made, and its version then (an in-place ReLU before the norm changes it); the
    # tensor is kept, so that its id is not given again
    maker: dict[int, tuple[nn.Module, Tensor, int]] = {}
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        runs[module] = runs.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            maker[id(output)] = (module, output, output._version)
        elif id(inputs[0]) in maker:
            conv, _, version = maker[id(inputs[0])]
            if inputs[0]._version == version:
                pairs.append((conv, module))

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    handles = [m.register_forward_hook(note) for m in names if isinstance(m, kinds)]
    answer = network(frames)
    for handle in handles:
        handle.remove()
    once = [(conv, norm) for conv, norm in pairs if runs[conv] == runs[norm] == 1]
    return [(names[conv], names[norm]) for conv, norm in once], answer
