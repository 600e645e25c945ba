"""R-CNN against Fast R-CNN on the same pictures and the same proposals, in one run: the network's time alone.

    python benchmarks/rcnn_speed.py [--weights RCNN FAST] [--data FOLDER] [--count 500] [--pictures 3] [--rounds 3]

Seconds a picture of both, in turns, so that a busy machine slows both sides, and how many times faster Fast R-CNN is.
Proposals are searched for before anything is timed; how long that takes is told apart. Weights play no part in the
time, so without --weights the models of the catalog are made at random. Frames lie ready in memory, batch norms are
folded in as they are in use, suppression is left out. Exit code 1 when Fast R-CNN is not at least 20 times as fast.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detseg import catalog
from detseg.annotations.sample import draw
from detseg.images import find_images, read_image
from detseg.preprocess import Preprocess
from detseg.proposals import ProposalSettings, search
from detseg.runtimes.network import FrameNetwork, fused, read_network

TIMES = 20.0  # at least
MODELS = ("rcnn", "fast-rcnn")

Picture = tuple[NDArray[np.uint8], NDArray[np.float32]]


def main() -> int:
    """Measures, prints a table (or JSON), and says whether the bar is met."""
    options = _options()
    torch.manual_seed(0)
    networks = [_network(name, options.weights) for name in MODELS]
    pictures, searching = _pictures(options)
    seconds = _measured(networks, pictures, options.rounds)
    rcnn, fast = (statistics.median(taken) for taken in seconds)
    report = {
        "threads": torch.get_num_threads(),
        "pictures": len(pictures),
        "proposals": statistics.mean(len(boxes) for _, boxes in pictures),
        "search_s": searching,
        "rcnn_s": rcnn,
        "fast_rcnn_s": fast,
        "times": rcnn / fast,
    }
    print(json.dumps(report, indent=2) if options.json else _table(report))
    return 0 if report["times"] >= TIMES else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, nargs=2, metavar=("RCNN", "FAST"), help="checkpoints of the two")
    parser.add_argument("--data", type=Path, help="a folder of pictures; without it shapes are drawn")
    parser.add_argument("--count", type=int, default=500, help="proposals a picture, at most")
    parser.add_argument("--pictures", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _network(name: str, weights: list[Path] | None) -> tuple[FrameNetwork, Preprocess]:
    """As `TorchRuntime` has it: batch norms folded, channels last."""
    if weights:
        card, network = read_network(weights[MODELS.index(name)])
        preprocess = card.preprocess
    else:
        entry = catalog.entry(name)
        options = {f"proposals.{key}": value for key, value in vars(ProposalSettings()).items()}
        config = {"backbone": entry.backbone, **options, **entry.options}
        preprocess = Preprocess((entry.imgsz, entry.imgsz))
        network = FrameNetwork(catalog.build(name, config, 3), preprocess).eval().requires_grad_(False)
    ready: FrameNetwork = fused(network, preprocess.frame_hw).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return ready, preprocess


def _pictures(options: argparse.Namespace) -> tuple[list[Picture], float]:
    """Pictures with their proposals, and the seconds that the search took for each."""
    if options.data is None:
        images = [draw(i, seed=0, hw=(480, 640)).image for i in range(options.pictures)]
    else:
        images = [read_image(file.path) for file in islice(find_images(options.data), options.pictures)]
    settings = ProposalSettings(count=options.count).search
    started = time.perf_counter()
    found = [(image, search(image, settings).boxes) for image in images]
    return found, (time.perf_counter() - started) / len(images)


@torch.inference_mode()
def _measured(
    networks: list[tuple[FrameNetwork, Preprocess]], pictures: list[Picture], rounds: int
) -> list[list[float]]:
    """Seconds of every call, network by network, the networks in turns."""
    seconds: list[list[float]] = [[] for _ in networks]
    for turn in range(rounds + 1):
        for picture in pictures[:1] if not turn else pictures:
            for taken, (network, preprocess) in zip(seconds, networks, strict=True):
                frames, places = _laid(picture, preprocess)
                started = time.perf_counter()
                network(frames, None, places)
                if turn:  # the first call warms up
                    taken.append(time.perf_counter() - started)
    return seconds


def _laid(picture: Picture, preprocess: Preprocess) -> tuple[Tensor, list[Tensor]]:
    frame, placement = preprocess.place(picture[0])
    return torch.from_numpy(frame[None]), [torch.from_numpy(placement.to_frame(picture[1]))]


def _table(report: dict[str, Any]) -> str:
    return (
        f"{report['threads']} threads, {report['pictures']} pictures, {report['proposals']:.0f} proposals each "
        f"(searching: {report['search_s']:.2f} s a picture)\n"
        f"R-CNN {report['rcnn_s']:.3f} s, Fast R-CNN {report['fast_rcnn_s']:.3f} s a picture: "
        f"{report['times']:.1f} times; bar: {TIMES:g}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
