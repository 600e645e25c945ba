"""A segmenter's config from what a person typed, with errors in their words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from detseg.errors import DetsegError
from detseg.parts.grouped_settings import grouped

Config = TypeVar("Config")
Pixels = Callable[[], Any]  # counts the pixels of each class of the training pictures


def configured(model: str, usual: Config, options: Mapping[str, Any], pixels: Pixels | None) -> Config:
    """The config of the segmenter `model` for new data: flat `options` over `usual`.

    `pixels` is for losses that weigh classes by how often they occur; no loss that is here does, and it is not asked.
    Raises DetsegError for an unknown option, naming those there are, or one that does not fit.
    """
    try:
        return grouped(options, usual)
    except (TypeError, ValueError) as error:
        raise DetsegError(f"{model} cannot be built so: {error}") from error
