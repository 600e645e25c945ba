"""`Runtime`: what runs a network, whatever it is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detseg.checkpoints.card import Card
from detseg.results import RawDetections

Means = tuple[NDArray[np.float32], ...]  # (C,) of each layer that takes the mean of a picture, in the order of asking
Parts = tuple[NDArray[np.uint8], NDArray[np.float32]]  # of a picture: frames (N, H, W, 3), xyxy in them what counts


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

    @property
    def any_size(self) -> bool:
        """Whether it takes frames of any size; else only its card's."""

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

    def segment(
        self, frames: NDArray[np.uint8], sizes_hw: NDArray[np.int64] | None = None, means: Means = ()
    ) -> NDArray[np.float32]:
        """(N, H, W, 3) uint8 RGB frames -> (N, K, H, W) logits of the classes, of a model whose task is that.

        `sizes_hw` and what is raised as in `predict`. `means`: of the picture that the frames are parts of, as
        `picture_means` tells them; without them the network takes those of each frame.
        """

    def picture_means(self, parts: Iterable[Parts]) -> Means:
        """What the network takes from a picture as a whole, shown to it part by part; their boxes are the picture.

        Empty, and no part is looked at, where it takes nothing or cannot be told, as an exported one cannot.
        """


class Doors(ABC):
    """The two ways to ask a runtime, both over `_run`, which answers with the arrays of the network."""

    any_size = True

    def predict(
        self,
        frames: NDArray[np.uint8],
        sizes_hw: NDArray[np.int64] | None = None,
        proposals: Sequence[NDArray[np.float32]] | None = None,
    ) -> RawDetections:
        """See `Runtime.predict`."""
        return RawDetections(*self._run(frames, sizes_hw, proposals))

    def segment(
        self, frames: NDArray[np.uint8], sizes_hw: NDArray[np.int64] | None = None, means: Means = ()
    ) -> NDArray[np.float32]:
        """See `Runtime.segment`."""
        logits: NDArray[np.float32]
        (logits,) = self._run(frames, sizes_hw, None)
        return logits

    def picture_means(self, parts: Iterable[Parts]) -> Means:
        """See `Runtime.picture_means`; nothing, unless a runtime knows better."""
        return ()

    @abstractmethod
    def _run(
        self,
        frames: NDArray[np.uint8],
        sizes_hw: NDArray[np.int64] | None,
        proposals: Sequence[NDArray[np.float32]] | None,
    ) -> list[Any]: ...
