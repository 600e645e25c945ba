"""A segmenter's config from what a person typed, with errors in their words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from detseg.errors import DetsegError
from detseg.parts.grouped_settings import grouped
from detseg.parts.map_losses import PixelCounts, resolved

Config = TypeVar("Config", bound=Any)
Pixels = Callable[[], PixelCounts]  # counts the pixels of each class of the training pictures


def configured(model: str, usual: Config, options: Mapping[str, Any], pixels: Pixels | None) -> Config:
    """The config of the segmenter `model` for new data: flat `options` over `usual`, which has the number of classes.

    `pixels` is asked where the loss weighs classes by how often they occur. Raises DetsegError for an unknown option,
    naming those there are, or one that does not fit.
    """
    try:
        config = grouped({**options, "num_classes": usual.num_classes}, usual)
    except (TypeError, ValueError) as error:
        raise DetsegError(f"{model} cannot be built so: {error}") from error
    return replace(config, loss=resolved(config.loss, pixels))
