"""What each of several detectors costs on the same pictures, in one run: searching for proposals, and the network.

    python benchmarks/lineage.py DATA WEIGHTS... [--pictures 8] [--rounds 3]

A line for each checkpoint: parameters, how many proposals of selective search it looks at, seconds a picture for the
search and for the network (PyTorch, batch norms folded in, one picture at a time, frames ready in memory, suppression
left out). The networks take turns, so that a busy machine slows all of them. The scores of such a table come from
`detseg eval`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from detseg.checkpoints import Card
from detseg.images import find_images, read_image
from detseg.proposals import ProposalSettings, search
from detseg.runtimes.network import FrameNetwork, fused, read_network


@dataclass
class Entrant:
    """One checkpoint, and the seconds that its parts took, picture by picture."""

    file: Path
    card: Card
    network: FrameNetwork
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
    entrants = [_entrant(file) for file in options.weights]
    images = [read_image(file.path) for file in islice(find_images(options.data), options.pictures)]
    for image in images:
        proposals = [_searched(entrant, image) for entrant in entrants]
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
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _entrant(file: Path) -> Entrant:
    card, network = read_network(file)
    ready = fused(network, card.preprocess.frame_hw).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Entrant(file, card, ready)


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
    frame, placement = entrant.card.preprocess.place(image)
    frames = torch.from_numpy(frame[None])
    if boxes is None:
        started = time.perf_counter()
        entrant.network(frames)
    else:
        places = [torch.from_numpy(placement.to_frame(boxes))]
        started = time.perf_counter()
        entrant.network(frames, None, places)
    return time.perf_counter() - started


def _row(entrant: Entrant) -> dict[str, object]:
    settings = entrant.settings
    return {
        "file": str(entrant.file),
        "model": entrant.card.model,
        "parameters": sum(p.numel() for p in entrant.network.parameters()),
        "frame_hw": list(entrant.card.preprocess.frame_hw),
        "proposals": None if settings is None else settings.count,
        "search_s": statistics.median(entrant.searching) if entrant.searching else 0.0,
        "network_s": statistics.median(entrant.running),
    }


def _table(rows: list[dict[str, object]]) -> str:
    lines = [f"{torch.get_num_threads()} threads", "model             parameters  frame  searched  search s  network s"]
    for row in rows:
        frame = "x".join(map(str, row["frame_hw"]))  # type: ignore[call-overload]
        lines.append(
            f"{row['model']!s:<17} {row['parameters']:>10,} {frame:>7} {row['proposals'] or '-'!s:>8} "
            f"{row['search_s']:>9.3f} {row['network_s']:>10.3f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
