"""Darknet's network description, a .cfg file: sections `[name]` of lines `option=value`. Torch-free.

What the options of a section mean is said in `darknet_plan.py`; here they are read, and asked for by kind and range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detseg.checkpoints.header import expect_file
from detseg.errors import WeightsError

MAX_BYTES = 4_000_000  # the largest published cfg has 50 kB
MAX_SECTIONS = 4096
_SHORT = {
    "network": "net",
    "conv": "convolutional",
    "max": "maxpool",
    "avg": "avgpool",
    "local_avg": "local_avgpool",
    "drop": "dropout",
    "scale_channel": "scale_channels",
}


@dataclass(frozen=True)
class Section:
    """One section: its name, its options as written, and where it stands, for messages.

    The asking methods raise WeightsError naming the place, the option and what it must be.
    """

    name: str
    options: Mapping[str, str]
    file: str
    place: str  # "line 12", or "section 3" where the lines are not known
    lines: Mapping[str, int] = field(default_factory=dict)  # option -> its line

    def __str__(self) -> str:
        return f"{self.file}, {self.place}, [{self.name}]"

    def wrong(self, cause: str, option: str | None = None) -> WeightsError:
        """The error to raise about this section, or about one option of it."""
        if option is None:
            return WeightsError(f"{self}: {cause}")
        place = f"line {self.lines[option]}" if option in self.lines else self.place
        written = f"{option}={self.options[option][:40]}" if option in self.options else option
        return WeightsError(f"{self.file}, {place}, [{self.name}] {written}: {cause}")

    def text(self, option: str, default: str) -> str:
        """The option in lower case."""
        return self.options.get(option, default).lower()

    def integer(self, option: str, default: int | None, low: int, high: int) -> int:
        """A whole number from `low` to `high`; without a default it must be there."""
        if option not in self.options:
            if default is None:
                raise self.wrong("missing", option)
            return default
        return self._whole(option, self.options[option], low, high)

    def number(self, option: str, default: float, low: float, high: float) -> float:
        """A number from `low` to `high`."""
        if option not in self.options:
            return default
        value = _number(self.options[option])
        if not low <= value <= high:
            raise self.wrong(f"must be a number from {low:g} to {high:g}", option)
        return value

    def flag(self, option: str, default: bool = False) -> bool:
        """0 or 1; any other whole number counts as 1, as Darknet does."""
        return bool(self.integer(option, int(default), -1000, 1000))

    def integers(self, option: str, low: int, high: int, most: int = 1000) -> tuple[int, ...]:
        """Whole numbers separated by commas; none where the option is not there."""
        return tuple(self._whole(option, word, low, high) for word in self._words(option, most))

    def numbers(self, option: str, low: float, high: float, most: int = 1000) -> tuple[float, ...]:
        """Numbers separated by commas; none where the option is not there."""
        values = tuple(_number(word) for word in self._words(option, most))
        if not all(low <= value <= high for value in values):
            raise self.wrong(f"must be numbers from {low:g} to {high:g}, separated by commas", option)
        return values

    def _words(self, option: str, most: int) -> list[str]:
        words = [word for word in self.options.get(option, "").split(",") if word]
        if len(words) > most:
            raise self.wrong(f"{len(words)} numbers, at most {most} can be meant", option)
        return words

    def _whole(self, option: str, text: str, low: int, high: int) -> int:
        value = _number(text)
        if not (low <= value <= high and value == int(value)):
            raise self.wrong(f"must be a whole number from {low} to {high}", option)
        return int(value)


def read_cfg(path: str | Path) -> tuple[Section, ...]:
    """The sections of a .cfg file. Raises WeightsError naming file, line and cause."""
    path = Path(path)
    expect_file(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_BYTES or b"\0" in content:
        raise WeightsError(f"{path}: not a Darknet cfg, which is a short text; NET.cfg comes before NET.weights")
    return parse_cfg(content.decode("utf-8-sig", "replace"), str(path))


def parse_cfg(text: str, file: str = "cfg") -> tuple[Section, ...]:
    """The sections of a cfg's text; `file` names it in messages.

    As Darknet reads it: blanks play no part anywhere, lines that begin with # or ; are comments, of an option given
    twice the first counts. Unlike there, a comment may also follow a value.
    """
    found: list[tuple[str, int, dict[str, str], dict[str, int]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        bare = "".join(line.partition("#")[0].partition(";")[0].split())
        if not bare:
            continue
        if bare.startswith("["):
            if not bare.endswith("]") or len(found) == MAX_SECTIONS:
                cause = f"more than {MAX_SECTIONS} sections" if bare.endswith("]") else f"{bare[:40]!r} lacks its ]"
                raise WeightsError(f"{file}, line {number}: {cause}")
            name = bare[1:-1].lower()
            found.append((_SHORT.get(name, name), number, {}, {}))
            continue
        option, equals, value = bare.partition("=")
        if not equals or not option or not found:
            cause = "a line before the first [section]" if equals and option else "neither [section] nor option=value"
            raise WeightsError(f"{file}, line {number}: {bare[:40]!r}: {cause}; is this a Darknet cfg?")
        found[-1][2].setdefault(option, value)
        found[-1][3].setdefault(option, number)
    if not found:
        raise WeightsError(f"{file}: not a Darknet cfg: it has no [section]")
    return tuple(Section(name, options, file, f"line {at}", lines) for name, at, options, lines in found)


def to_json(sections: Sequence[Section]) -> list[list[Any]]:
    """The sections as plain JSON values: [name, {option: value}]."""
    return [[section.name, dict(section.options)] for section in sections]


def from_json(values: Any, where: str = "config") -> tuple[Section, ...]:
    """The sections that `to_json` wrote. Raises ValueError when they are not."""
    try:
        if len(values) > MAX_SECTIONS:
            raise ValueError(f"more than {MAX_SECTIONS} sections")
        return tuple(
            Section(str(name), {str(k): str(v) for k, v in options.items()}, where, f"section {i}")
            for i, (name, options) in enumerate(values)
        )
    except (TypeError, AttributeError) as error:
        raise ValueError(f"sections must be a list of [name, options]: {error}") from error


def _number(text: str) -> float:
    """The number, or one that is in no range."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
