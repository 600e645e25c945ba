"""Suppression against torchvision's, both in this run: milliseconds and the ratio, on boxes of several kinds.

Run: python benchmarks/nms.py [seed]. The keep sets are compared on the way. Times are the processor's, one thread
each, so that other programs count little. Takes about half a minute.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray

from detseg.geometry.nms import class_aware_nms, nms

Made = tuple[NDArray[np.float32], NDArray[np.float32]]


def anywhere(rng: np.random.Generator, n: int, picture: float, sides: tuple[float, float]) -> Made:
    """Boxes of any size and place."""
    centres, wh = rng.uniform(0, picture, (n, 2)), rng.uniform(*sides, (n, 2))
    boxes = np.concatenate([centres - wh / 2, centres + wh / 2], axis=1).astype(np.float32)
    return boxes, rng.random(n, np.float32)


def about_objects(rng: np.random.Generator, n: int, picture: float, objects: int) -> Made:
    """What a network gives at a low threshold: many boxes about each of few objects."""
    which = rng.integers(0, objects, n)
    centres = rng.uniform(0, picture, (objects, 2))[which] + rng.normal(0, 8, (n, 2))
    wh = rng.uniform(30, 200, (objects, 2))[which] * np.exp(rng.normal(0, 0.15, (n, 2)))
    boxes = np.concatenate([centres - wh / 2, centres + wh / 2], axis=1).astype(np.float32)
    return boxes, rng.random(n, np.float32)


def timed(work: Callable[[], NDArray[np.intp]]) -> tuple[float, set[int]]:
    """The best of a few runs in milliseconds (of one, if it takes long), and the answer."""
    best, begun = np.inf, time.process_time()
    for _ in range(5):
        start = time.process_time()
        answer = work()
        end = time.process_time()
        best = min(best, end - start)
        if end - begun > 0.5:
            break
    return best * 1e3, set(np.asarray(answer).tolist())


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    crowds = {
        "8,400 hardly overlapping": anywhere(rng, 8400, 8000, (10, 80)),
        "8,400 anywhere": anywhere(rng, 8400, 640, (10, 300)),
        "8,400 about 15 objects": about_objects(rng, 8400, 640, 15),
        "30,000 hardly overlapping": anywhere(rng, 30000, 20000, (10, 80)),
        "30,000 of all sizes": anywhere(rng, 30000, 20000, (1, 400)),
        "30,000 anywhere": anywhere(rng, 30000, 1280, (10, 300)),
        "30,000 about 40 objects": about_objects(rng, 30000, 1280, 40),
    }
    print(f"{'boxes':<28}{'overlap':>8}{'kept':>8}{'ours ms':>10}{'torchvision ms':>16}{'ratio':>8}")
    for name, (boxes, scores) in crowds.items():
        for iou in (0.5, 0.7):
            ours, kept = timed(lambda: nms(boxes, scores, iou))  # noqa: B023
            theirs, expected = timed(
                lambda: torchvision.ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou)  # noqa: B023
            )
            assert kept == expected, name
            print(f"{name:<28}{iou:>8}{len(kept):>8}{ours:>10.1f}{theirs:>16.1f}{theirs / ours:>8.1f}", flush=True)
    boxes, scores = crowds["8,400 about 15 objects"]
    labels = rng.integers(0, 20, len(boxes))
    ours, _ = timed(lambda: class_aware_nms(boxes, scores, labels, 0.6))
    tensors = [torch.from_numpy(array) for array in (boxes, scores, labels)]
    theirs, _ = timed(lambda: torchvision.ops.batched_nms(*tensors, 0.6))
    print(f"{'the same, of 20 classes':<28}{0.6:>8}{'':>8}{ours:>10.1f}{theirs:>16.1f}{theirs / ours:>8.1f}")


if __name__ == "__main__":
    main()
