"""From a descriptor to a folder that `detseg.annotations.load` reads.

In the data folder lie the sets, each a folder of its name; `downloads/` with the archives, whole or in part; and
`downloads.json`, which remembers the SHA-256 of everything that was downloaded, so that a file whose publishers
give no hash is at least the same every time. A set is unpacked into a temporary folder and renamed at the end:
there is the whole set or none of it.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from detseg import files
from detseg.annotations.descriptors import MARKER, Descriptor, File
from detseg.downloads import DownloadError, Limits, MismatchError, disagreement, fetch, unpack
from detseg.errors import DataError, DetsegError
from detseg.public_sets import steps

DOWNLOADS = "downloads"
LOCK = "downloads.json"

Report = Callable[[int, int | None], None]  # bytes or files done, in all where that is known


class Watcher:
    """Who is told how it goes; this one says nothing."""

    def bar(self, label: str, unit: Literal["bytes", "files"]) -> AbstractContextManager[Report]:
        """A stage of the work, which then reports how far it is."""
        return nullcontext(lambda done, total: None)

    def say(self, line: str) -> None:
        """Something worth knowing."""


class ByHandError(DetsegError):
    """Something only a person can do; `steps` are the lines that tell what."""

    def __init__(self, message: str, steps: tuple[str, ...]) -> None:
        super().__init__(message)
        self.steps = steps


class Locked(msgspec.Struct, frozen=True):
    """What is remembered of a download."""

    url: str
    size: int
    sha256: str
    date: str


@dataclass(frozen=True)
class Wanted:
    """An archive of a set, and how much of it is in the data folder."""

    file: File
    path: Path
    have: int

    @property
    def is_there(self) -> bool:
        """Is the whole file there (its hash not yet looked at)?"""
        return self.path.is_file()


@dataclass(frozen=True)
class Plan:
    """What getting a set would do: nothing when it `is_complete`, else fetch `wanted` and make the folder `target`."""

    descriptor: Descriptor
    target: Path
    is_complete: bool
    wanted: tuple[Wanted, ...]

    @property
    def missing(self) -> int | None:
        """Bytes still to be downloaded; None where that is not known."""
        rest = [0 if w.is_there else None if w.file.size is None else w.file.size - w.have for w in self.wanted]
        return sum(r for r in rest if r is not None) if None not in rest else None


def plan(descriptor: Descriptor, data_folder: Path) -> Plan:
    """What there is of a set, and what is missing; looks, and changes nothing."""
    target = data_folder / descriptor.name
    wanted = []
    for file in descriptor.files:
        path = data_folder / DOWNLOADS / file.name
        part = path.with_name(path.name + ".part")
        have = next((p.stat().st_size for p in (path, part) if p.is_file()), 0)
        wanted.append(Wanted(file, path, have))
    return Plan(descriptor, target, (target / MARKER).is_file(), tuple(wanted))


def install(
    descriptor: Descriptor, data_folder: Path, *, watcher: Watcher | None = None, keep_archives: bool = False
) -> Path:
    """The set's folder, complete: as it is, or downloaded, checked, unpacked and laid out now.

    Archives that were downloaded are deleted at the end unless `keep_archives`; those put there by hand stay.
    Raises ByHandError with what to do where the network, or the licence, asks for a person; DataError when a file
    is not the published one, an archive is not safe, or the folder is in use.
    """
    watcher = watcher or Watcher()
    planned = plan(descriptor, data_folder)
    if planned.is_complete:
        return planned.target
    if planned.target.exists():
        raise DataError(
            f"{planned.target}: there already, but not complete by detseg's own hand; move it away or choose"
            " another --out"
        )
    lock = _Lock(data_folder / LOCK)
    _need_people(planned, lock)
    archives = [_obtain(wanted, planned, lock, watcher) for wanted in planned.wanted]
    _unpack_all(planned, archives, watcher)
    if not keep_archives:
        for path in archives:
            if path.name in lock.entries:  # what people put there by hand is theirs
                path.unlink(missing_ok=True)
    return planned.target


def instructions(planned: Plan) -> tuple[str, ...]:
    """What a person does to get the set: which file from where to which place, and how to go on."""
    lines = [f"{planned.descriptor.title}: {planned.descriptor.page}", *planned.descriptor.by_hand]
    for wanted in planned.wanted:
        if not wanted.is_there:
            source = " or ".join(wanted.file.urls) or wanted.file.page
            check = f" ({wanted.file.hash})" if wanted.file.hash else ""
            lines.append(f"get {source}{check}, put it at {wanted.path}")
    if planned.wanted:
        out = shlex.quote(str(planned.target.parent))
        lines.append(f"then go on with: detseg data download {planned.descriptor.name} --out {out}")
    return tuple(lines)


class _Lock:
    """The file that remembers downloads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, Locked] = {}
        if path.exists():
            try:
                self.entries = msgspec.json.decode(path.read_bytes(), type=dict[str, Locked])
            except (OSError, msgspec.MsgspecError) as error:
                raise DataError(f"{path}: damaged ({error}); delete it, hashes are then remembered anew") from error

    def note(self, name: str, entry: Locked) -> None:
        self.entries[name] = entry
        text = msgspec.json.format(msgspec.json.encode(self.entries), indent=2)
        files.write_bytes(self.path, text + b"\n")


