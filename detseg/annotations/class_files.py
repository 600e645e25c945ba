"""Files that say which pixel values are which classes: classes.txt and its many relatives.

A line is `name` (the place of the line, from 0, is the value), `value name`, `name r g b`, `r g b name`, or
`value name r g b`; words are parted by spaces, tabs, commas or colons; `#` begins a comment. JSON holds a list of
names, a list of {"name", "value" or "id", "color"}, or a map between names and values or colours. A class called
void, ignore or unlabeled is not counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from detseg.errors import DataError

CLASS_FILES = (
    *("classes.txt", "classes.json", "labelmap.txt", "label_map.txt", "labels.txt", "class_names.txt", "names.txt"),
    *("label_colors.txt", "label_colours.txt", "colormap.txt", "class_dict.csv", "classes.csv", "_classes.csv"),
    *("class_dict_seg.csv", "colormap.json", "palette.json", "label_map.json", "labels.json", "codes.txt"),
)
IGNORED_NAMES = frozenset({"void", "ignore", "ignored", "unlabeled", "unlabelled", "ignore_index", "__ignore__"})

_LARGEST = 4_000_000  # bytes
_HEADER = {"name", "r", "g", "b", "red", "green", "blue", "value", "id", "index", "pixel value", "class", "label"}
Colour = tuple[int, int, int]


class PixelClass(NamedTuple):
    """A class, and the number or colour that its pixels have; `value` None where only the colour is said.

    `by_place`: the value is only the place in a list.
    """

    name: str
    value: int | None
    colour: Colour | None
    by_place: bool = False

    @property
    def is_ignored(self) -> bool:
        """Are its pixels not to be counted?"""
        return self.name.lower() in IGNORED_NAMES


def find_class_file(root: Path) -> Path | None:
    """The file in `root` that names the classes."""
    return next((root / name for name in CLASS_FILES if (root / name).is_file()), None)


def read_classes(file: Path) -> list[PixelClass]:
    """The classes of a file, in its order. Raises DataError naming file, line and cause."""
    try:
        size = file.stat().st_size
        text = file.read_bytes().decode("utf-8-sig", "surrogateescape") if size <= _LARGEST else ""
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    if size > _LARGEST:
        raise DataError(f"{file}: larger than {_LARGEST // 10**6} MB: no list of classes is")
    try:
        found = _of_json(text) if file.suffix.lower() == ".json" else _of_lines(text, file.suffix.lower() == ".csv")
        _check(found)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: classes cannot be read: {error}") from None
    return found


def classes_text(classes: Iterable[PixelClass]) -> tuple[str, str]:
    """(file name, text) that `read_classes` reads as these classes: lines where names allow, else JSON."""
    wanted = list(classes)
    lines = "".join(f"{c.value} {c.name}\n" for c in wanted)
    try:
        if _of_lines(lines, False) == wanted:
            return "classes.txt", lines
    except ValueError:
        pass
    return "classes.json", json.dumps([{"value": c.value, "name": c.name} for c in wanted], indent=1) + "\n"


def _of_lines(text: str, is_csv: bool) -> list[PixelClass]:
    found: list[PixelClass] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = [w for w in (_split(line, ",") if is_csv or "," in line else _split(line)) if w]
        if not words or (not found and _is_header(words)):
            continue
        try:
            found.append(_of_words(words, line.strip(), len(found)))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return found


def _split(line: str, separator: str | None = None) -> list[str]:
    if separator is None and re.search(r":\s*\d+\s*,|:\S*:\S*:", line):  # name:r,g,b:parts:actions
        separator = ":"
    if separator == "," and ":" in line:
        separator = None
        line = re.sub(r"[:,]", " ", line)
    return [word.strip().strip('"') for word in line.split(separator)]


def _is_header(words: list[str]) -> bool:
    return len(words) > 1 and all(word.lower() in _HEADER for word in words)


def _of_words(words: list[str], line: str, position: int) -> PixelClass:
    numbers = [int(w) if re.fullmatch(r"\d{1,9}", w) else None for w in words]
    last, first = numbers[-3:], numbers[:3]
    if len(words) >= 5 and numbers[0] is not None and None not in last and None in numbers[1:-3]:
        return PixelClass(" ".join(words[1:-3]), numbers[0], _colour(last))
    if len(words) >= 4 and None not in last and None in numbers[:-3]:
        return PixelClass(" ".join(words[:-3]), None, _colour(last))
    if len(words) >= 4 and None not in first and None in numbers[3:]:
        return PixelClass(" ".join(words[3:]), None, _colour(first))
    if len(words) >= 2 and numbers[0] is not None and None in numbers[1:]:
        return PixelClass(
            line.split(None, 1)[1].strip(" ,:") if "," not in line else " ".join(words[1:]), numbers[0], None
        )
    if len(words) == 2 and numbers[1] is not None and numbers[0] is None:
        return PixelClass(words[0], numbers[1], None)
    return PixelClass(line, position, None, by_place=True)


def _colour(values: list[Any]) -> Colour:
    if len(values) != 3 or not all(type(v) is int and 0 <= v <= 255 for v in values):
        raise ValueError(f"a colour is three numbers from 0 to 255, not {str(values)[:60]}")
    return values[0], values[1], values[2]


def _of_json(text: str) -> list[PixelClass]:
    content = json.loads(text, object_pairs_hook=_once)
    for key in ("classes", "categories", "labels", "names", "palette"):
        if isinstance(content, dict) and isinstance(content.get(key), list | dict):
            content = content[key]
            break
    if isinstance(content, dict):
        return [_of_pair(key, value) for key, value in content.items()]
    if isinstance(content, list):
        return [_of_entry(entry, position) for position, entry in enumerate(content)]
    raise ValueError(f"it holds a {type(content).__name__}, neither a list nor a map of classes")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice[:60]!r} is given twice")
    return found


def _of_pair(key: str, value: Any) -> PixelClass:
    if type(value) is int and value >= 0:
        return PixelClass(key, value, None)
    if isinstance(value, list):
        return PixelClass(key, None, _colour(value))
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", key):
        return PixelClass(value, int(key), None)
    raise ValueError(f"{key[:60]!r} stands for {str(value)[:60]}, which is no value, colour or name")


def _of_entry(entry: Any, position: int) -> PixelClass:
    if isinstance(entry, str):
        return PixelClass(entry, position, None, by_place=True)
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ValueError(f"entry {position + 1} has no name")
    colour = next((entry[k] for k in ("color", "colour", "rgb") if entry.get(k) is not None), None)
    value = next((entry[k] for k in ("value", "id", "index") if entry.get(k) is not None), None)
    if value is not None and (type(value) is not int or value < 0):
        raise ValueError(f"entry {position + 1}: {str(value)[:60]} is no pixel value")
    if value is None and colour is None:
        return PixelClass(entry["name"], position, None, by_place=True)
    return PixelClass(entry["name"], value, None if colour is None else _colour(colour))


def _check(classes: list[PixelClass]) -> None:
    if not any(not c.is_ignored for c in classes):
        raise ValueError("there is no class in it")
    if any(not c.name.strip() for c in classes):
        raise ValueError("a class has no name")
    for what, given in (
        ("name", [c.name for c in classes if not c.is_ignored]),
        ("value", [c.value for c in classes if c.value is not None]),
        ("colour", [c.colour for c in classes if c.colour is not None]),
    ):
        seen: set[Any] = set()
        for one in given:
            if one in seen:
                raise ValueError(f"{what} {str(one)[:60]} is given more than once")
            seen.add(one)
