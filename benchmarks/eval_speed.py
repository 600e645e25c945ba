"""`detseg eval --predictions` against pycocotools on the same files, both in this run: seconds and the ratio.

5,000 pictures, 35,000 objects of 80 classes, 300,000 detections, made here (COCO JSON; there are no pictures).
detseg's time is that of the whole command, a new process each time: start, reading, all numbers, tables, and the files
it writes. pycocotools' is that of loading the truth, loadRes, evaluate, accumulate and summarize, without its start.
The twelve numbers are compared on the way. Seconds of the processor are told too: unlike those of the clock they hardly
depend on what else the machine is doing (detseg uses two cores at times, pycocotools one).

Run: python benchmarks/eval_speed.py [RUNS]. Takes about a minute.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PICTURES, OBJECTS, DETECTIONS, CLASSES = 5_000, 35_000, 300_000, 80
LIMIT_S, LEAST_RATIO = 2.0, 30.0


def write_files(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Truth and results. Half of the detections lie about objects, half anywhere; ids have holes, 1 % are crowds."""
    rng = np.random.default_rng(seed)
    image_ids = np.sort(rng.permutation(600_000)[:PICTURES])
    class_ids = np.sort(rng.permutation(90)[:CLASSES] + 1)
    picture, label = rng.integers(0, PICTURES, OBJECTS), rng.zipf(1.5, OBJECTS) % CLASSES
    boxes = boxes_anywhere(rng, OBJECTS)
    annotations = [
        {"id": row + 1, "image_id": i, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
        for row, (i, c, box, crowd) in enumerate(
            zip(
                image_ids[picture].tolist(),
                class_ids[label].tolist(),
                boxes.tolist(),
                (rng.random(OBJECTS) < 0.01).astype(int).tolist(),
                strict=True,
            )
        )
    ]
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 640, "height": 480} for i in image_ids.tolist()]
    categories = [{"id": c, "name": f"class {c}"} for c in class_ids.tolist()]
    truth, results = folder / "truth.json", folder / "results.json"
    truth.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    results.write_text(json.dumps(detections(rng, image_ids, class_ids, picture, label, boxes)))
    return truth, results


def boxes_anywhere(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 4) x, y, w, h inside a picture of 640x480."""
    corners = rng.uniform(0, (560, 400), (count, 2))
    sides = np.minimum(rng.exponential(90, (count, 2)) + 4, (640, 480) - corners)
    return np.concatenate([corners, sides], axis=1).round(2)


def detections(
    rng: np.random.Generator,
    image_ids: np.ndarray,
    class_ids: np.ndarray,
    picture: np.ndarray,
    label: np.ndarray,
    boxes: np.ndarray,
) -> list[dict[str, object]]:
    """COCO's results list, in no order."""
    near, far = rng.integers(0, OBJECTS, DETECTIONS // 2), DETECTIONS - DETECTIONS // 2
    pictures = np.concatenate([picture[near], rng.integers(0, PICTURES, far)])
    labels = np.concatenate([label[near], rng.integers(0, CLASSES, far)])
    moved = boxes[near] + rng.normal(0, 8, (len(near), 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], 1)
    found = np.concatenate([moved, boxes_anywhere(rng, far)]).round(2)
    scores = (rng.random(DETECTIONS) ** 2).round(5)
    order = rng.permutation(DETECTIONS)
    columns = (image_ids[pictures], class_ids[labels], found, scores)
    rows = zip(*(column[order].tolist() for column in columns), strict=True)
    return [{"image_id": i, "category_id": c, "bbox": box, "score": score} for i, c, box, score in rows]


def time_detseg(truth: Path, results: Path, out: Path) -> tuple[float, float, list[float]]:
    """Seconds of the whole command by the clock and by the processor, and COCO's twelve numbers."""
    command = [sys.executable, "-m", "detseg.cli.main", "eval", "--predictions", str(results), str(truth)]
    start, used = time.perf_counter(), processor_of_children()
    subprocess.run([*command, "--out", str(out), "--exist-ok"], check=True, capture_output=True)
    seconds, processor = time.perf_counter() - start, processor_of_children() - used
    metrics = json.loads((out / "metrics.json").read_bytes())["metrics"]
    return seconds, processor, list(metrics.values())[:12]


def processor_of_children() -> float:
    """Seconds that processes started from here have used so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def time_pycocotools(truth: Path, results: Path) -> tuple[float, float, list[float]]:
    """The same of pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    start, used = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(truth))
        comparison = COCOeval(known, known.loadRes(str(results)), "bbox")
        comparison.evaluate()
        comparison.accumulate()
        comparison.summarize()
    return time.perf_counter() - start, time.process_time() - used, comparison.stats.tolist()


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth, results = write_files(folder)
        timed = [time_detseg(truth, results, folder / "out") for _ in range(runs)]
        theirs, theirs_cpu, expected = time_pycocotools(truth, results)
    assert all(numbers == expected for _, _, numbers in timed), "the numbers differ"
    seconds, processor = sorted(t[0] for t in timed), sorted(t[1] for t in timed)
    middle, middle_cpu = seconds[runs // 2], processor[runs // 2]
    print(f"{PICTURES:,} pictures, {OBJECTS:,} objects, {DETECTIONS:,} detections; AP {expected[0]:.4f} on both sides")
    print(f"{'seconds':<24}{'clock':>8}{'processor':>11}")
    print(
        f"{'detseg, whole command':<24}{middle:>8.2f}{middle_cpu:>11.2f}   ({', '.join(f'{s:.2f}' for s in seconds)})"
    )
    print(f"{'pycocotools':<24}{theirs:>8.2f}{theirs_cpu:>11.2f}")
    print(f"{'ratio':<24}{theirs / middle:>8.1f}{theirs_cpu / middle_cpu:>11.1f}")
    print(f"promised: at most {LIMIT_S} s, at least {LEAST_RATIO:.0f} times faster")


if __name__ == "__main__":
    main()
