"""Reading a large COCO file: seconds, peak memory, what eight workers add, and pycocotools on the same file.

118,000 pictures, 860,000 annotations with polygons (as COCO's train2017: about 50 numbers each), made here; there are
no pictures. Each reader runs in a process of its own. Workers are started and given the set as training does it, and
read every name, box and outline; what counts is by how much the memory grows that each has for itself (Linux).

Run: python benchmarks/load_speed.py [RUNS]. Takes about two minutes and 2 GB of memory, most of it pycocotools'.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from detseg.annotations import AnnotationSet

PICTURES, OBJECTS, CLASSES, WORKERS = 118_000, 860_000, 80, 8
LIMIT_S, LIMIT_MB, LIMIT_ADDED = 6.0, 1200, 0.10


def write_file(file: Path, seed: int = 0) -> None:
    """The set, spelled as COCO spells it."""
    rng = np.random.default_rng(seed)
    images = [
        {"license": 3, "file_name": f"{i:012d}.jpg", "height": 480, "width": 640, "id": i} for i in range(PICTURES)
    ]
    categories = [{"supercategory": "thing", "id": c, "name": f"class {c}"} for c in range(1, CLASSES + 1)]
    with file.open("w") as out:
        out.write(f'{{"info": {{}}, "images": {json.dumps(images)}, "categories": {json.dumps(categories)}, ')
        out.write('"annotations": [')
        for row in range(OBJECTS):
            out.write(", " * bool(row) + annotation(row, rng))
        out.write("]}\n")


def annotation(row: int, rng: np.random.Generator) -> str:
    """One object: a polygon around an ellipse."""
    angles = np.linspace(0, 2 * np.pi, int(rng.integers(8, 44)), endpoint=False)
    x, y = rng.uniform(0, (480, 340))
    w, h = rng.uniform(10, (150, 130))
    ring = np.stack([x + w / 2 * (1 + np.cos(angles)), y + h / 2 * (1 + np.sin(angles))], axis=1).round(2)
    points = ",".join(map(str, ring.ravel().tolist()))
    return (
        f'{{"segmentation": [[{points}]],"area": {w * h * 0.78:.4f},"iscrowd": 0,"image_id": {rng.integers(PICTURES)},'
        f'"bbox": [{x:.2f},{y:.2f},{w:.2f},{h:.2f}],"category_id": {row % CLASSES + 1},"id": {row + 1}}}'
    )


def load_ours(file: str) -> dict[str, float]:
    """Seconds (imports included) and peak MB of reading; the share that workers add."""
    start = time.perf_counter()
    from detseg.annotations import load

    truth = load(file, need_images=False)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert (len(truth), len(truth.boxes), int(truth.outlines.has.sum())) == (PICTURES, OBJECTS, OBJECTS)
    return {"seconds": seconds, "peak_mb": peak, "workers_add": added_by_workers(truth)}


def added_by_workers(truth: AnnotationSet) -> float:
    """What the set takes in workers that were started as training starts them, over what it takes here."""
    from torch import multiprocessing

    from detseg.training.shared_truth import share

    shared = share(truth)
    size = sum(tensor.nbytes for tensor in shared.tensors.values()) / 1024
    context = multiprocessing.get_context("forkserver")
    workers, pipes = [], []
    for number in range(WORKERS):
        ours, theirs = context.Pipe()
        workers.append(context.Process(target=work, args=(theirs, number)))
        workers[-1].start()
        pipes.append(ours)
    for pipe in pipes:
        pipe.send(shared)
    grown = sum(pipe.recv() for pipe in pipes)
    for worker in workers:
        worker.join()
    return grown / size


def work(pipe: Connection, worker: int) -> None:
    """A worker: tells how much its own memory (in kB) grew by having and reading the set."""
    from detseg.training import shared_truth  # noqa: F401 - what it takes itself is not the set's

    gc.collect()
    before = own_kb()
    truth = pipe.recv()
    touch(truth, worker)
    pipe.send(own_kb() - before)


def touch(truth: AnnotationSet, worker: int) -> None:
    """Reads all of a worker's share, as training does."""
    for image in range(worker, len(truth), WORKERS):
        rows = truth.rows(image)
        assert truth.image_files[image]
        assert np.isfinite(truth.boxes[rows]).all()
        assert all(truth.outlines.text(row) for row in range(rows.start, rows.stop))


def own_kb() -> int:
    """The memory that this process shares with no other."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(map(int, re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+)", text, re.MULTILINE)))


def load_theirs(file: str) -> dict[str, float]:
    """The same of pycocotools."""
    start = time.perf_counter()
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(file)
    assert len(coco.anns) == OBJECTS
    return {
        "seconds": time.perf_counter() - start,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def in_own_process(which: str, file: Path) -> dict[str, float]:
    """What one reader measured, in a fresh process."""
    done = subprocess.run([sys.executable, __file__, which, str(file)], check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main(runs: int) -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "instances_train.json")
        write_file(file)
        print(f"file                {file.stat().st_size / 1e6:8.0f} MB")
        ours = [in_own_process("ours", file) for _ in range(runs)]
        theirs = in_own_process("pycocotools", file)
    best = min(ours, key=lambda result: result["seconds"])
    for name, limit in (("seconds", LIMIT_S), ("peak_mb", LIMIT_MB), ("workers_add", LIMIT_ADDED)):
        print(f"{name:18s}  {best[name]:8.3f}   <= {limit:g}   {'met' if best[name] <= limit else 'MISSED'}")
    print(f"pycocotools_s       {theirs['seconds']:8.3f}\npycocotools_mb      {theirs['peak_mb']:8.3f}")
    print(f"times as fast       {theirs['seconds'] / best['seconds']:8.2f}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps({"ours": load_ours, "pycocotools": load_theirs}[sys.argv[1]](sys.argv[2])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
