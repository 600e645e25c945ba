"""What the subcommands of `detseg data` share on their command lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


def data() -> Any:
    """DATA -> `data: Path`."""
    return click.argument("data", type=click.Path(path_type=Path))


def split(help: str = "Only this part of the data set (train, val, ...).  [default: everything]") -> Any:
    """--split -> `split: str | None`."""
    return click.option("--split", help=help)


def pictures() -> Any:
    """--copy, --link, --no-images -> `pictures: Literal["link", "copy", "none"]`."""
    flags = (
        ("--copy", "copy", True, "Copy the pictures.  [default]"),
        ("--link", "link", False, "Hard links instead of copies, where the disk can."),
        ("--no-images", "none", False, "Annotations only."),
    )

    def decorate(function: Any) -> Any:
        for name, value, default, help in reversed(flags):
            function = click.option(name, "pictures", flag_value=value, default=default, help=help)(function)
        return function

    return decorate
