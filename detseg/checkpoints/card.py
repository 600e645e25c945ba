"""`Card`: the JSON block inside every weight file, from which a model is rebuilt and used. Torch-free."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import PurePath
from typing import Any

import numpy as np

from detseg import __version__
from detseg.annotations.categories import Categories
from detseg.errors import WeightsError
from detseg.preprocess.recipe import FITS, Preprocess

FORMAT_VERSION = 1
TASKS = ("detect", "segment")


@dataclass(frozen=True, kw_only=True)
class Card:
    """What must be known to use a weight file, and where it comes from.

    `model` is a name of the catalog and `config` its settings; `categories` and `preprocess` say what goes in
    and comes out; `training` is free: data set fingerprint, command, seed, versions, metrics. Both dicts are
    kept as plain JSON (tuples become lists, numpy numbers Python's, paths text; in `training` a NaN null).
    Raises ValueError when something cannot be written as JSON or contradicts itself.
    """

    model: str
    config: dict[str, Any]
    categories: Categories
    preprocess: Preprocess
    training: dict[str, Any] = field(default_factory=dict)
    task: str = "detect"
    format_version: int = FORMAT_VERSION
    written_by: str = __version__  # of detseg

    def __post_init__(self) -> None:
        if not self.model or not isinstance(self.model, str):
            raise ValueError(f"model must be a name, got {self.model!r}")
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {self.task!r}")
        if not len(self.categories):
            raise ValueError("a model needs at least one category")
        object.__setattr__(self, "config", _plain(self.config, "config"))
        object.__setattr__(self, "training", _plain(self.training, "training", nan_is_null=True))

    def to_json_text(self) -> str:
        """The card as one line of ASCII JSON."""
        block = {name: getattr(self, name) for name in _PLAIN_FIELDS}
        block["categories"] = self.categories.to_json()
        block["preprocess"] = asdict(self.preprocess)
        return json.dumps(block, allow_nan=False)

    @classmethod
    def from_json_text(cls, text: str | bytes, where: str = "card") -> Card:
        """The card that `to_json_text` wrote; `where` names it in messages.

        Raises WeightsError when it is not one, or was written by a newer detseg in a format unknown here.
        """
        try:
            block = _as_dict(json.loads(text), "the block")
            _refuse_newer(block, where)
            plain = {name: block[name] for name in _PLAIN_FIELDS}
            return cls(
                **(plain | {name: _as_dict(plain[name], name) for name in ("config", "training")}),
                categories=Categories.from_json(block["categories"]),
                preprocess=_preprocess(_as_dict(block["preprocess"], "preprocess")),
            )
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            cause = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise WeightsError(f"{where}: its detseg block cannot be read: {cause}") from error


_PLAIN_FIELDS = tuple(f.name for f in fields(Card) if f.name not in ("categories", "preprocess"))


def _refuse_newer(block: Mapping[str, Any], where: str) -> None:
    version = block["format_version"]
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"format_version must be a whole number from 1, got {version!r}")
    if version > FORMAT_VERSION:
        raise WeightsError(
            f"{where}: written in format {version} by detseg {block.get('written_by', '(unknown)')}, this "
            f"detseg {__version__} reads up to format {FORMAT_VERSION}; "
            "update with: pip install --upgrade detseg"
        )


def _preprocess(block: dict[str, Any]) -> Preprocess:
    """Strict: a setting that is unknown or out of range would change what the network sees without a word."""
    known = {f.name for f in fields(Preprocess)}
    if set(block) != known:
        raise ValueError(f"preprocess must have exactly {sorted(known)}, got {sorted(block)}")
    frame_hw = tuple(int(v) for v in block["frame_hw"])
    mean, std = (tuple(float(v) for v in block[name]) for name in ("mean", "std"))
    if len(frame_hw) != 2 or not all(1 <= v <= 1 << 14 for v in frame_hw):
        raise ValueError(f"preprocess.frame_hw must be height and width in pixels, got {block['frame_hw']}")
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
        raise ValueError(f"preprocess.mean and .std must be three numbers, std > 0, got {mean} and {std}")
    if block["fit"] not in FITS:
        raise ValueError(f"preprocess.fit must be one of {', '.join(FITS)}, got {block['fit']!r}")
    if block["fit"] == "shorter" and frame_hw[0] > frame_hw[1]:
        raise ValueError(f"preprocess.frame_hw must be the shorter side, then the longer, got {block['frame_hw']}")
    if not 0 <= int(block["fill"]) <= 255:
        raise ValueError(f"preprocess.fill must be 0 to 255, got {block['fill']!r}")
    return Preprocess(frame_hw, block["fit"], mean, std, int(block["fill"]))


def _as_dict(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be an object, got {type(value).__name__}")
    return value


def _plain(value: Any, where: str, nan_is_null: bool = False) -> Any:
    """`value` as plain JSON, a copy; so that a card read back equals the one written."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value) and not nan_is_null:
            raise ValueError(f"{where} must be a finite number, got {value}")
        return value if math.isfinite(value) else None
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}", nan_is_null) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item, f"{where}[{i}]", nan_is_null) for i, item in enumerate(value)]
    raise ValueError(f"{where} cannot be written as JSON: {type(value).__name__}")
