"""Selective search beside OpenCV's (`cv2.ximgproc`, in its contrib wheels), in one run: what they cover, how fast.

Recall and average best overlap of at most 2,000 proposals a picture, once over all objects and once without difficult
ones; seconds a picture, both on the same picture one after the other, wall clock and processor.

The contrib wheel overwrites the `cv2` that detseg uses, so give it an environment of its own:

    python -m venv /tmp/contrib
    /tmp/contrib/bin/pip install numpy scipy scikit-image opencv-contrib-python-headless \\
        msgspec pydantic pyyaml platformdirs defusedxml pillow pycocotools
    PYTHONPATH=. /tmp/contrib/bin/python benchmarks/selective_search.py DATA [--split val] [--fast 60] [--quality 12]

Without `cv2.ximgproc` it says so and measures ours alone. Takes about three minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg import annotations
from detseg.geometry import boxes as box_geometry
from detseg.images import read_image
from detseg.proposals import MODES, search

MOST = 2000
LIMIT = 1.5  # times OpenCV's seconds
Search = Callable[[NDArray[np.uint8]], NDArray[np.float64]]


@dataclass
class Measured:
    """What one program did, picture after picture."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    boxes: list[int] = field(default_factory=list)
    overlaps: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, find: Search, image: NDArray[np.uint8], objects: NDArray[np.float64]) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        found = find(image)
        self.processor.append(time.process_time() - processor)
        self.wall.append(time.perf_counter() - wall)
        self.boxes.append(len(found))
        best = box_geometry.iou(objects, found[:MOST]).max(axis=1, initial=0)
        self.overlaps.append(np.asarray(best, np.float64))

    def row(self, name: str, ignored: NDArray[np.bool_]) -> str:
        best = np.concatenate(self.overlaps)
        cells = []
        for values in (best, best[~ignored]):
            cells += [(values >= 0.5).mean(), (values >= 0.7).mean(), values.mean()]
        numbers = "".join(f"{cell:>9.4f}" for cell in cells)
        seconds = f"{np.mean(self.wall):>9.3f}{np.mean(self.processor):>9.3f}"
        return f"{name:<16}{np.mean(self.boxes):>8.0f}{numbers}{seconds}"


def ours(mode: str) -> Search:
    settings = replace(MODES[mode], max_boxes=MOST)
    return lambda image: search(image, settings).boxes.astype(np.float64)


def opencv(mode: str) -> Search:
    def find(image: NDArray[np.uint8]) -> NDArray[np.float64]:
        searcher = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()  # type: ignore[attr-defined]
        searcher.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
        if mode == "fast":
            searcher.switchToSelectiveSearchFast()
        else:
            searcher.switchToSelectiveSearchQuality()
        return box_geometry.xywh_to_xyxy(np.asarray(searcher.process(), np.float64).reshape(-1, 4))

    return find


def measure(truth: annotations.AnnotationSet, mode: str, programs: dict[str, Search]) -> None:
    warm = read_image(truth.image_path(0))
    for find in programs.values():
        find(warm)  # what is imported and loaded once does not count
    measured = {name: Measured() for name in programs}
    for i in range(len(truth)):
        image = read_image(truth.image_path(i))
        for name, find in programs.items():
            measured[name].add(find, image, truth.boxes[truth.rows(i)])
    objects, difficult = len(truth.boxes), int(truth.ignored.sum())
    print(f"\n{mode}: {len(truth)} pictures, {objects} objects, {difficult} of them difficult")
    print(f"{'':<24}{'all objects':^27}{'without difficult ones':^27}{'seconds a picture':>18}")
    print(f"{'':<16}{'boxes':>8}" + f"{'R@0.5':>9}{'R@0.7':>9}{'ABO':>9}" * 2 + f"{'wall':>9}{'cpu':>9}")
    for name, one in measured.items():
        print(one.row(name, truth.ignored))
    if len(measured) == 2:
        (us, they) = measured.values()
        wall, processor = (
            float(np.sum(a) / np.sum(b)) for a, b in ((us.wall, they.wall), (us.processor, they.processor))
        )
        print(f"times OpenCV's: {wall:.2f} by the clock, {processor:.2f} by the processor (at most {LIMIT} wanted)")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--fast", type=int, default=60, help="pictures for the fast mode")
    parser.add_argument("--quality", type=int, default=12, help="pictures for the quality mode")
    wanted: Any = parser.parse_args()
    contrib = hasattr(cv2, "ximgproc")
    if not contrib:
        print("cv2.ximgproc is not there (this cv2 is not a contrib wheel): ours alone is measured")
    print(f"OpenCV {cv2.__version__}, its threads: {cv2.getNumThreads()}; at most {MOST:,} proposals a picture")
    truth = annotations.load(wanted.data, wanted.split)
    for mode, count in (("fast", wanted.fast), ("quality", wanted.quality)):
        if count:
            programs = {"ours": ours(mode)} | ({"OpenCV": opencv(mode)} if contrib else {})
            measure(truth.subset(range(min(count, len(truth)))), mode, programs)


if __name__ == "__main__":
    main()
