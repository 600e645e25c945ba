"""What can go wrong because of the world outside, each with the words a user needs.

Every message names the file, the cause and the remedy. The command line maps the classes to its exit codes;
anything that is not a `DetsegError` is a defect of detseg itself.
"""

from __future__ import annotations

from pathlib import Path


class DetsegError(Exception):
    """A failure whose message is meant for the user: run-time failure, exit code 1."""


class DataError(DetsegError):
    """A data set or annotation file cannot be used: exit code 3."""


class WeightsError(DetsegError):
    """A weight file cannot be used: exit code 4."""


class ExportError(DetsegError):
    """An exported model does not answer like its source: exit code 5."""


class ImageError(DetsegError):
    """One picture cannot be read; `path` names it and `cause` says why in a few words."""

    def __init__(self, path: str | Path, cause: str) -> None:
        super().__init__(f"{path}: {cause}")
        self.path = Path(path)
        self.cause = cause
