"""Configs made of groups, written flat: `{"rpn.nms_iou": 0.7}` is the field `nms_iou` of the group `rpn`.

Flat names are what a person types (`--option rpn.nms_iou=0.6`) and what a checkpoint stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

Config = TypeVar("Config")


def flat(config: Any) -> dict[str, Any]:
    """A frozen dataclass, groups and all -> name or group.name -> value."""
    values: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            values |= {f"{field.name}.{name}": inner for name, inner in flat(value).items()}
        else:
            values[field.name] = value
    return values


def grouped(values: Mapping[str, Any], usual: Config) -> Config:
    """The config of flat values, of the kind of `usual`, which says what is left out; lists become tuples.

    A config may want other values in a group than the group's own defaults: they stay where one of them is named.
    Raises ValueError for a name that is not there and for a value of the wrong kind.
    """
    known = flat(usual)
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"there is no option {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    nested: dict[str, Any] = {}
    for name, value in {**known, **values}.items():
        group, dot, rest = name.partition(".")
        if dot:
            nested.setdefault(group, {})[rest] = value
        else:
            nested[name] = value
    try:
        return TypeAdapter(type(usual)).validate_python(nested)
    except ValidationError as error:
        wrong = "; ".join(_told(e["loc"], e["msg"]) for e in error.errors())
        raise ValueError(wrong) from error


def _told(where: tuple[int | str, ...], message: str) -> str:
    """What is wrong with which setting; a group's own words as they are."""
    own = message.removeprefix("Value error, ")
    return f"{'.'.join(map(str, where))}: {own}" if where else own
