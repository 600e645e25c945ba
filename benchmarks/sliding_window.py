"""The two ways to look at all windows, in one run: crop by crop, and all of a level in one pass.

    python benchmarks/sliding_window.py [--weights FILE] [--data FOLDER] [--models NAME ...] [--pictures 2] [--rounds 2]

Pictures a second of both on the same frames, in turns, so that a busy machine slows both sides, and how far apart their
scores are at any window. Only the networks are timed: frames lie ready in memory, suppression is left out. Weights play
no part in the time, so without --weights the models of the catalog are made at random, with square windows of 20 to 200
pixels. Exit code 1 when one pass is not at least 10 times as fast, or when a score differs by more than 1e-4.

Crop by crop AlexNet takes minutes for a picture; it is measured where it is named.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detseg import catalog, checkpoints
from detseg.annotations.sample import draw
from detseg.detectors import sliding_window
from detseg.detectors.sliding_window import SlidingWindow
from detseg.images import find_images, read_image
from detseg.preprocess import Preprocess
from detseg.results import RawDetections
from detseg.training.loop import normalised

TIMES, APART = 10.0, 1e-4  # at least, at most
SIDES = (20, 28, 40, 56, 80, 112, 160, 200)
SPREAD = 0.2  # of the last layer's weights, where they are random: scores that differ from window to window
MODELS = ("sliding-window", "sliding-window-lenet5")


def main() -> int:
    """Measures, prints a table (or JSON), and says whether both bars are met."""
    options = _options()
    torch.manual_seed(0)
    rows = [
        {"model": name, **_measured(model, _frames(options, preprocess), options.rounds)}
        for name, model, preprocess in _models(options)
    ]
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        _print_table(rows)
    return 0 if all(row["times"] >= TIMES and row["apart"] <= APART for row in rows) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, nargs="*", default=[], help="checkpoints of sliding windows")
    parser.add_argument("--data", type=Path, help="a folder of pictures; without it shapes are drawn")
    parser.add_argument("--models", nargs="*", default=MODELS, help="names of the catalog, where no weights are given")
    parser.add_argument("--pictures", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _models(options: argparse.Namespace) -> Iterator[tuple[str, SlidingWindow, Preprocess]]:
    for path in options.weights:
        card, state = checkpoints.load(path)
        model = catalog.build(card.model, card.config, len(card.categories))
        model.load_state_dict(state)
        yield str(path), _as_windows(model), card.preprocess
    for name in () if options.weights else options.models:
        yield name, _at_random(name), Preprocess((catalog.entry(name).imgsz,) * 2)


def _at_random(name: str) -> SlidingWindow:
    entry = catalog.entry(name)
    windows = {"clusters": 0, "windows": [[side, side] for side in SIDES]}
    settings = sliding_window.configure(3, {"backbone": entry.backbone, **entry.options, **windows}, None)
    model = sliding_window.build(settings)
    last = model.head.layers[-1]
    assert isinstance(last, nn.Conv2d)
    nn.init.normal_(last.weight, std=SPREAD)
    return _as_windows(model)


def _as_windows(model: nn.Module) -> SlidingWindow:
    assert isinstance(model, SlidingWindow), "these weights are of another kind of detector"
    return model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _frames(options: argparse.Namespace, preprocess: Preprocess) -> list[Tensor]:
    """[(1, 3, H, W)] normalised, the first of --data or drawn."""
    if options.data is None:
        images = [draw(i, seed=0, hw=(480, 640)).image for i in range(options.pictures)]
    else:
        images = [read_image(file.path) for file in islice(find_images(options.data), options.pictures)]
    return [normalised(torch.from_numpy(preprocess.place(image)[0])[None], preprocess) for image in images]


@torch.inference_mode()
def _measured(model: SlidingWindow, frames: list[Tensor], rounds: int) -> dict[str, Any]:
    """Seconds of every frame both ways, the frames in turns; the medians of the rounds count."""
    model(frames[0])  # the first pass of all warms up
    seconds: dict[str, list[float]] = {"naive": [], "convolutional": []}
    apart = 0.0
    for _ in range(rounds):
        for frame in frames:
            naive = _timed(model.detect_naive, frame, seconds["naive"])
            at_once = _timed(model.detect, frame, seconds["convolutional"])
            apart = max(apart, float((naive.scores - at_once.scores).abs().max()))
    rates = {way: 1 / statistics.median(taken) for way, taken in seconds.items()}
    times = rates["convolutional"] / rates["naive"]
    windows = len(model.windows((frames[0].shape[2], frames[0].shape[3])))
    return {"crop": model.side, "windows": windows, **rates, "times": times, "apart": apart}


def _timed(look: Callable[[Tensor], RawDetections], frame: Tensor, seconds: list[float]) -> RawDetections:
    started = time.perf_counter()
    found = look(frame)
    seconds.append(time.perf_counter() - started)
    return found


def _print_table(rows: list[dict[str, Any]]) -> None:
    print(f"{torch.get_num_threads()} threads; pictures a second; bars: {TIMES:g} times, {APART:g} apart")
    print(f"{'':<24}{'crop':>6}{'windows':>9}{'crop by crop':>14}{'one pass':>10}{'times':>8}{'apart':>10}")
    for row in rows:
        name = f"{Path(row['model']).name:<24}{row['crop']:>6}{row['windows']:>9}"
        print(f"{name}{row['naive']:>14.3f}{row['convolutional']:>10.2f}{row['times']:>8.1f}{row['apart']:>10.1e}")


if __name__ == "__main__":
    raise SystemExit(main())
