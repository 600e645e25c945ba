"""`detseg.files`: the old file or the new one, never half of either."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from detseg.errors import DetsegError
from detseg.files import replacing, write_bytes, write_text


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_the_new_takes_the_place_of_the_old(tmp_path):
    target = tmp_path / "new folder" / "deep" / "résultat.json"
    for text in ("one", "two, longer"):
        write_text(target, text)
        assert target.read_bytes() == text.encode()
    assert names(target.parent) == ["résultat.json"]


@pytest.mark.parametrize("failure", [ValueError("bad"), KeyboardInterrupt(), OSError(errno.EIO, "input/output error")])
def test_a_block_that_fails_leaves_the_old_file(tmp_path, failure):
    target = tmp_path / "a.csv"
    target.write_text("old")
    expected = DetsegError if isinstance(failure, OSError) else type(failure)

    def half_written() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(expected):
        half_written()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.csv"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_in_words_and_the_old_file_stays(tmp_path, monkeypatch, number):
    target = tmp_path / "a.json"
    target.write_text("old")

    def full(path: Path, content: bytes) -> int:
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DetsegError, match=r"a\.json: cannot be written: the disk is full"):
        write_bytes(target, b"new content")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)


def test_a_write_that_the_system_cuts_short_leaves_the_old_file(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"old")
    done = run(
        "import resource\n"
        "from detseg.errors import DetsegError\n"
        "from detseg.files import write_bytes\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_bytes('a.bin', b'x' * 100_000)\n"
        "except DetsegError as error: print(error)\n",
        tmp_path,
    )
    assert done.stdout.startswith("a.bin: cannot be written: "), done
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_a_killed_process_leaves_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    done = run(
        "import os, signal\n"
        "from detseg.files import replacing\n"
        "with replacing('a.txt') as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n",
        tmp_path,
    )
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_folder_or_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "taken.txt").mkdir()
    with pytest.raises(DetsegError, match=r"taken\.txt: cannot be written"):
        write_text(tmp_path / "taken.txt", "x")
    (tmp_path / "file").write_text("old")
    with pytest.raises(DetsegError, match="cannot be written"):
        write_text(tmp_path / "file" / "below.txt", "x")
    assert names(tmp_path) == ["file", "taken.txt"]


def test_the_longest_name_the_system_allows_and_the_ending_libraries_look_at(tmp_path):
    target = tmp_path / ("n" * 251 + ".png")
    with replacing(target) as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"x")
    assert target.read_bytes() == b"x"


def test_rights_are_those_of_any_new_file(tmp_path):
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "x")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640
