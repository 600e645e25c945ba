"""Archives unpacked so that nothing leaves the folder and nothing grows without limit.

zip and tar, the latter plain or through gzip, bzip2 or xz; which it is, is seen from its first bytes. Refused, each
with the name of the member: a path that is absolute or climbs out, a link that leads out, a device or pipe, a
password. Links that stay inside are made last, so that no file is ever written through one. Modes, owners and times
in the archive are ignored.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Any

from detseg import files
from detseg.errors import DataError, DetsegError

Progress = Callable[[int, int | None], None]  # bytes of the archive that are done, bytes in all

CHUNK = 1 << 20
_LONGEST_HEADER = 1 << 24  # bytes; a tar can announce a "name" of any length, which would be held in memory
_LONGEST_LINK = 4096
_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    "tar": lambda raw: raw,
    "gz": lambda raw: gzip.GzipFile(fileobj=raw),  # none of them closes `raw`
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile, ValueError)


@dataclass(frozen=True)
class Limits:
    """What an archive may become: `ratio` times its own size (small ones: `floor` bytes), `total` bytes, `members`."""

    ratio: float = 100.0
    floor: int = 1 << 26
    total: int = 1 << 40
    members: int = 5_000_000

    def of(self, archive_bytes: int) -> int:
        """How many bytes may come out of an archive of this size."""
        return min(self.total, max(self.floor, int(self.ratio * archive_bytes)))


def unpack(
    archive: str | Path,
    into: str | Path,
    *,
    only: Sequence[str] = (),
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> int:
    """Unpacks a zip or tar into the folder `into`, which is made; how many files there were.

    `only` are patterns as of a shell, one of which a member's path must match; `*` matches slashes too. When
    something is wrong the folder may hold a part of the archive: unpack into one that can be thrown away. Raises
    DataError that names the archive, the member and the cause.
    """
    archive, root = Path(archive), Path(into)
    root.mkdir(parents=True, exist_ok=True)
    out = _Out(archive, root.resolve(), tuple(only), limits or Limits())
    report = progress or (lambda done, total: None)
    try:
        kind = _kind(archive)
        if kind == "zip":
            _unpack_zip(out, report)
        else:
            _unpack_tar(out, kind, report)
        out.make_links()
    except _BROKEN as error:
        cause = str(error) or type(error).__name__
        raise DataError(f"{archive}: damaged: {cause}; delete it and download it again") from error
    except RuntimeError as error:  # zipfile's word for a password
        raise DataError(f"{archive}: {error}; it cannot be unpacked here") from error
    except OSError as error:
        where = error.filename or root
        raise DetsegError(f"{where}: cannot be written: {files.cause(error)}") from error
    return out.files


def _kind(archive: Path) -> str:
    if not archive.is_file():
        raise DataError(f"{archive}: there is no such file")
    with archive.open("rb") as file:
        head = file.read(512)
    for magic, kind in ((b"\x1f\x8b", "gz"), (b"BZh", "bz2"), (b"\xfd7zXZ\x00", "xz"), (b"PK\x03\x04", "zip")):
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar" or (head and tarfile.is_tarfile(archive)):
        return "tar"
    if zipfile.is_zipfile(archive):
        return "zip"
    page = head.lstrip().lower().startswith((b"<!doctype", b"<html"))
    what = "a web page (the server wants a login, or shows an error)" if page else "neither zip nor tar"
    raise DataError(f"{archive}: not an archive but {what}; get it by hand from the page of its publishers")


class _Out:
    """Where members go, and everything that is refused on the way there."""

    def __init__(self, archive: Path, root: Path, only: tuple[str, ...], limits: Limits) -> None:
        self.archive, self.root, self.only, self.limits = archive, root, only, limits
        self.files = 0
        self._allowed = limits.of(archive.stat().st_size) if archive.is_file() else 0
        self._written = 0
        self._members = 0
        self._links: list[tuple[str, PurePosixPath, PurePosixPath, bool]] = []

    def refuse(self, member: str, cause: str) -> DataError:
        """The error for a member that must not be unpacked."""
        return DataError(f"{self.archive}: {member!r} {cause}; nothing of the archive is used")

    def place(self, member: str) -> PurePosixPath | None:
        """The path of a member below the root; None for one that is not wanted. Every member is checked."""
        self._members += 1
        if self._members > self.limits.members:
            raise DataError(f"{self.archive}: more than {self.limits.members} members, which is refused")
        path = self._inside(member, member.replace("\\", "/"))
        if not path.parts or path.parts[0] == "__MACOSX":  # what macOS adds of its own
            return None
        wanted = not self.only or any(fnmatchcase(path.as_posix(), pattern) for pattern in self.only)
        return path if wanted else None

    def _inside(self, member: str, name: str) -> PurePosixPath:
        """`name` without `.` and empty parts; refused where it is absolute or climbs out."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        drive = bool(parts) and len(parts[0]) >= 2 and parts[0][1] == ":"
        if name.startswith("/") or drive or ".." in parts or "\0" in name:
            raise self.refuse(member, "leads out of the folder it is unpacked into")
        return PurePosixPath(*parts)

    def folder(self, path: PurePosixPath) -> None:
        """Makes a folder."""
        (self.root / path).mkdir(parents=True, exist_ok=True)

    def file(self, member: str, path: PurePosixPath, source: IO[bytes]) -> None:
        """Writes a file; one that is there already gives way, as it does in tar."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise self.refuse(member, "is a file and a folder at once")
        target.unlink(missing_ok=True)
        with target.open("xb") as file:
            while chunk := source.read(CHUNK):
                self.count(len(chunk))
                file.write(chunk)
        self.files += 1

    def count(self, written: int) -> None:
        """So many bytes more have come out."""
        self._written += written
        if self._written > self._allowed:
            raise DataError(
                f"{self.archive}: grows to more than {self._allowed} bytes when unpacked, which is refused as a trap"
                " (a decompression bomb)"
            )

    def link(self, member: str, path: PurePosixPath, target: str, *, hard: bool) -> None:
        """Notes a link for later; a symbolic one's target is seen from its own folder, a hard one's from the root."""
        target = target.replace("\\", "/")
        parts = [] if hard else list(path.parent.parts)
        for part in target.split("/"):
            if part == ".." and parts:
                parts.pop()
            elif part == ".." or target.startswith("/") or part[1:2] == ":":
                raise self.refuse(member, f"is a link to {target!r}, outside the folder it is unpacked into")
            elif part not in ("", "."):
                parts.append(part)
        self._links.append((member, path, PurePosixPath(*parts), hard))

    def make_links(self) -> None:
        """Makes the links, now that all files are there: relative ones, or copies for hard ones."""
        for member, path, target, hard in self._links:
            place, goal = self.root / path, self.root / target
            if place.parent.resolve() != place.parent or not self._leads_inside(goal):
                raise self.refuse(member, f"is a link to {target.as_posix()!r} by way of another link")
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.is_dir() and not place.is_symlink():
                raise self.refuse(member, "is a link and a folder at once")
            place.unlink(missing_ok=True)
            if not hard:
                place.symlink_to(os.path.relpath(goal, place.parent))
            elif goal.is_file():
                self.count(goal.stat().st_size)
                shutil.copyfile(goal, place)
            else:
                raise self.refuse(member, f"is a link to {target.as_posix()!r}, which is no file of the archive")
            self.files += 1
        for member, path, _, _ in self._links:  # a later link may have changed where an earlier one leads
            if not self._leads_inside(self.root / path):
                raise self.refuse(member, "is a link that leads outside")

    def _leads_inside(self, path: Path) -> bool:
        try:
            return path.resolve().is_relative_to(self.root)
        except (OSError, RuntimeError):  # a circle of links
            return False


def _unpack_zip(out: _Out, progress: Progress) -> None:
    with zipfile.ZipFile(out.archive) as archive:
        # all names first: an archive that is refused leaves nothing behind
        wanted = [(info, path) for info in archive.infolist() if (path := out.place(info.filename)) is not None]
        out_of = sum(info.compress_size for info, _ in wanted)
        done = 0
        for info, path in wanted:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                raise out.refuse(info.filename, "is neither file nor folder")
            if info.is_dir():
                out.folder(path)
                continue
            try:
                source = archive.open(info)
            except NotImplementedError as error:
                raise out.refuse(info.filename, f"is compressed in a way that is not known here ({error})") from error
            with source:
                if kind == stat.S_IFLNK:
                    out.link(info.filename, path, source.read(_LONGEST_LINK).decode("utf-8", "replace"), hard=False)
                else:
                    out.file(info.filename, path, source)
            done += info.compress_size
            progress(done, out_of)


def _unpack_tar(out: _Out, kind: str, progress: Progress) -> None:
    total = out.archive.stat().st_size
    with _decompressed(out.archive, kind) as (raw, stream), tarfile.open(fileobj=stream, mode="r:") as archive:
        for info in archive:
            path = out.place(info.name)
            if path is None:
                continue
            if info.isdir():
                out.folder(path)
            elif info.issym() or info.islnk():
                out.link(info.name, path, info.linkname, hard=info.islnk())
            elif info.isreg():
                source = archive.extractfile(info)
                assert source is not None  # it is a regular file
                with source:
                    out.file(info.name, path, source)
            else:
                raise out.refuse(info.name, "is neither file, folder nor link (a device or a pipe)")
            progress(raw.tell(), total)


@contextmanager
def _decompressed(archive: Path, kind: str) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The archive's file, and the tar in it."""
    with archive.open("rb") as raw:
        yield raw, _Wary(_OPENERS[kind](raw))  # type: ignore[misc]


class _Wary(io.RawIOBase):
    """A stream that gives no more at once than a header may have: tarfile holds whole headers in memory."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        """As of any file."""
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes, which is refused")
        content: bytes = self._stream.read(size)
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of any file."""
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        """As of any file."""
        return int(self._stream.tell())