def _need_people(planned: Plan, lock: _Lock) -> None:
    """Stops early where a file that only people can get is missing."""
    missing = [w.file.name for w in planned.wanted if not w.file.urls and not w.is_there]
    if missing or not planned.wanted:
        what = f"{', '.join(missing)} must be got by hand" if missing else "it must be got by hand"
        raise ByHandError(f"{planned.descriptor.name}: {what}", instructions(planned))


def _obtain(wanted: Wanted, planned: Plan, lock: _Lock, watcher: Watcher) -> Path:
    """An archive that is whole and checked, from the data folder or the network."""
    file = wanted.file
    locked = lock.entries.get(file.name)
    hashes = file.hashes or ({"sha256": locked.sha256} if locked else {})
    if wanted.is_there:
        with watcher.bar(f"checking {file.name}", "bytes") as report:
            fault = disagreement(wanted.path, file.size, hashes, report)
        if fault:
            raise DataError(f"{wanted.path}: not the file that is wanted: {fault}{_whose(file, lock)}; delete it and"
                            f" start again")  # fmt: skip
        return wanted.path
    try:
        with watcher.bar(f"downloading {file.name}", "bytes") as report:
            got = fetch(file.urls, wanted.path, size=file.size, hashes=hashes, progress=report, say=watcher.say)
    except MismatchError as error:
        raise MismatchError(f"{error}{_whose(file, lock)}") from error
    except DownloadError as error:
        raise ByHandError(str(error), instructions(planned)) from error
    if not file.hash:
        watcher.say(f"{file.name}: sha256 {got.sha256}; no published hash is known, so this one is kept in {lock.path}")
    lock.note(file.name, Locked(file.urls[0], got.size, got.sha256, datetime.now(UTC).date().isoformat()))
    return got.path


def _whose(file: File, lock: _Lock) -> str:
    """Whose word the expected hash is."""
    if file.hash:
        return f" (hash as in {file.hash_from})"
    if file.name in lock.entries:
        return f" (hash of an earlier download, from {lock.path}; remove its entry there if the publishers changed it)"
    return ""


def _unpack_all(planned: Plan, archives: list[Path], watcher: Watcher) -> None:
    """All archives into a temporary folder, laid out there; in one step it becomes the set's folder."""
    descriptor, target = planned.descriptor, planned.target
    free, needed = shutil.disk_usage(target.parent).free, descriptor.unpacked or 0
    if needed > free:
        raise DetsegError(f"{target.parent}: about {needed} bytes are needed and {free} are free; make room or choose"
                          " another --out")  # fmt: skip
    staging = Path(tempfile.mkdtemp(prefix=f".{descriptor.name}-", dir=target.parent))
    try:
        for wanted, archive in zip(planned.wanted, archives, strict=True):
            into = staging / wanted.file.into
            if wanted.file.is_archive:
                with watcher.bar(f"unpacking {archive.name}", "bytes") as report:
                    unpack(archive, into, only=wanted.file.only, limits=_limits(descriptor), progress=report)
            else:
                into.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(archive, into / archive.name)
        with watcher.bar("laying out", "files") as report:
            steps.run(descriptor, staging, report)
        for fault in steps.uncounted(descriptor, staging):
            watcher.say(f"{descriptor.name}: {fault}")
        marker = {"name": descriptor.name, "date": datetime.now(UTC).date().isoformat(),
                  "files": {w.file.name: w.file.hash for w in planned.wanted}}  # fmt: skip
        files.write_bytes(staging / MARKER, msgspec.json.encode(marker))
        staging.chmod(0o755)
        staging.rename(target)
    except OSError as error:
        raise DetsegError(f"{error.filename or target}: cannot be written: {files.cause(error)}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _limits(descriptor: Descriptor) -> Limits:
    """No archive of the set may grow beyond twice what the whole set takes."""
    return Limits(total=2 * descriptor.unpacked + (1 << 26)) if descriptor.unpacked else Limits()
