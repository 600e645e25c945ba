"""Downloads from a server on this machine that breaks off, lies, and changes its files."""

from __future__ import annotations

import hashlib
import random
import socket
import urllib.error
from pathlib import Path

import pytest

from detseg.downloads import DownloadError, MismatchError, fetch, hash_of, transfer
from detseg.errors import DataError, DetsegError
from tests.local_server import Server, serve

CONTENT = random.Random(0).randbytes(3_000_000)
OTHER = random.Random(1).randbytes(3_000_000)


@pytest.fixture
def server():
    with serve() as running:
        yield running


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(transfer, "PAUSE_S", 0.001)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_arrives_whole_and_checked(server: Server, tmp_path: Path):
    url, heard = server.put("a.zip", CONTENT), []
    hashes = {"sha256": sha256(CONTENT)[:8], "md5": hashlib.md5(CONTENT).hexdigest()}
    got = fetch(url, tmp_path / "sets" / "a.zip", size=len(CONTENT), hashes=hashes, progress=lambda *s: heard.append(s))
    assert (got.path.read_bytes(), got.size, got.sha256) == (CONTENT, len(CONTENT), sha256(CONTENT))
    assert heard[0] == (0, len(CONTENT))
    assert heard[-1] == (len(CONTENT), len(CONTENT))
    assert [p.name for p in got.path.parent.iterdir()] == ["a.zip"]  # no part, no state, no lock
    assert hash_of(got.path, ("sha1",)) == {"sha1": hashlib.sha1(CONTENT).hexdigest()}


@pytest.mark.parametrize("length", [True, False])
def test_a_broken_connection_is_gone_on_from(server: Server, tmp_path: Path, length: bool):
    url = server.put("a", CONTENT, breaks=[1_000_000, 700_000], length=length)
    got = fetch(url, tmp_path / "a", size=len(CONTENT), hashes={"sha256": sha256(CONTENT)})
    assert got.path.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.log] == [None, "bytes=1000000-", "bytes=1700000-"]


def test_an_interruption_keeps_what_has_arrived(server: Server, tmp_path: Path):
    url = server.put("a", CONTENT)

    def stop(done, _total):
        if done > 1_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(url, tmp_path / "a", progress=stop)
    kept = (tmp_path / "a.part").stat().st_size
    assert 1_000_000 < kept < len(CONTENT)
    assert not (tmp_path / "a").exists()
    assert fetch(url, tmp_path / "a").sha256 == sha256(CONTENT)
    assert server.log[-1] == ("a", f"bytes={kept}-")


def interrupted_at(part: int, server: Server, target: Path, **how: object) -> str:
    """A download of CONTENT of which `part` bytes have arrived; its address, which works again."""
    url = server.put("a", CONTENT, breaks=[part] + [0] * 9, **how)
    with pytest.raises(DownloadError, match=f"{part} bytes are kept in .*a.part"):
        fetch(url, target, hashes={"sha256": sha256(CONTENT)})
    server.files["a"].breaks.clear()
    return url


@pytest.mark.parametrize("etag", ["by hash", None, 'W/"weak"'])
def test_a_file_that_changed_meanwhile_is_never_mixed(server: Server, tmp_path: Path, etag: str | None):
    interrupted_at(1_000_000, server, tmp_path / "a", etag=etag)
    url = server.put("a", OTHER, etag=etag)  # of the same length
    said: list[str] = []
    assert fetch(url, tmp_path / "a", say=said.append).path.read_bytes() == OTHER
    assert "starting again" in said[0] if etag == "by hash" else not said


def test_pieces_that_do_not_belong_together_are_had_again(server: Server, tmp_path: Path):
    interrupted_at(1_000_000, server, tmp_path / "a", etag=None)
    url = server.put("a", OTHER, etag=None)  # no mark of the version: only the hash can tell
    said: list[str] = []
    got = fetch(url, tmp_path / "a", hashes={"sha256": sha256(OTHER)}, say=said.append)
    assert got.path.read_bytes() == OTHER
    assert "do not belong together" in said[-1]


def test_a_file_that_changes_within_one_call_is_not_mixed_either(server: Server, tmp_path: Path, monkeypatch):
    url = server.put("a", CONTENT, etag=None, breaks=[1_000_000])
    monkeypatch.setattr("time.sleep", lambda _: server.put("a", OTHER, etag=None))
    assert fetch(url, tmp_path / "a").path.read_bytes() == OTHER


