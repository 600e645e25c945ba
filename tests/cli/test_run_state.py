"""What a run keeps on disk besides its results: its folder and its journal; and what it shows meanwhile."""

from __future__ import annotations

import io
import sys
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from detseg.cli import progress, run_folder
from detseg.cli.journal import FILE_NAME, Journal
from detseg.cli.tables import printable, table
from detseg.errors import DetsegError
from detseg.images import ImageFile
from detseg.results import Detections

SETTINGS = {"conf": 0.25, "classes": (1, 2), "imgsz": None}


def image(name: str) -> ImageFile:
    return ImageFile(Path("photos", name), PurePosixPath(name))


def found(seed: int) -> Detections:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 5))
    boxes = rng.uniform(0, 500, (n, 4)).astype(np.float32)
    return Detections((480, 640), boxes, rng.random(n, np.float32), rng.integers(0, 9, n))


ODD = ["a.jpg", "sub/a.jpg", "line\nbreak.jpg", "größe.jpg", "latin1-caf\udce9.jpg"]


def test_what_was_found_comes_back_to_the_last_bit(tmp_path):
    journal = Journal(tmp_path, SETTINGS, resume=False)
    for seed, name in enumerate(ODD):
        journal.add(image(name), found(seed))
    journal.close()
    again = Journal(tmp_path, SETTINGS, resume=True)
    assert len(again) == len(ODD)
    for seed, name in enumerate(ODD):
        assert image(name) in again
        before, after = found(seed), again.found(image(name))
        np.testing.assert_array_equal(before.boxes, after.boxes)
        np.testing.assert_array_equal(before.scores, after.scores)
        np.testing.assert_array_equal(before.labels, after.labels)
        assert (after.image_hw, after.path) == ((480, 640), Path("photos", name))
    assert image("b.jpg") not in again
    assert ImageFile(Path("elsewhere/a.jpg"), PurePosixPath("a.jpg")) not in again


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_line_cut_short_by_a_crash_is_dropped_and_written_over(tmp_path, cut):
    journal = Journal(tmp_path, SETTINGS, resume=False)
    for seed in (1, 3, 8):
        assert len(found(seed)) > 1
        journal.add(image(f"{seed}.jpg"), found(seed))
    journal.close()
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(tmp_path, SETTINGS, resume=True)
    assert [image(f"{i}.jpg") in again for i in (1, 3, 8)] == [True, True, False]
    again.add(image("s"), Detections((1, 1)))  # shorter than what is left of the cut line
    again.close()
    last = Journal(tmp_path, SETTINGS, resume=True)
    assert len(last) == 3
    assert last.found(image("s")).image_hw == (1, 1)
    assert path.read_bytes().count(b"\n") == 4


def test_a_run_goes_on_only_with_the_settings_it_began_with(tmp_path):
    Journal(tmp_path, SETTINGS, resume=False).close()
    with pytest.raises(DetsegError, match=r"conf was 0\.25, now 0\.4"):
        Journal(tmp_path, {**SETTINGS, "conf": 0.4}, resume=True)
    Journal(tmp_path, {**SETTINGS, "conf": 0.4}, resume=False).close()
    Journal(tmp_path, {**SETTINGS, "conf": 0.4}, resume=True).close()


def test_what_is_no_journal_is_refused_and_kept(tmp_path):
    (tmp_path / FILE_NAME).write_text("my diary\n")
    with pytest.raises(DetsegError, match="not a journal"):
        Journal(tmp_path, SETTINGS, resume=True)
    assert (tmp_path / FILE_NAME).read_text() == "my diary\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_told(tmp_path):
    (tmp_path / FILE_NAME).symlink_to("/dev/full")
    with pytest.raises(DetsegError, match="No space left"):
        Journal(tmp_path, SETTINGS, resume=False)


def test_runs_are_numbered(tmp_path):
    names = [run_folder.choose(None, tmp_path, None, reuse=False).name for _ in range(3)]
    assert names == ["exp", "exp2", "exp3"]
    assert run_folder.choose(None, tmp_path, "night", reuse=False).name == "night"
    assert run_folder.choose(None, tmp_path, None, reuse=False, make=False) == tmp_path / "exp4"
    assert not (tmp_path / "exp4").exists()
    assert run_folder.choose(None, tmp_path, None, reuse=True).name == "exp"
    assert run_folder.latest(tmp_path, None) == tmp_path / "exp3"
    assert run_folder.latest(tmp_path, "day") is None


def test_a_folder_in_use_is_refused(tmp_path):
    assert run_folder.choose(tmp_path / "new" / "deep", tmp_path, None, reuse=False).is_dir()
    (tmp_path / "mine").mkdir()
    assert run_folder.choose(tmp_path / "mine", tmp_path, None, reuse=False)  # empty: nothing to lose
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(DetsegError, match="--exist-ok"):
        run_folder.choose(tmp_path / "mine", tmp_path, None, reuse=False)
    run_folder.choose(tmp_path / "mine", tmp_path, None, reuse=True)
    with pytest.raises(DetsegError, match="is a file"):
        run_folder.choose(tmp_path / "mine" / "letter.txt", tmp_path, None, reuse=True)
    with pytest.raises(DetsegError, match=r"letter\.txt"):
        run_folder.choose(tmp_path / "mine" / "letter.txt" / "below", tmp_path, None, reuse=False)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def test_plain_lines_are_rare_and_say_how_far(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with progress.Progress("detecting", 400) as bar:
        for _ in range(400):
            clock.now += 0.1
            bar.advance()
    lines = capsys.readouterr().err.splitlines()
    assert 6 <= len(lines) <= 9  # 40 s, a line every 5, and the last
    assert lines[0] == "detecting: 51 of 400 pictures (12 %), 0:35 left, 10 a second"
    assert lines[-1] == "detecting: 400 of 400 pictures (100 %), 10 a second"


def test_what_is_soon_done_shows_nothing(monkeypatch, capsys):
    Clock(monkeypatch)
    assert list(progress.track(range(100), "detecting")) == list(range(100))
    assert capsys.readouterr().err == ""


def test_quiet_shows_nothing_and_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for quiet in (True, False):
        clock, terminal = Clock(monkeypatch), Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        with progress.Progress("detecting", 3, quiet=quiet) as bar:
            for _ in range(3):
                clock.now += 1
                bar.advance()
            bar.say("a [bold]word[/bold]")
        assert ("detecting" in terminal.getvalue()) is not quiet
        assert "a [bold]word[/bold]" in terminal.getvalue()


def test_tables_line_up_whatever_the_letters():
    text = table(("name", "n"), [("写真", 1), ("a\nb", 22), ("", 333)], right=(1,))
    assert text.splitlines() == ["name    n", "----  ---", "写真    1", "a\\nb   22", "      333"]
    assert printable("caf\udce9\x1b[0m é") == "caf\\udce9\\x1b[0m é"
