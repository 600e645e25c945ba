"""Text for people: aligned columns, and file names that cannot upset a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from os import PathLike, fspath


def printable(text: str | PathLike[str]) -> str:
    """A name on one line: control characters and bytes that are no text are escaped, all else stays."""
    return "".join(
        c.encode("unicode_escape").decode("ascii") if unicodedata.category(c) in ("Cc", "Cs") else c
        for c in fspath(text)
    )


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()) -> str:
    """Columns under their names, those at the positions `right` aligned to the right (numbers)."""
    cells = [list(header), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(_width(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(
            pad + cell if i in right else cell + pad
            for i, cell in enumerate(row)
            for pad in (" " * (widths[i] - _width(cell)),)
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _width(text: str) -> int:
    """Columns on a terminal: wide letters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def counted(number: int, word: str) -> str:
    """ "1 picture", "2 pictures"."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"
