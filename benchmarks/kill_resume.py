"""Does a training run that is killed again and again end as one that is left alone?

    python benchmarks/kill_resume.py DATA [-m yolo] [--kills 20] [--epochs 3] [--imgsz 64] [--batch 4] [--seed 0]

One run goes through untouched. Another, of the same settings, is killed (kill -9, the whole process group) at a random
moment, resumed, killed, and so on, several times in a run; once it ends it is compared, and a new one is begun until
there were enough kills. A table has a line a run: how often it was killed, and what differs from the untouched one
in best and last weights, in the state, and in results.csv (all columns but time and rate): nothing, on a CPU, when all
is well. Exit code 1 otherwise. Words after `--` are passed on to `detseg train`.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from detseg.checkpoints import load
from detseg.training.folder import state_file

CLOCKS = ("seconds", "pictures/s")  # what no two runs have in common


def main() -> int:
    """Runs, kills, compares; prints the table and says whether all runs ended alike."""
    asked, passed_on = _arguments()
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place, "whole")
        words = _words(asked, passed_on)
        started = time.monotonic()
        _run_to_the_end([*words, "--out", str(whole)])
        length = time.monotonic() - started
        print(f"untouched: {length:.1f} s")
        print(f"{'run':>3}  {'kills':>5}  differs in")
        rng, kills, runs, good = random.Random(asked.seed), 0, 0, True
        while kills < asked.kills:
            killed = Path(place, "killed")
            times, took = _killed_run(words, killed, rng, length, min(asked.in_a_run, asked.kills - kills))
            length = min(length, took)  # the machine may have been busy before
            found = list(differences(whole, killed))
            kills, runs, good = kills + times, runs + 1, good and not found
            print(f"{runs:>3}  {times:>5}  {'; '.join(found[:4]) or 'nothing'}", flush=True)
            shutil.rmtree(killed)
    print(f"{kills} kills in {runs} runs: {'all equal' if good else 'NOT equal'}")
    return 0 if good else 1


def differences(one: Path, other: Path) -> Iterator[str]:
    """What differs between two run folders, bit for bit, but for times: names of tensors, values and lines."""
    for which in ("best", "last"):
        ours, theirs = (load(run / "weights" / f"{which}.safetensors")[1] for run in (one, other))
        yield from _between(which, ours, theirs)
    states = [torch.load(state_file(run), map_location="cpu", weights_only=True) for run in (one, other)]
    for state in states:
        state.pop("origin")  # holds the command line, which names the folder
    yield from _between("state", *states)
    tables = [list(csv.DictReader((run / "results.csv").read_text().splitlines())) for run in (one, other)]
    yield from _between("results.csv", *tables)


def _between(where: str, ours: Any, theirs: Any) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in {**ours, **theirs}:
            if name not in CLOCKS:
                yield from _between(f"{where}.{name}", ours.get(name), theirs.get(name))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from _between(f"{where}[{i}]", *pair)
    elif isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
        if ours.dtype != theirs.dtype or not torch.equal(ours, theirs):
            yield where
    elif ours != theirs:
        yield where


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("-m", "--model", default="yolo")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--in-a-run", type=int, default=5, help="kills in one run at most")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--imgsz", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--accumulate", type=int, default=2)
    parser.add_argument("--checkpoint-every", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    return parser.parse_args(words[:cut]), words[cut + 1 :]


def _words(asked: argparse.Namespace, passed_on: list[str]) -> list[str]:
    settings = ("imgsz", "epochs", "batch", "accumulate", "checkpoint_every", "workers")
    numbers = [word for name in settings for word in (f"--{name.replace('_', '-')}", str(getattr(asked, name)))]
    own = ["-m", asked.model, *numbers, "--eval-every", "1", "--device", "cpu", "--quiet"]
    return [asked.data, *own, *passed_on]


def _started(words: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "detseg.cli.main", "train", *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def _run_to_the_end(words: list[str]) -> None:
    process = _started(words)
    _, told = process.communicate()
    _expect_success(words, process.returncode, told)


def _expect_success(words: list[str], code: int, told: bytes) -> None:
    if code:
        sys.exit(f"detseg train {' '.join(words)}\n{told.decode(errors='replace')}")


def _killed_run(words: list[str], out: Path, rng: random.Random, length: float, most: int) -> tuple[int, float]:
    """A run killed `most` times, or less often where it ended before; then finished. How often, and seconds it took."""
    line, kills, began = [*words, "--out", str(out)], 0, time.monotonic()
    while kills < most:
        process = _started(line)
        try:
            _, told = process.communicate(timeout=rng.uniform(0.1, 1.0) * length)
            _expect_success(line, process.returncode, told)
            return kills, time.monotonic() - began  # it ended before
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
        line = ["--resume", str(out), "--quiet"] if (out / "config.yaml").exists() else [*line, "--exist-ok"]
    _run_to_the_end(line)
    return kills, time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
