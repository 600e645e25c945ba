"""`Runtime`: what runs a network, whatever it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detseg.checkpoints.card import Card
from detseg.results import RawDetections


class Runtime(Protocol):
    """A model ready to use."""

    @property
    def name(self) -> str:
        """What runs it: "torch" or "onnx"."""

    @property
    def device(self) -> str:
        """Where: "cpu", "cuda:0", ..."""

    @property
    def card(self) -> Card:
        """What the model is; `card.preprocess` says how its frames are made."""

    def predict(
        self,
        frames: NDArray[np.uint8],
        sizes_hw: NDArray[np.int64] | None = None,
        proposals: Sequence[NDArray[np.float32]] | None = None,
    ) -> RawDetections:
        """(N, H, W, 3) uint8 RGB frames -> boxes (N, A, 4) and scores (N, A, K), float32 arrays.

        A model that outlines its objects gives masks (N, A, M, M) too. Normalisation happens inside. `sizes_hw`
        (N, 2): how much of each frame, from its top left, is shown to the network; the rest is 0 after normalisation.
        Without it all of it is. `proposals`: boxes (P, 4) of each frame, for a model that looks at such and for no
        other (`ProposalSettings.of_config` says so of its card). Raises WeightsError when the model cannot take frames
        of this size.
        """

    def segment(self, frames: NDArray[np.uint8], sizes_hw: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """(N, H, W, 3) uint8 RGB frames -> (N, K, H, W) logits of the classes, of a model whose task is that.

        `sizes_hw` and what is raised as in `predict`.
        """
