"""Writing files so that nothing half-written is ever seen: a temporary name in the same folder, then a rename."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from detseg.errors import DetsegError

_MASK_LOCK = threading.Lock()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`; what is written there takes the place of `path` when the block ends well.

    Missing folders are made. When the block fails the temporary file is removed and `path` stays as it was.
    Raises DetsegError, naming the file, when the disk is full or the place cannot be written.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # the suffix is kept: libraries choose the format by it; the stem is not, since it may be too long already
        handle, name = tempfile.mkstemp(prefix=".part-", suffix=target.suffix, dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        raise DetsegError(f"{target}: cannot be written: {cause(error)}") from error
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                temporary.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text in one step; see `replacing`."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes bytes in one step; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _umask() -> int:
    with _MASK_LOCK:  # it can only be read by setting it; two threads at once would leave it at 0 for good
        mask = os.umask(0)
        os.umask(mask)
    return mask


def cause(error: OSError) -> str:
    """Why something cannot be written, and what helps, in a few words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; make room or choose another place with --out"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "no permission to write there; choose another place with --out"
    return error.strerror or str(error)
