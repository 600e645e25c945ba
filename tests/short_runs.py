"""A training run without the command, that may be cut short."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from detseg.training.config import TrainConfig
from detseg.training.folder import RunFolder
from detseg.training.loop import Trainer
from detseg.training.setup import prepare


class Stop(Exception):
    """The run is cut short."""


def run(
    config: TrainConfig,
    folder: Path,
    validate: Callable[[Any], dict[str, float]] | None = None,
    stop_after: int | None = None,
) -> dict[str, torch.Tensor]:
    """The weights at the end, or as the report of epoch `stop_after`, from 1, found them."""
    prepared = prepare(config, "detseg train")

    def report(event: object) -> None:
        if stop_after is not None and type(event).__name__ == "EpochDone" and event.epoch + 1 == stop_after:
            raise Stop

    trainer = Trainer(
        model=prepared.model,
        preprocess=prepared.card.preprocess,
        data=prepared.data,
        config=config,
        folder=RunFolder(folder, prepared.card),
        validate=validate or (lambda model: {"ap": 0.5}),
        report=report,
    )
    with suppress(Stop):
        trainer.run()
    return prepared.model.state_dict()
