"""The two doors of every detector: `losses` for training, `detect` for use. Neither depends on train()/eval()."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from detseg.parts.class_rows import ClassRows, with_known_classes
from detseg.results import RawDetections


@dataclass(frozen=True, eq=False)
class Target:
    """The truth of one picture in the network's frame.

    boxes (n, 4) float32 xyxy; labels (n,) int64 class index; ignored (n,) bool, True for crowd and difficult
    objects, which are neither positives nor negatives. masks (n, H, W) bool in the frame, for models that learn from
    them (`NEEDS_MASKS = True` in the model's module). proposals (P, 4), for detectors that take them.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor
    masks: Tensor | None = None
    proposals: Tensor | None = None

    @classmethod
    def empty(cls) -> Target:
        """A picture without objects."""
        return cls(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))

    def to(self, device: torch.device | str) -> Target:
        """The same truth on `device`."""
        masks, proposals = (None if x is None else x.to(device) for x in (self.masks, self.proposals))
        return Target(self.boxes.to(device), self.labels.to(device), self.ignored.to(device), masks, proposals)


class Lessons(Protocol):
    """Training pictures as the model sees them in use, one after another, by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, Target] | None:
        """The image (1, 3, H, W), normalised, and its truth; None where the picture cannot be read."""


class Detector(nn.Module, ABC):
    """A detector: images (N, 3, H, W) float, normalised as its `Preprocess` says.

    With `takes_sizes` it wants to know how much of each image is the picture, and `detect(images, sizes_hw)` is given
    it: (N, 2) int64 heights and widths from the top left, beyond which images are 0. With `takes_proposals` it looks
    only where others say that something may be: `detect(images, proposals)` is given boxes (P, 4) of each image, or
    None for each image as a whole; targets have them, too. Its config has a group `proposals` of
    `detseg.proposals.ProposalSettings`.

    `later_stages`: what is learnt once training by gradient is over, one by one (`learn_stage`).
    """

    takes_sizes: ClassVar[bool] = False
    takes_proposals: ClassVar[bool] = False

    @abstractmethod
    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Named scalar losses, their sum is what training minimises; finite also without any object."""

    @abstractmethod
    def detect(self, images: Tensor) -> RawDetections:
        """boxes (N, A, 4) or (N, A, K, 4) in the network's frame, scores (N, A, K) in [0, 1]; traceable for export."""

    def rehearse(self, images: Tensor) -> None:
        """What `detect` runs, for counting, on tensors without content (torch's device "meta").

        A model that chooses what it looks at overrides this: nothing can be chosen there, so it takes the most it may.
        """
        self.detect(images)

    def class_rows(self) -> dict[str, ClassRows]:
        """The layers, or single tensors, that speak of classes, and how their rows are arranged."""
        return {}

    def adapted(self, state: Mapping[str, Tensor], classes: Mapping[int, int]) -> dict[str, Tensor]:
        """The tensors of a checkpoint to start from, those changed that can be made to fit.

        `classes`: the model's index of each class that the checkpoint knows, too -> the checkpoint's.
        """
        return with_known_classes(self, state, classes, self.class_rows())

    @property
    def later_stages(self) -> tuple[str, ...]:
        """Names of the stages behind training by gradient, in order; here none."""
        return ()

    def learn_stage(self, stage: str, lessons: Lessons, folder: Path) -> Iterator[tuple[int, int]]:
        """Does one of `later_stages` and sets the model's tensors by it, telling steps done and steps in all.

        What it finds out is kept in `folder` in files written in one step, and not done again where they are there: a
        run that was killed goes on.
        """
        raise NotImplementedError(f"there is no stage {stage!r}")
