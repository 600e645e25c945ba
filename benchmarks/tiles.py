"""Do tiles answer as the picture in one piece, and who of both is right?

    python benchmarks/tiles.py DATA WEIGHTS... [--tiles 512,768,1024] [--side 3] [--split test] [--json]

Pictures of a data set, evenly drawn, are laid side by side, `--side` by `--side`, into a large one. Every segmenter
answers for it in one piece and in tiles, as `detseg segment --tile` does, half a tile shared. A line for each: on what
share of pixels both agree, and what shares are right. Weights and data must know the same classes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg.annotations import load_label_maps
from detseg.annotations.semantic import IGNORE, SemanticSet
from detseg.images import ImageFile, read_image
from detseg.pipeline import segment_files
from detseg.postprocess.tiles import STEP, Tiling, context_of
from detseg.runtimes import Runtime, open_runtime


@dataclass(frozen=True)
class Row:
    """One network and one size of tiles."""

    file: str
    model: str
    tile: int
    agreement: float  # shares of pixels
    right_in_tiles: float
    right_in_one_piece: float
    seconds: float
    seconds_in_one_piece: float


def main() -> int:
    """Measures and prints a table, or JSON."""
    asked = _arguments()
    truth = load_label_maps(asked.data, asked.split)
    image, labels = _side_by_side(truth, asked.side)
    rows = []
    for file in asked.weights:
        runtime = open_runtime(file, runtime="torch")
        if runtime.card.categories.names != truth.categories.names:
            raise SystemExit(f"{file}: its classes are not those of {asked.data}")
        rows += _rows(file, runtime, image, labels, asked.tiles)
    print(json.dumps([asdict(row) for row in rows], indent=2) if asked.json else _table(rows, image))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="a data set with label maps")
    parser.add_argument("weights", type=Path, nargs="+", help=".safetensors of segmenters")
    parser.add_argument("--tiles", type=lambda text: [int(t) for t in text.split(",")], default=[512, 768, 1024])
    parser.add_argument("--side", type=int, default=3)
    parser.add_argument("--split", default="test")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _side_by_side(truth: SemanticSet, side: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(H, W, 3) pictures beside each other, and their label maps (H, W), mirrored to multiples of STEP."""
    chosen = [i * len(truth) // side**2 for i in range(side**2)]
    image = _grid([read_image(truth.image_path(i)) for i in chosen], side)
    labels = _grid([truth.label_map(i) for i in chosen], side)
    below, right = (-length % STEP for length in labels.shape)
    wide = [cv2.copyMakeBorder(m, 0, below, 0, right, cv2.BORDER_REFLECT_101) for m in (image, labels)]
    return np.asarray(wide[0], np.uint8), np.asarray(wide[1], np.uint8)


def _grid(parts: list[NDArray[np.uint8]], side: int) -> NDArray[np.uint8]:
    if len({part.shape for part in parts}) > 1:
        raise SystemExit("the pictures are not all of one size")
    return np.vstack([np.hstack(parts[row * side : (row + 1) * side]) for row in range(side)])


def _rows(
    file: Path, runtime: Runtime, image: NDArray[np.uint8], labels: NDArray[np.uint8], tiles: list[int]
) -> list[Row]:
    counts = labels != IGNORE
    started = time.perf_counter()
    whole = runtime.segment(image[None])[0].argmax(axis=0)
    at_once = time.perf_counter() - started
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        large = ImageFile(Path(folder, "large.png"), PurePosixPath("large.png"))
        cv2.imwrite(str(large.path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        for tile in tiles:
            tiling = Tiling.usual((tile, tile), None, context_of(runtime.card.config))
            started = time.perf_counter()
            (outcome,) = segment_files([large], runtime, tiling=tiling)
            seconds = time.perf_counter() - started
            assert outcome.found is not None
            found = outcome.found.labels
            right = [float((one == labels)[counts].mean()) for one in (found, whole)]
            agreement = float((found == whole).mean())
            rows.append(Row(str(file), runtime.card.model, tile, agreement, *right, seconds, at_once))
    return rows


def _table(rows: list[Row], image: NDArray[np.uint8]) -> str:
    """Markdown."""
    lines = [
        f"{image.shape[1]} x {image.shape[0]} pixels",
        "",
        "| segmenter | tiles | agree | right in tiles | in one piece | seconds | in one piece |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        right = f"{row.right_in_tiles:.4f} | {row.right_in_one_piece:.4f}"
        seconds = f"{row.seconds:.1f} | {row.seconds_in_one_piece:.1f}"
        lines.append(f"| {row.model} | {row.tile} | {row.agreement:.4f} | {right} | {seconds} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