def test_a_server_without_parts_sends_it_from_the_beginning(server: Server, tmp_path: Path):
    url = server.put("a", CONTENT, breaks=[1_000_000], ranges=False)
    assert fetch(url, tmp_path / "a").path.read_bytes() == CONTENT
    assert server.log == [("a", None), ("a", "bytes=1000000-")]


def test_a_part_that_was_complete_already(server: Server, tmp_path: Path):
    url = server.put("a", CONTENT)
    (tmp_path / "a.part").write_bytes(CONTENT)
    assert fetch(url, tmp_path / "a", hashes={"sha256": sha256(CONTENT)}).path.read_bytes() == CONTENT
    assert server.log == [("a", f"bytes={len(CONTENT)}-")]  # refused with 416, which says how long it is


def test_a_part_that_is_too_long(server: Server, tmp_path: Path):
    url = server.put("a", CONTENT)
    (tmp_path / "a.part").write_bytes(CONTENT + b"more")
    assert fetch(url, tmp_path / "a", size=len(CONTENT), hashes={"sha256": sha256(CONTENT)}).size == len(CONTENT)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"hashes": {"sha256": sha256(OTHER)}}, f"its SHA256 is {sha256(CONTENT)}, published is {sha256(OTHER)}"),
        ({"size": 17}, "gives 3000000 bytes, published are 17"),
    ],
)
def test_what_is_not_the_published_file_is_refused(server: Server, tmp_path: Path, how: dict, words: str):
    url = server.put("a.zip", CONTENT)
    with pytest.raises(MismatchError, match=words) as caught:
        fetch(url, tmp_path / "a.zip", **how)
    assert isinstance(caught.value, DataError)
    assert url in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_next_address_is_tried(server: Server, tmp_path: Path):
    wrong, right = server.put("old", OTHER), server.put("mirror", CONTENT)
    said: list[str] = []
    got = fetch(
        [f"{server.url}/gone", wrong, right], tmp_path / "a", hashes={"sha256": sha256(CONTENT)}, say=said.append
    )
    assert got.path.read_bytes() == CONTENT
    assert [path for path, _ in server.log] == ["gone", "old", "mirror"]
    assert "404" in said[0]


def test_a_busy_server_is_asked_again_a_wrong_address_is_not(server: Server, tmp_path: Path):
    url = server.put("a", CONTENT, statuses=[503, 429, 500])
    assert fetch(url, tmp_path / "a").path.read_bytes() == CONTENT
    assert len(server.log) == 4
    with pytest.raises(DownloadError, match="404 Not Found"):
        fetch(f"{server.url}/nothing", tmp_path / "b")
    assert len(server.log) == 5


def test_it_gives_up_at_last(server: Server, tmp_path: Path):
    url = server.put("a", CONTENT, statuses=[503] * 99)
    with pytest.raises(DownloadError, match=rf"503.*tried {transfer.ATTEMPTS} times"):
        fetch(url, tmp_path / "a")
    assert len(server.log) == transfer.ATTEMPTS


def test_without_a_network_it_says_so_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def urlopen(*_, **__):
        raise urllib.error.URLError(socket.gaierror(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited"))
    with pytest.raises(DownloadError, match=r"no network.*Temporary failure") as caught:
        fetch("https://sets.example/a.zip", tmp_path / "a.zip")
    assert "no network" in caught.value.cause
    assert list(tmp_path.iterdir()) == []


def test_only_addresses_of_the_web_are_opened(tmp_path: Path):
    (tmp_path / "secret").write_text("of this machine")
    with pytest.raises(DownloadError, match="not an http or https address"):
        fetch(f"file://{tmp_path}/secret", tmp_path / "a")


def test_a_full_disk_is_seen_before_the_download(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    url = server.put("a", CONTENT)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(DetsegError, match="3000000 bytes are needed and 1000 are free"):
        fetch(url, tmp_path / "a")


def test_two_at_once_do_not_write_one_part(server: Server, tmp_path: Path):
    url = server.put("a", CONTENT)

    def again(*_):
        with pytest.raises(DetsegError, match="another process is downloading it"):
            fetch(url, tmp_path / "a")

    assert fetch(url, tmp_path / "a", progress=again).path.read_bytes() == CONTENT
