"""TensorBoard's event files of a run, in its folder: the losses of steps, the numbers of epochs, and pictures.

Everything stands at the number of batches done since the run began. A run that goes on tells TensorBoard to forget what
an earlier process wrote beyond the state that it goes on from, so that no step is there twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.errors import DetsegError
from detseg.training.loop import EpochDone, StepDone
from detseg.training.stages import StageStep

FOLDER = "tensorboard"
EVERY = 10  # batches between points of the running loss


def expect_tensorboard() -> None:
    """Raises DetsegError where TensorBoard is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise DetsegError(
            "--tensorboard: the package tensorboard is not installed: pip install 'detseg[tensorboard]'"
        ) from error


class TensorBoardLog:
    """Takes what the loop reports. `folder`: of the run. Raises DetsegError where TensorBoard is not installed."""

    def __init__(self, folder: Path) -> None:
        expect_tensorboard()
        self.folder = folder / FOLDER
        self._writer: Any = None
        self._done = 0
        self._losses: list[float] = []

    def __call__(self, event: StepDone | EpochDone | StageStep) -> None:
        """A step, an epoch, or what is of no interest here."""
        if isinstance(event, StepDone):
            self._step(event)
        elif isinstance(event, EpochDone):
            self._epoch(event)

    def picture(self, name: str, image: NDArray[np.uint8]) -> None:
        """(h, w, 3) RGB, as of the last step or epoch told."""
        self._at(self._done).add_image(name, image, self._done, dataformats="HWC")

    def close(self) -> None:
        """Writes what is not yet written."""
        if self._writer is not None:
            self._writer.close()

    def _step(self, event: StepDone) -> None:
        self._done = event.epoch * event.steps + event.step
        writer = self._at(self._done)
        self._losses.append(event.loss)
        if self._done % EVERY == 0:
            writer.add_scalar("step/loss", sum(self._losses) / len(self._losses), self._done)
            self._losses.clear()

    def _epoch(self, event: EpochDone) -> None:
        self._done = (event.epoch + 1) * event.steps
        writer = self._at(self._done)
        numbers = event.row()
        told = {"epoch/number": numbers.pop("epoch"), "epoch/seconds": numbers.pop("seconds")}
        told |= {"epoch/lr": numbers.pop("lr"), "epoch/pictures per second": numbers.pop("pictures/s"), **numbers}
        for name, value in told.items():
            writer.add_scalar(name, value, self._done)
        writer.flush()

    def _at(self, step: int) -> Any:
        """The writer; made at the first event, which says from where on the run goes on."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=step)
        return self._writer
