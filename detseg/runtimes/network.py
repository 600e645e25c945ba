"""From a weight file to a network that takes frames: rebuilding, fusing, normalising inside."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from detseg import catalog
from detseg.checkpoints import Card, load, load_into
from detseg.detectors.contract import Detector
from detseg.errors import DetsegError, WeightsError
from detseg.preprocess import Preprocess
from detseg.preprocess.placement import MULTIPLE
from detseg.results import RawDetections
from detseg.segmenters.contract import Segmenter


class FrameNetwork(nn.Module):
    """A model behind its normalisation: (N, H, W, 3) uint8 RGB -> boxes (N, A, 4), scores (N, A, K).

    Of a detector that outlines its objects also masks (N, A, M, M); of a segmenter logits (N, K, H, W) alone.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: Detector | Segmenter, preprocess: Preprocess) -> None:
        super().__init__()
        self.model = model
        std = torch.tensor(preprocess.std, dtype=torch.float32)
        self.register_buffer("scale", 1 / std, persistent=False)
        self.register_buffer("shift", -torch.tensor(preprocess.mean, dtype=torch.float32) / std, persistent=False)

    def forward(
        self, frames: Tensor, sizes_hw: Tensor | None = None, proposals: list[Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """`sizes_hw` (N, 2): how much of each frame is shown, from its top left; None: all of it.

        `proposals`: boxes (P, 4) of each frame, for a detector that wants them; None: each frame as a whole.
        """
        images = self.normalised(frames)
        if sizes_hw is not None:
            images = images * _shown(sizes_hw, images)
        if isinstance(self.model, Segmenter):
            return (self.model.segment(images).to(torch.float32),)
        answer = _detected(self.model, images, sizes_hw, proposals)
        return tuple(part.to(torch.float32) for part in answer if part is not None)

    def normalised(self, frames: Tensor) -> Tensor:
        """(N, 3, H, W) as the model wants it.

        Seen as NCHW the pixels of frames lie channels-last, as convolutions like them: nothing moves.
        """
        return (frames.to(torch.float32) * self.scale + self.shift).permute(0, 3, 1, 2)


def _detected(
    detector: Detector, images: Tensor, sizes_hw: Tensor | None, proposals: list[Tensor] | None
) -> RawDetections:
    """What the detector finds, told what it wants to know besides the images."""
    detect: Any = detector.detect
    found: RawDetections
    if detector.takes_proposals:
        found = detect(images, proposals)
    elif detector.takes_sizes:
        if sizes_hw is None:
            sizes_hw = torch.tensor([images.shape[2:]] * len(images), dtype=torch.int64, device=images.device)
        found = detect(images, sizes_hw.reshape(-1, 2))
    else:
        found = detect(images)
    return found


def as_tensors(
    frames: NDArray[np.uint8],
    sizes_hw: NDArray[np.int64] | None,
    device: torch.device | str,
    proposals: Sequence[NDArray[np.float32]] | None = None,
) -> tuple[Tensor, Tensor | None, list[Tensor] | None]:
    """What a `FrameNetwork` takes, on `device`."""
    places = None
    if proposals is not None:
        places = [torch.from_numpy(np.array(boxes, np.float32)).to(device) for boxes in proposals]
    sizes = None if sizes_hw is None else torch.from_numpy(np.ascontiguousarray(sizes_hw, np.int64)).to(device)
    return torch.from_numpy(np.ascontiguousarray(frames)).to(device), sizes, places


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
        model = catalog.build(card.model, card.config, len(card.categories))
    except (DetsegError, ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
        raise WeightsError(f"{weights}: its model '{card.model}' cannot be built: {error}") from error
    load_into(model, state, weights)
    return card, FrameNetwork(model, card.preprocess).eval().requires_grad_(False)


@torch.no_grad()
def fused(network: FrameNetwork, frame_hw: tuple[int, int]) -> FrameNetwork:
    """The same network with batch norms folded into the convolutions before them, where that changes nothing.

    Which belongs to which is seen in one run, not guessed from the order of definition; the fused network is
    used only if it then answers like the original. Of a model of two stages the maps of its backbone are compared:
    what it chooses among these may turn on the last digit.
    """
    frames = torch.randint(0, 256, (1, *frame_hw, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    twin = copy.deepcopy(network)
    pairs = _convolutions_before_norms(twin, frames)
    if not pairs:
        return network
    for conv_name, norm_name in pairs:
        conv: Any = twin.get_submodule(conv_name)
        norm: Any = twin.get_submodule(norm_name)
        twin.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
        twin.set_submodule(norm_name, nn.Identity())
    close = all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-3)
        for a, b in zip(_comparable(network, frames), _comparable(twin, frames), strict=True)
    )
    return twin if close else network


def trial_hw(preprocess: Preprocess) -> tuple[int, int]:
    """The frame to try a network on: its own, or a small one where frames have their pictures' shape."""
    side = min(256, -(-preprocess.frame_hw[0] // MULTIPLE) * MULTIPLE)
    return (side, side) if preprocess.fit == "shorter" else preprocess.frame_hw


def _comparable(network: FrameNetwork, frames: Tensor) -> list[Tensor]:
    model: Any = getattr(network, "model", None)
    if not getattr(model, "takes_sizes", False):
        return list(network(frames))
    return [leaf for leaf in tree_leaves(model.backbone(network.normalised(frames))) if isinstance(leaf, Tensor)]


def _is_norm(module: nn.Module) -> bool:
    """torchvision's frozen batch norm is known by its name: its package takes seconds to import."""
    return isinstance(module, nn.BatchNorm2d) or type(module).__name__ == "FrozenBatchNorm2d"


class _Trace(TorchDispatchMode):
    """Watches one run: which norm is fed by which convolution, how often each ran, who else reads in between."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.runs: dict[nn.Module, int] = {}
        self.pairs: list[tuple[nn.Module, nn.Module]] = []
        # what each convolution made, and its version then (an in-place ReLU before the norm changes it); the
        # tensor is kept, so that its id is not given again
        self._made: dict[int, tuple[nn.Module, Tensor, int]] = {}
        self._read: set[nn.Module] = set()  # convolutions whose output something else than a norm reads
        self._in_norm = False
        self._handles: list[Any] = []
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                self._handles.append(module.register_forward_hook(self._note_convolution))
            elif _is_norm(module):
                self._handles.append(module.register_forward_pre_hook(self._note_norm))
                self._handles.append(module.register_forward_hook(self._leave_norm))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operation passes here, before it is done."""
        if not self._in_norm:
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor) and id(leaf) in self._made:
                    self._read.add(self._made[id(leaf)][0])
        return func(*args, **(kwargs or {}))

    def close(self, answer: object) -> None:
        """The run is over; what it answers with is read, too."""
        for handle in self._handles:
            handle.remove()
        self._read |= {self._made[id(leaf)][0] for leaf in tree_leaves(answer) if id(leaf) in self._made}

    @property
    def foldable(self) -> list[tuple[nn.Module, nn.Module]]:
        """(convolution, norm) where both ran once and nothing else reads what passes between them."""
        return [
            (conv, norm) for conv, norm in self.pairs
            if self.runs[conv] == self.runs[norm] == 1 and conv not in self._read
        ]  # fmt: skip

    def _note_convolution(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.runs[module] = self.runs.get(module, 0) + 1
        self._made[id(output)] = (module, output, output._version)

    def _note_norm(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._in_norm = True
        self.runs[module] = self.runs.get(module, 0) + 1
        conv, _, version = self._made.get(id(inputs[0]), (None, None, 0))
        if conv is not None and inputs[0]._version == version:
            self.pairs.append((conv, module))

    def _leave_norm(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._in_norm = False


def _convolutions_before_norms(network: nn.Module, frames: Tensor) -> list[tuple[str, str]]:
    """Names of (convolution, batch norm of its output) of which the one can do the other's work."""
    names = {module: name for name, module in network.named_modules()}
    trace = _Trace(network)
    with trace:
        answer = network(frames)
    trace.close(answer)
    return [(names[conv], names[norm]) for conv, norm in trace.foldable]
