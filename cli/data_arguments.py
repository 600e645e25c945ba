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
