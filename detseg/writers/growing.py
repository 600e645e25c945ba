"""`GrowingFile`: a text file that grows picture by picture, and takes its place only when it is whole."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from detseg.errors import DetsegError
from detseg.files import replacing

_BLOCK = 1 << 16


class GrowingFile:
    """Text appended to a temporary file, renamed to `path` on `close`.

    Each `write` is one record. When the disk is full the records that do not fit are dropped whole, so that
    what stands in the file is valid; `close` still ends it. Raises DetsegError naming the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._replacing = replacing(path)
        self._file = open(self._replacing.__enter__(), "wb", buffering=0)  # noqa: SIM115 - closed by close
        self._pending: list[bytes] = []
        self._waiting = self._end = 0

    def write(self, record: bytes) -> None:
        """Appends one record, sooner or later."""
        self._pending.append(record)
        self._waiting += len(record)
        if self._waiting >= _BLOCK:
            try:
                self._flush()
            except OSError as error:
                raise DetsegError(f"{self.path}: cannot be written: {error.strerror or error}") from error

    def close(self, tail: bytes = b"") -> None:
        """Appends `tail` and puts the file in its place; the second call does nothing."""
        if self._file.closed:
            return
        try:
            try:
                self._flush()
            finally:
                self._pending = [tail]
                self._flush()
                self._file.close()
        except OSError:
            self._file.close()
            # the temporary file goes, and the error comes back as one that names the file
            self._replacing.__exit__(*sys.exc_info())
        else:
            self._replacing.__exit__(None, None, None)

    def _flush(self) -> None:
        block = memoryview(b"".join(self._pending))
        self._pending, self._waiting = [], 0
        written = 0
        try:
            while written < len(block):
                written += self._file.write(block[written:]) or 0
        except OSError:
            os.ftruncate(self._file.fileno(), self._end)
            self._file.seek(self._end)
            raise
        self._end += written
