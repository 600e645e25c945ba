"""What a model of the catalog costs: parameters, operations, and on request the time of one frame here."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from detseg import catalog
from detseg.detectors.contract import Detector
from detseg.preprocess import Preprocess
from detseg.runtimes.network import FrameNetwork, fused
from detseg.segmenters.contract import Segmenter

CLASSES = 80  # as COCO has; most papers count with them


@dataclass(frozen=True)
class Cost:
    """Of one model at its own frame size: parameters, and operations of one frame in 10^9, where an addition
    and a multiplication are two.
    """

    parameters: int
    gflops: float


def count(name: str, num_classes: int = CLASSES) -> Cost:
    """Counts on tensors without content: no weights are made and nothing is computed.

    A model of two stages is counted with as many regions as it judges at most, by its settings; pictures with few
    objects cost less.
    """
    size = catalog.entry(name).imgsz
    with torch.device("meta"):
        model = _build(name, num_classes)
        images = torch.zeros(1, 3, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.segment(images) if isinstance(model, Segmenter) else model.rehearse(images)
    return Cost(sum(p.numel() for p in model.parameters()), counter.get_total_flops() / 1e9)


@torch.no_grad()
def milliseconds(name: str, num_classes: int = CLASSES, *, runs: int = 10) -> float:
    """The median time of one frame on this CPU with torch, as `TorchRuntime` runs it, weights random."""
    size = catalog.entry(name).imgsz
    network = FrameNetwork(_build(name, num_classes), Preprocess((size, size))).eval()
    network = fused(network, (size, size)).to(memory_format=torch.channels_last)
    frames = torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8)
    places = _places(network.model, size)
    taken = []
    for _ in range(runs + 2):
        start = time.perf_counter()
        network(frames, None, places)
        taken.append(time.perf_counter() - start)
    return 1000 * median(taken[2:])  # the first ones warm up


def _build(name: str, num_classes: int) -> Detector | Segmenter:
    entry = catalog.entry(name)
    module = catalog.module(name)
    # how large the anchors are changes no cost, only how many there are
    settings = module.configure(num_classes, {"backbone": entry.backbone, **entry.options}, _any_anchors)
    model: Detector | Segmenter = module.build(settings)
    return model.eval()


def _places(model: Detector | Segmenter, size: int) -> list[Tensor] | None:
    """As many proposals as the detector wants, if it wants any, each a quarter of the frame."""
    if isinstance(model, Segmenter) or not model.takes_proposals:
        return None
    settings: Any = model.config
    return [torch.tensor([[0.0, 0.0, size / 2, size / 2]]).repeat(settings.proposals.count, 1)]


def _any_anchors(count: int) -> NDArray[np.float64]:
    return np.repeat(np.linspace(16, 256, count)[:, None], 2, axis=1)
