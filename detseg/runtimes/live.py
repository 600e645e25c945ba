"""A model still in training behind the same door as a finished one, so that validation walks the ordinary route."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from detseg.checkpoints import Card
from detseg.detectors.contract import Detector
from detseg.runtimes.contract import Doors
from detseg.runtimes.network import FrameNetwork, as_tensors
from detseg.segmenters.contract import Segmenter


class LiveRuntime(Doors):
    """`model` as it is now, in evaluation mode while it predicts. See `contract.Runtime`."""

    name = "torch"

    def __init__(self, card: Card, model: Detector | Segmenter) -> None:
        self.card = card
        self._model = model
        self._tensor_device = next(model.parameters()).device
        self.device = str(self._tensor_device)
        self._network = FrameNetwork(model, card.preprocess).to(self._tensor_device)

    @torch.inference_mode()
    def _run(
        self,
        frames: NDArray[np.uint8],
        sizes_hw: NDArray[np.int64] | None,
        proposals: Sequence[NDArray[np.float32]] | None,
    ) -> list[NDArray[np.float32]]:
        was_training = self._model.training
        self._model.eval()
        try:
            answer = self._network(*as_tensors(frames, sizes_hw, self._tensor_device, proposals))
        finally:
            self._model.train(was_training)
        return [part.cpu().numpy() for part in answer]
