"""Does a folder done with kills on the way end as one done in peace, nothing twice, and does memory stay flat?

    python benchmarks/folder_kill.py segment FOLDER -w WEIGHTS [--pictures 500] [--kills 3] [--seed 0] [-- --tile 512]
    python benchmarks/folder_kill.py detect FOLDER -w WEIGHTS

The first so many pictures of FOLDER are done once untouched, while the process's resident memory is read four times a
second; then again, killed (kill -9) at random moments and resumed. Told are the largest memory within the first fifth
of the pictures and after it (bar: at most a tenth more), how many finished pictures were written again (bar: none but
those of one batch, whose files had come before the kill but not yet their line), and which files differ in the end
(bar: none). Exit code 1 when a bar is missed. Words after `--` are passed on.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MORE = 1.1  # times the memory of the first fifth, at most
IN_FLIGHT = 8  # pictures whose files may stand before their line: those between network and writer


def main() -> int:
    """Runs, kills, resumes, compares; prints what was found and says whether all bars were kept."""
    asked, passed_on = _arguments()
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "detseg.cli.main", asked.command, asked.folder, "-w", asked.weights]
        command += ["--limit", str(asked.pictures), "--quiet", *passed_on, "--out"]
        whole, killed = Path(place, "whole"), Path(place, "killed")
        seconds, memory = _watched([*command, str(whole)], whole, asked.pictures)
        early, late = memory
        print(f"untouched: {seconds:.1f} s; resident memory up to {early:.0f} MB, later up to {late:.0f} MB")
        again = _killed([*command, str(killed)], killed, seconds, asked.kills, random.Random(asked.seed))
        differing = _differing(whole, killed)
        print(f"{asked.kills} kills: {again} finished pictures written again; files that differ: {differing or 'none'}")
    good = late <= MORE * early and again <= asked.kills * IN_FLIGHT and not differing
    print("all bars kept" if good else "A BAR IS MISSED")
    return 0 if good else 1


def _watched(command: list[str], out: Path, pictures: int) -> tuple[float, tuple[float, float]]:
    """Seconds of the run, and its largest memory in MB before and after a fifth of the pictures were written."""
    started, early, late = time.monotonic(), 0.0, 0.0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        now = _resident_mb(process.pid)
        if len(_pictures(out)) < pictures / 5:
            early = max(early, now)
        else:
            late = max(late, now)
        time.sleep(0.25)
    if process.returncode:
        raise SystemExit(f"the untouched run failed with exit code {process.returncode}")
    return time.monotonic() - started, (early, late)


def _resident_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0  # it has just ended
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _killed(command: list[str], out: Path, seconds: float, kills: int, rng: random.Random) -> int:
    """Runs to the end with so many kills on the way; how many pictures that were there were written again."""
    again = 0
    for k in range(kills + 1):
        before = {path: path.stat().st_mtime_ns for path in _pictures(out)}
        process = subprocess.Popen([*command, *(["--resume"] if k else [])], stdout=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(0.2, 1.0) * seconds / (kills + 1) + (0 if k < kills else 10 * seconds + 60))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        again += sum(path.stat().st_mtime_ns != then for path, then in before.items())
        print(f"   {len(before)} pictures were there, {len(_pictures(out))} are now", flush=True)
    if process.returncode:
        raise SystemExit(f"the last run ended with exit code {process.returncode}")
    return again


def _pictures(out: Path) -> list[Path]:
    """The files drawn, one a picture."""
    return [path for path in (out / "images").rglob("*") if path.suffix == ".jpg"]


def _differing(one: Path, other: Path) -> list[str]:
    """Files that are not the same in both, but for the run's own journal, in which pictures stand as they came."""
    names = {str(path.relative_to(run)) for run in (one, other) for path in run.rglob("[!.]*") if path.is_file()}
    return [name for name in sorted(names) if not _same(one / name, other / name)]


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("detect", "segment"))
    parser.add_argument("folder")
    parser.add_argument("-w", "--weights", required=True)
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    return parser.parse_args(words[:cut]), words[cut + 1 :]


if __name__ == "__main__":
    raise SystemExit(main())
