"""The two doors of every segmenter: `losses` for training, `segment` for use. Neither depends on train()/eval()."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from detseg.parts.class_rows import ClassRows, with_known_classes
from detseg.parts.label_maps import LabelMaps, enlarged
from detseg.parts.map_losses import Criterion, LossConfig


class Segmenter(nn.Module, ABC):
    """A segmenter: images (N, 3, H, W) float, normalised as its `Preprocess` says -> a number a class a pixel.

    It has a `backbone` (of `detseg.backbones`) and `auxiliary_weight`, what maps beside the answer count in training.
    """

    auxiliary_weight: float = 0.0

    def __init__(self, loss: LossConfig) -> None:
        super().__init__()
        self.criterion = Criterion(loss)

    @abstractmethod
    def answer(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, h, w): logits of the classes, on a grid that covers the frame evenly."""

    def lessons(self, images: Tensor) -> list[Tensor]:
        """What is learnt from: the answer first, then maps of its kind that help it to learn; here the answer alone."""
        return [self.answer(images)]

    def segment(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, K, H, W) logits of every pixel of the frame; traceable for export."""
        return enlarged(self.answer(images), images.shape[2:])

    def class_rows(self) -> dict[str, ClassRows]:
        """The layers, or single tensors, that speak of classes, and how their rows are arranged."""
        return {}

    def adapted(self, state: Mapping[str, Tensor], classes: Mapping[int, int]) -> dict[str, Tensor]:
        """The tensors of a checkpoint to start from, those changed that can be made to fit.

        `classes`: the model's index of each class that the checkpoint knows, too -> the checkpoint's.
        """
        return with_known_classes(self, state, classes, self.class_rows())

    def losses(self, images: Tensor, truth: LabelMaps) -> dict[str, Tensor]:
        """Named scalar losses, their sum is what training minimises; finite also where no pixel counts."""
        first, *others = (enlarged(maps, images.shape[2:]) for maps in self.lessons(images))
        losses = self.criterion(first, truth)
        if others:
            beside = [value for maps in others for value in self.criterion(maps, truth).values()]
            losses["auxiliary"] = torch.stack(beside).sum() * (self.auxiliary_weight / len(others))
        return losses
