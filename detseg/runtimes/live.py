"""A model still in training behind the same door as a finished one, so that validation walks the ordinary route."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from detseg.checkpoints import Card
from detseg.detectors.contract import Detector
from detseg.results import RawDetections
from detseg.runtimes.network import FrameNetwork, as_tensors


class LiveRuntime:
    """`detector` as it is now, in evaluation mode while it predicts. See `contract.Runtime`."""

    name = "torch"

    def __init__(self, card: Card, detector: Detector) -> None:
        self.card = card
        self._detector = detector
        self._tensor_device = next(detector.parameters()).device
        self.device = str(self._tensor_device)
        self._network = FrameNetwork(detector, card.preprocess).to(self._tensor_device)

    @torch.inference_mode()
    def predict(
        self,
        frames: NDArray[np.uint8],
        sizes_hw: NDArray[np.int64] | None = None,
        proposals: Sequence[NDArray[np.float32]] | None = None,
    ) -> RawDetections:
        """(N, H, W, 3) uint8 RGB -> boxes (N, A, 4), scores (N, A, K); the model's mode is put back after."""
        was_training = self._detector.training
        self._detector.eval()
        try:
            answer = self._network(*as_tensors(frames, sizes_hw, self._tensor_device, proposals))
        finally:
            self._detector.train(was_training)
        return RawDetections(*(part.cpu().numpy() for part in answer))
