"""The exit codes of every command."""

from __future__ import annotations

from enum import IntEnum

from detseg.errors import DataError, DetsegError, ExportError, WeightsError


class Exit(IntEnum):
    """What a command's exit code says to the shell."""

    OK = 0  # all done
    FAILURE = 1  # something went wrong while running
    USAGE = 2  # the command line cannot be understood
    BAD_DATA = 3  # a data set or a source of pictures cannot be used
    BAD_WEIGHTS = 4  # a weight file cannot be used
    EXPORT_DIFFERS = 5  # an exported model does not answer like its source
    SOME_FAILED = 6  # some inputs failed and were skipped; failures.csv names them
    INTERRUPTED = 130  # stopped by the user; what was finished is kept


_CODES: tuple[tuple[type[DetsegError], Exit], ...] = (
    (DataError, Exit.BAD_DATA),
    (WeightsError, Exit.BAD_WEIGHTS),
    (ExportError, Exit.EXPORT_DIFFERS),
)


def exit_for(error: DetsegError) -> Exit:
    """The exit code that belongs to a failure."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.FAILURE)
