"""One run is left alone; another of the same settings is killed (kill -9) at every moment of a list and resumed after
each: `in_turn`. Each is the real command in a process of its own, forked from one that has imported everything.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]


def in_turn(moments: str, words: list[str], folder: Path) -> tuple[Path, Path, str]:
    """`detseg WORDS --out ...` untouched and killed: both run folders, and what was told on stderr.

    `moments`: a key of `MOMENTS`. The last command repeats a run that is finished.
    """
    whole, killed = folder / "whole", folder / "killed"
    done = subprocess.run(
        [sys.executable, "-m", "tests.killed_runs", moments, str(whole), str(killed), *words],
        cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return whole, killed, done.stderr


def _die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _after(room: Any, name: str, when: Callable[..., bool]) -> None:
    """Kills this process after the call of `room.name` for whose arguments `when` holds."""
    real = getattr(room, name)

    def then(*given: Any, **named: Any) -> Any:
        answer = real(*given, **named)
        if when(*given):
            _die()
        return answer

    setattr(room, name, then)


def _nth(times: int) -> Callable[..., bool]:
    calls = iter(range(1, times + 1))
    return lambda *_: next(calls) == times


def _half_written() -> None:
    """Kills this process when half of its third state is on the disk."""
    import torch

    real, third = torch.save, _nth(3)

    def cut(bundle: Any, path: Any) -> None:
        real(bundle, path)
        if third():
            os.truncate(path, Path(path).stat().st_size // 2)
            _die()

    torch.save = cut


def _in_the_loop() -> dict[str, Callable[[], None]]:
    """Of 3 epochs of 5 batches, a step every 2 batches and at the end, a state every 2 steps and at the end."""
    import detseg.training.folder as folder
    import detseg.training.loop as loop

    return {
        "in the first epoch, past a state and a batch of the next step": lambda: _after(
            loop.Trainer, "_losses", _nth(5)
        ),
        "half of a state is written": _half_written,
        "the epoch's weights are kept, its state is not": lambda: _after(folder.RunFolder, "save_weights", _nth(1)),
        "the epoch's state is kept, its table is not": lambda: _after(folder.RunFolder, "save_state", _nth(2)),
    }


def _in_the_stages() -> dict[str, Callable[[], None]]:
    """Of the stages of R-CNN: its fine-tuning of 2 epochs, and what follows that."""
    import detseg.detectors.rcnn_stages as stages
    import detseg.training.folder as folder
    import detseg.training.stages as finishing

    return {
        "fine-tuning": lambda: _after(folder.RunFolder, "save_state", lambda run, state, _: state.epoch == 1),
        "features": lambda: _after(stages, "_write", lambda file, _: file.name.startswith("0000002")),
        "SVMs": lambda: setattr(stages.MinedSVM, "learn", _die),
        "box regressions": lambda: _after(stages, "_write", lambda file, _: file.name == "regression-0.npz"),
        "the end": lambda: setattr(finishing.files, "write_text", _die),
    }


MOMENTS = {"loop": _in_the_loop, "stages": _in_the_stages}


def _run(moments: str, whole: str, killed: str, *words: str) -> None:
    # once, not in every child
    import albumentations  # noqa: F401
    import hotcoco  # noqa: F401
    import matplotlib.backends.backend_agg  # noqa: F401
    import skimage.segmentation  # noqa: F401
    import sklearn.svm  # noqa: F401
    import torch._dynamo  # noqa: F401  # the first step of an optimiser wants it

    import detseg.cli.train_validation
    import detseg.training.loop
    import detseg.training.setup  # noqa: F401
    from detseg.cli.main import main

    def child(prepare: Callable[[], None], line: list[str]) -> int:
        pid = os.fork()
        if not pid:
            prepare()
            os._exit(int(main(line)))
        return os.waitpid(pid, 0)[1]

    assert child(lambda: None, [*words, "--out", whole]) == 0
    line = [*words, "--out", killed]
    for name, prepare in MOMENTS[moments]().items():
        assert child(prepare, line) == signal.SIGKILL, name
        line = ["train", "--resume", killed, "-q"]
    assert child(lambda: None, line) == 0
    assert child(lambda: None, line) == 0


if __name__ == "__main__":
    _run(*sys.argv[1:])
