"""One file over HTTP(S): resumed where it broke off, tried again when a failure may pass, checked by size and hash.

While it is incomplete the file lies beside its place as NAME.part, with what is needed to go on in NAME.part.json:
the server's own mark of the version (RFC 9110, sections 8.8 and 13.1.5). The server is asked for the rest only of
that same version (`If-Range`); where it has another one by now, the file is had from its beginning.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from detseg import __version__, files
from detseg.errors import DataError, DetsegError

Progress = Callable[[int, int | None], None]  # bytes that are there, bytes in all where that is known
Say = Callable[[str], None]  # a line for people

CHUNK = 1 << 18  # bytes read at once
TIMEOUT_S = 30.0  # without a single byte
ATTEMPTS = 5  # in a row that bring nothing
PAUSE_S = 1.0  # after the first failure; doubled after each further one
LONGEST_PAUSE_S = 60.0
_WORTHWHILE = 1 << 20  # bytes that an attempt must bring to count as progress
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}
_NO_NETWORK = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ECONNREFUSED}


class DownloadError(DetsegError):
    """A file cannot be had from the network; `cause` says why in a few words."""

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


class MismatchError(DataError):
    """A file is not the one that was published: another size or another hash."""


@dataclass(frozen=True)
class Fetched:
    """A file that has arrived: its place, its length in bytes, its SHA-256 as 64 hex digits."""

    path: Path
    size: int
    sha256: str


class _PassingError(Exception):
    """An attempt failed in a way that may pass; `wait` is how long the server asks to be left alone, in seconds."""

    def __init__(self, cause: str, wait: float = 0.0) -> None:
        super().__init__(cause)
        self.wait = wait


class _FinalError(Exception):
    """An attempt failed, and would again."""


class _RangeRefusedError(Exception):
    """The server has nothing from the asked byte on (416); `total` is how much it has, where it says so."""

    def __init__(self, content_range: str) -> None:
        super().__init__(content_range)
        found = re.fullmatch(r"bytes \*/(\d+)", content_range.strip())
        self.total = int(found[1]) if found else None


class _Digests:
    """Several hashes of the same bytes, made while these pass."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._names = tuple(algorithms)
        self.restart()

    def restart(self) -> None:
        """Nothing has passed yet."""
        self._digests = {name: hashlib.new(name) for name in self._names}

    def update(self, chunk: bytes) -> None:
        """These bytes pass."""
        for digest in self._digests.values():
            digest.update(chunk)

    def feed(self, path: Path, progress: Progress | None = None) -> int:
        """A whole file passes; its length."""
        done, total = 0, path.stat().st_size
        with path.open("rb") as file:
            while chunk := file.read(CHUNK * 16):
                self.update(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
        return done

    def hex(self) -> dict[str, str]:
        """The hashes so far, in hex, by name."""
        return {name: digest.hexdigest() for name, digest in self._digests.items()}


def fetch(
    urls: str | Sequence[str],
    target: str | Path,
    *,
    size: int | None = None,
    hashes: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
) -> Fetched:
    """Downloads what lies at the first of `urls` that can be had, to `target`, which then is complete and checked.

    `size` is in bytes; `hashes` maps names of `hashlib` to hex digits, the whole hash or its beginning. A partial
    file of an earlier call is gone on from. Raises DownloadError when no address answers (what has arrived is
    kept), MismatchError when something else than the published file arrives, DetsegError when it cannot be written.
    """
    job = _Job(
        Path(target), size, dict(hashes or {}), progress or (lambda done, total: None), say or (lambda line: None)
    )
    addresses = [urls] if isinstance(urls, str) else list(urls)
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(job.part):
            return job.from_any(addresses)
    except OSError as error:  # those of the network have become other errors by now
        raise DetsegError(f"{job.part}: cannot be written: {files.cause(error)}") from error


def hash_of(path: Path, algorithms: Sequence[str] = ("sha256",), progress: Progress | None = None) -> dict[str, str]:
    """Hashes of a file in hex, by name of `hashlib`; the file is read once."""
    digests = _Digests(algorithms)
    digests.feed(path, progress)
    return digests.hex()


def disagreement(
    path: Path, size: int | None, hashes: Mapping[str, str], progress: Progress | None = None
) -> str | None:
    """In what a file differs from the published one, in words; None where it does not."""
    actual = path.stat().st_size
    if size is not None and actual != size:
        return f"it has {actual} bytes, published are {size}"
    found = hash_of(path, tuple(hashes), progress) if hashes else {}
    return _differing(found, hashes)


def _differing(found: Mapping[str, str], expected: Mapping[str, str]) -> str | None:
    for name, digits in expected.items():
        if not found[name].startswith(digits.lower()):
            return f"its {name.upper()} is {found[name]}, published is {digits}"
    return None


@dataclass
class _Job:
    """One file on its way."""

    target: Path
    size: int | None
    hashes: dict[str, str]
    progress: Progress
    say: Say

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    @property
    def state(self) -> Path:
        return self.target.with_name(self.target.name + ".part.json")

    def from_any(self, addresses: Sequence[str]) -> Fetched:
        """The file from the first address that gives it; the failure of the last one where none does."""
        failure: DetsegError | None = None
        for position, url in enumerate(addresses):
            try:
                return self.from_one(url)
            except (DownloadError, MismatchError) as error:
                failure = error
                if position + 1 < len(addresses):
                    self.say(f"{error}; trying {addresses[position + 1]}")
        raise failure or DownloadError(f"{self.target.name}: no address to download it from", "no address")

    def from_one(self, url: str) -> Fetched:
        """The file from one address; pieces of different versions are noticed, and had again as a whole."""
        while True:
            in_pieces = self._kept() > 0
            digests = _Digests({"sha256", *self.hashes})
            try:
                received = self._patiently(url, digests)
            except MismatchError:  # what has arrived belongs to another file
                self._drop()
                raise
            found = digests.hex()
            fault = _differing(found, self.hashes)
            if fault is None:
                self.part.replace(self.target)
                self.state.unlink(missing_ok=True)
                return Fetched(self.target, received, found["sha256"])
            self._drop()
            if not in_pieces:
                raise MismatchError(f"{self.target.name}: not the published file: {fault}; got from {url}")
            self.say(f"{self.target.name}: {fault}; the pieces do not belong together, starting again")

    def _drop(self) -> None:
        self.part.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)

    def _validator(self, url: str) -> str | None:
        """The mark of the version that the part is of, as the server of `url` gave it."""
        try:
            state = json.loads(self.state.read_bytes())
            known = state["validator"] if state["url"] == url else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return known if isinstance(known, str) else None

    def _patiently(self, url: str, digests: _Digests) -> int:
        """Attempt after attempt until the part is complete; its length. `digests` are then those of the part."""
        failures = 0
        have = digests.feed(self.part) if self.part.exists() else 0
        while True:
            before = have
            try:
                return self._attempt(url, have, digests)
            except _FinalError as error:
                raise self._failed(url, str(error)) from error
            except _PassingError as error:
                have = self._kept()
                if not have:
                    digests.restart()
                failures = 0 if have >= before + _WORTHWHILE else failures + 1
                if failures >= ATTEMPTS:
                    raise self._failed(url, f"{error}; tried {ATTEMPTS} times") from error
                pause = min(max(error.wait, PAUSE_S * 2 ** max(failures - 1, 0)), LONGEST_PAUSE_S)
                self.say(f"{self.target.name}: {error}; next attempt in {pause:.0f} s, from byte {have}")
                time.sleep(pause)

    def _kept(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _failed(self, url: str, cause: str) -> DownloadError:
        kept = ""
        if have := self._kept():
            kept = f"; {have} bytes are kept in {self.part}, the same command goes on from there"
        return DownloadError(f"{self.target.name}: cannot be downloaded from {url} ({cause}){kept}", cause)

    def _attempt(self, url: str, have: int, digests: _Digests) -> int:
        """One request, for what is missing; the length of the complete part."""
        validator = self._validator(url)
        if have and not validator and not self.hashes:  # nothing could tell whether the pieces belong together
            self._drop()
            digests.restart()
            have = 0
        if have and have == self.size:
            return have
        try:
            with _answer(url, have, validator) as response:
                return self._take(url, response, have, digests)
        except _RangeRefusedError as error:
            if error.total == have:  # all was there, only the last step was missing
                return have
            self._drop()
            raise _PassingError("the server has no such part") from error

    def _take(self, url: str, response: Any, have: int, digests: _Digests) -> int:
        """Looks at the header of an answer, then takes the body; the length of the complete part."""
        continues = getattr(response, "status", 200) == 206
        start = have if continues else 0
        total = _total(response, start)
        if continues and _range_start(response) != have:
            self._drop()
            raise _PassingError("the server sent another piece than was asked for")
        if self.size is not None and total is not None and total != self.size:
            raise self._other_size(total, url)
        if continues:
            self.say(f"{self.target.name}: going on from byte {have}")
        elif have:
            self.say(f"{self.target.name}: starting again: the server has another version, or cannot send parts")
            digests.restart()
        self._expect_room(total, start)
        self._remember(url, response)
        return self._receive(response, start, total, digests)

    def _other_size(self, length: int, url: str) -> MismatchError:
        return MismatchError(
            f"{self.target.name}: not the published file: {url} gives {length} bytes, published are {self.size}"
        )

    def _expect_room(self, total: int | None, start: int) -> None:
        free = shutil.disk_usage(self.target.parent).free
        if total is not None and total - start > free:
            raise DetsegError(
                f"{self.target.parent}: {total - start} bytes are needed and {free} are free; make room or choose"
                " another place with --out"
            )

    def _remember(self, url: str, response: Any) -> None:
        tag = response.headers.get("ETag")
        # a weak tag does not promise the same bytes
        validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
        files.write_text(self.state, json.dumps({"url": url, "validator": validator}))

    def _receive(self, response: Any, start: int, total: int | None, digests: _Digests) -> int:
        """Writes the answer's body to the part, from byte `start` on; the part's length."""
        done = start
        expected = self.size if self.size is not None else total
        with self.part.open("r+b" if start else "wb") as file:
            file.seek(start)
            self.progress(done, expected)
            for chunk in _chunks(response):
                file.write(chunk)
                digests.update(chunk)
                done += len(chunk)
                self.progress(done, expected)
                if expected is not None and done > expected:
                    raise self._other_size(done, response.geturl())
        if expected is not None and done < expected:
            raise _PassingError(f"connection lost after {done} of {expected} bytes")
        return done


def _chunks(response: Any) -> Iterator[bytes]:
    received = 0
    while True:
        try:
            chunk = response.read1(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _PassingError(f"connection lost after {received} bytes: {_words(error)}") from error
        if not chunk:
            return
        received += len(chunk)
        yield chunk


@contextmanager
def _answer(url: str, have: int, validator: str | None) -> Iterator[Any]:
    """The server's answer to a request for everything from byte `have` on."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise _FinalError("not an http or https address")
    request = urllib.request.Request(
        url, headers={"User-Agent": f"detseg/{__version__}", "Accept-Encoding": "identity"}
    )
    if have:
        request.add_header("Range", f"bytes={have}-")
        if validator:
            request.add_header("If-Range", validator)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        raise _refusal(error, have) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _no_answer(error) from error
    with response:
        yield response


def _refusal(error: urllib.error.HTTPError, have: int) -> Exception:
    if error.code == 416 and have:
        return _RangeRefusedError(_header(error, "Content-Range"))
    words = f"the server answers {error.code} {error.reason}"
    if error.code not in _PASSING_STATUS:
        return _FinalError(words)
    wait = _header(error, "Retry-After")
    return _PassingError(words, float(wait) if wait.isdigit() else 0.0)


def _header(answer: Any, name: str) -> str:
    return (answer.headers.get(name) or "") if answer.headers else ""


def _no_answer(error: Exception) -> Exception:
    reason = getattr(error, "reason", error)
    words = _words(reason if isinstance(reason, BaseException) else error)
    if isinstance(reason, socket.gaierror):
        return _FinalError(f"no network, or no such server: {words}")
    if isinstance(reason, ssl.SSLError | ValueError) or getattr(reason, "errno", None) in _NO_NETWORK:
        return _FinalError(words)
    if not isinstance(reason, BaseException):  # an address that cannot be understood
        return _FinalError(str(reason))
    return _PassingError(words)


def _words(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()


def _total(response: Any, start: int) -> int | None:
    """How long the whole file is, as the answer's header says."""
    whole = re.fullmatch(r"bytes \d+-\d+/(\d+)", _header(response, "Content-Range"))
    if whole:
        return int(whole[1])
    length = _header(response, "Content-Length")
    return start + int(length) if length.isdigit() else None


def _range_start(response: Any) -> int | None:
    found = re.match(r"bytes (\d+)-", _header(response, "Content-Range"))
    return int(found[1]) if found else None


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Only one process writes a part; where the system knows no such locks there is none."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    lock = part.with_name(part.name + ".lock")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DetsegError(f"{part}: another process is downloading it right now; wait for it to end") from None
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
