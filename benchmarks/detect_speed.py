"""How much of the network's own speed `detseg detect` keeps, and what one picture and `--help` cost.

    python benchmarks/detect_speed.py [--data FOLDER] [--weights FILE] [--pictures 300] [--rounds 3]

Four numbers against four bars, all measured in one run, in turns, so that a busy machine slows both sides:

- pictures a second of the whole command (reading, network, annotated pictures and CSV written) over those of
  a bare ONNX Runtime session, with its default options, on tensors that lie ready in memory: at least 0.8;
- the whole process on one picture: at most 1.5 s and 350 MB (the largest resident size);
- the whole process of `detseg --help`: at most 0.3 s.

Besides, the ratio with the start of the process counted in, which fades as folders grow. Exit code 1 when a
bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BARS = {
    "ratio": (">=", 0.8),
    "one_picture_s": ("<=", 1.5),
    "one_picture_mb": ("<=", 350.0),
    "help_s": ("<=", 0.3),
}


def main() -> int:
    """Measures, prints a table (or JSON), and says whether every bar is met."""
    options = _options()
    pictures = _pictures(options.data, options.pictures)
    weights = options.weights or _default_weights()
    results = {"pictures": len(pictures), **_throughput(weights, pictures, options.rounds)}
    results |= _one_picture(weights, pictures[0], options.rounds) | _help(options.rounds)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        _print_table(results)
    return 0 if all(_meets(name, results[name]) for name in BARS) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = os.environ.get("DETSEG_DATA", Path.home() / ".cache" / "detseg-data")
    parser.add_argument("--data", type=Path, default=Path(data, "voc-animals"), help="folder of photographs")
    parser.add_argument("--weights", type=Path, help="ONNX model; the default weights unless given")
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3, help="each number is the median of so many")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _pictures(folder: Path, count: int) -> list[Path]:
    from detseg.images import find_images

    return [picture.path for picture in islice(find_images([folder]), count)]


def _default_weights() -> Path:
    from detseg.checkpoints import zoo

    return zoo.default_weights("detect", "onnx")


def _throughput(weights: Path, pictures: Sequence[Path], rounds: int) -> dict[str, float]:
    """Pictures a second, medians of rounds taken in turns."""
    frames = _ready_frames(weights, pictures)
    bare, command, process = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder, "pictures.txt")
        listed.write_bytes(b"\n".join(os.fsencode(picture.absolute()) for picture in pictures))
        arguments = ["detect", str(listed), "-w", str(weights), "-q"]
        for turn in range(rounds):
            bare.append(len(frames) / _bare_session_s(weights, frames))
            command.append(len(pictures) / _in_this_process_s([*arguments, "-o", f"{folder}/in{turn}"]))
            process.append(len(pictures) / _as_process([*arguments, "-o", f"{folder}/own{turn}"])[0])
    speeds = {"bare": bare, "command": command, "process": process}
    medians = {f"{name}_per_s": statistics.median(values) for name, values in speeds.items()}
    ratios = {
        "ratio": statistics.median(c / b for c, b in zip(command, bare, strict=True)),
        "ratio_with_start": statistics.median(p / b for p, b in zip(process, bare, strict=True)),
    }
    return medians | ratios


def _ready_frames(weights: Path, pictures: Sequence[Path]) -> list[NDArray[np.uint8]]:
    """Every picture as the network wants it: (1, H, W, 3) uint8."""
    from detseg.checkpoints import read_card
    from detseg.images import read_image

    recipe = read_card(weights).preprocess
    return [recipe.place(read_image(picture))[0][None] for picture in pictures]


def _bare_session_s(weights: Path, frames: Sequence[NDArray[np.uint8]]) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])
    session.run(None, {"frames": frames[0]})  # the first call also allocates
    start = time.perf_counter()
    for frame in frames:
        session.run(None, {"frames": frame})
    return time.perf_counter() - start


def _in_this_process_s(arguments: list[str]) -> float:
    """Everything the command does, session and all, but the start of Python and the imports."""
    from detseg.cli.main import main as detseg

    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        code = detseg(arguments)
    seconds = time.perf_counter() - start
    assert code == 0, f"detseg {' '.join(arguments)} ended with {code}"
    return seconds


# Started by a small process: the system counts the size of whoever starts a program as the program's own.
_LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(json.dumps([time.perf_counter() - start, usage.ru_maxrss, os.waitstatus_to_exitcode(status)]))
os._exit(0)
"""


def _as_process(arguments: list[str]) -> tuple[float, float]:
    """(seconds, MB): a fresh process of the installed command, its largest resident size."""
    command = shutil.which("detseg", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert command, "detseg is not installed beside this Python"
    launcher = [sys.executable, "-S", "-c", _LAUNCHER, command, *arguments]
    done = subprocess.run(launcher, capture_output=True, text=True, check=True)
    seconds, size, code = json.loads(done.stdout)
    assert code == 0, f"detseg {' '.join(arguments)} ended with {code}: {done.stderr}"
    return seconds, size / (1024 if sys.platform != "darwin" else 1024**2)


def _one_picture(weights: Path, picture: Path, rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            _as_process(["detect", str(picture), "-w", str(weights), "-o", f"{folder}/{turn}"])
            for turn in range(rounds)
        ]
    return {
        "one_picture_s": statistics.median(seconds for seconds, _ in runs),
        "one_picture_mb": max(mb for _, mb in runs),
    }


def _help(rounds: int) -> dict[str, float]:
    return {"help_s": statistics.median(_as_process(["--help"])[0] for _ in range(rounds))}


def _meets(name: str, value: float) -> bool:
    kind, bar = BARS[name]
    return value >= bar if kind == ">=" else value <= bar


def _print_table(results: dict[str, float]) -> None:
    for name, value in results.items():
        line = f"{name:18} {value:8.3f}"
        if name in BARS:
            line += f"   {' '.join(map(str, BARS[name]))}   {'met' if _meets(name, value) else 'MISSED'}"
        print(line)


if __name__ == "__main__":
    sys.exit(main())
