"""The values that stand in COCO's JSON, and what is made of those that should not."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

MAX_ID = 2**63 - 1


class Unusable(Exception):
    """Why one entry of the file cannot be used; `kind` is the fault's."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Repeating(dict[str, Any]):
    """An object in which a key was given more than once; as everywhere in Python the last one counts."""

    key = ""


def json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of its pairs, for `json.loads`; a `Repeating` one where a key is there twice."""
    if len({key for key, _ in pairs}) == len(pairs):
        return dict(pairs)
    result, keys = Repeating(pairs), [key for key, _ in pairs]
    result.key = next(key for key in keys if keys.count(key) > 1)
    return result


def as_id(value: Any) -> int | None:
    """Ids are whole numbers; 12.0 and "12" are taken for 12."""
    if type(value) is int:
        return value if -MAX_ID <= value <= MAX_ID else None
    if isinstance(value, float) and value.is_integer():
        return as_id(int(value))
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    return None


def number(value: Any) -> float:
    """A finite number as it is; anything else is NaN."""
    if type(value) is float:
        return value if math.isfinite(value) else math.nan
    if type(value) is int and -1e300 < value < 1e300:
        return float(value)
    return math.nan


def short(value: Any) -> str:
    """A value in a message, however long it is."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def span(text: Any, parts: Sequence[msgspec.Raw]) -> tuple[int, int]:
    """Where in a text its parts, that were decoded from it in order, begin and end."""
    if not parts:
        return 0, 0
    begin = address(text)
    return address(parts[0]) - begin, address(parts[-1]) + len(memoryview(parts[-1])) - begin


def address(buffer: Any) -> int:
    """Where a buffer lies in memory."""
    return int(np.frombuffer(buffer, np.uint8).__array_interface__["data"][0])
