"""What each of several models costs on the same pictures, in one run: searching for proposals, and the network.

    python benchmarks/lineage.py DATA WEIGHTS... [--pictures 8] [--rounds 3] [--imgsz 360]

A line for each checkpoint, of detectors or segmenters: parameters, operations of the first picture in 10^9 (a
multiplication and an addition are two), how many proposals of selective search it looks at, seconds a picture for the
search and for the network (PyTorch, batch norms folded in, one picture at a time, frames ready in memory, suppression
left out). The networks take turns, so that a busy machine slows all of them. The scores of such a table come from
`detseg eval`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from detseg.checkpoints import Card
from detseg.images import find_images, read_image
from detseg.proposals import ProposalSettings, search
from detseg.runtimes.network import FrameNetwork, fused, read_network


@dataclass
class Entrant:
    """One checkpoint, and the seconds that its parts took, picture by picture."""

    file: Path
    card: Card
    network: FrameNetwork  # as it is run
    plain: FrameNetwork  # as it was read
    gflops: float = 0.0
    searching: list[float] = field(default_factory=list)
    running: list[float] = field(default_factory=list)

    @property
    def settings(self) -> ProposalSettings | None:
        """How its proposals are searched for; None for one that makes its own."""
        return ProposalSettings.of_config(self.card.config)


def main() -> int:
    """Measures and prints a table, or JSON."""
    options = _options()
    torch.manual_seed(0)
    entrants = [_entrant(file, options.imgsz) for file in options.weights]
    images = [read_image(file.path) for file in islice(find_images(options.data), options.pictures)]
    for image in images:
        proposals = [_searched(entrant, image) for entrant in entrants]
        for entrant, boxes in zip(entrants, proposals, strict=True):
            entrant.gflops = entrant.gflops or _operations(entrant, image, boxes)
        for turn in range(options.rounds + 1):
            for entrant, boxes in zip(entrants, proposals, strict=True):
                seconds = _run(entrant, image, boxes)
                if turn:  # the first call warms up
                    entrant.running.append(seconds)
    rows = [_row(entrant) for entrant in entrants]
    print(json.dumps(rows, indent=2) if options.json else _table(rows))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder of pictures")
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--imgsz", type=int, help="of all frames, as `detseg eval` takes it")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _entrant(file: Path, imgsz: int | None) -> Entrant:
    card, network = read_network(file)
    if imgsz is not None:
        card = replace(card, preprocess=card.preprocess.sized((imgsz, imgsz)))
        network = FrameNetwork(network.model, card.preprocess).eval()
    ready = fused(network, card.preprocess.frame_hw).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Entrant(file, card, ready, network)


def _searched(entrant: Entrant, image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    settings = entrant.settings
    if settings is None:
        return None
    started = time.perf_counter()
    boxes = search(image, settings.search).boxes
    entrant.searching.append(time.perf_counter() - started)
    return boxes


@torch.inference_mode()
def _run(entrant: Entrant, image: NDArray[np.uint8], boxes: NDArray[np.float32] | None) -> float:
    given = _given(entrant, image, boxes)
    started = time.perf_counter()
    entrant.network(*given)
    return time.perf_counter() - started


@torch.inference_mode()
def _operations(entrant: Entrant, image: NDArray[np.uint8], boxes: NDArray[np.float32] | None) -> float:
    with FlopCounterMode(display=False) as counter:
        entrant.plain(*_given(entrant, image, boxes))
    return counter.get_total_flops() / 1e9


def _given(entrant: Entrant, image: NDArray[np.uint8], boxes: NDArray[np.float32] | None) -> tuple[Any, ...]:
    frame, placement = entrant.card.preprocess.place(image)
    frames = torch.from_numpy(frame[None])
    return (frames,) if boxes is None else (frames, None, [torch.from_numpy(placement.to_frame(boxes))])


def _row(entrant: Entrant) -> dict[str, object]:
    settings = entrant.settings
    return {
        "file": str(entrant.file),
        "model": entrant.card.model,
        "parameters": sum(p.numel() for p in entrant.network.parameters()),
        "gflops": round(entrant.gflops, 2),
        "frame_hw": list(entrant.card.preprocess.frame_hw),
        "proposals": None if settings is None else settings.count,
        "search_s": statistics.median(entrant.searching) if entrant.searching else 0.0,
        "network_s": statistics.median(entrant.running),
    }


def _table(rows: list[dict[str, object]]) -> str:
    lines = [
        f"{torch.get_num_threads()} threads",
        "model             parameters  GFLOPs   frame searched  search s  network s",
    ]
    for row in rows:
        frame = "x".join(map(str, row["frame_hw"]))  # type: ignore[call-overload]
        lines.append(
            f"{row['model']!s:<17} {row['parameters']:>10,} {row['gflops']:>7} {frame:>7} "
            f"{row['proposals'] or '-'!s:>8} {row['search_s']:>9.3f} {row['network_s']:>10.3f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
