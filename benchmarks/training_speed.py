"""Training against a plain PyTorch loop with torchvision's reference recipe: same model, data, size, in one run.

    python benchmarks/training_speed.py detect BCCD [--batch 4] [--workers 2] [--steps 12] [--rounds 2]
    python benchmarks/training_speed.py segment CAMVID [--batch 8]

`detect`: Faster R-CNN on MobileNetV3-large-FPN, shorter side 320. `segment`: LR-ASPP on MobileNetV3-large, crops of
480. Theirs: torchvision's model as it comes, read with PIL, mirrored (and for segmentation resized and cropped) as in
torchvision's `references`, SGD with momentum. Ours: what `detseg train` runs for the same, with the same optimiser,
every layer learning on both sides, in single precision; the moving average of the weights, which theirs lacks, stays
on. The two take turns of `--steps` steps, so that a busy machine slows both; the first step of a turn does not count.
Told are pictures a second, their ratio, and the share of the time that a step waited for data. Exit code 1 below 1.2
times.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as vision

from detseg.annotations import load, load_label_maps
from detseg.training.config import TrainConfig
from detseg.training.folder import RunFolder
from detseg.training.loop import Trainer
from detseg.training.profile import Stopwatch
from detseg.training.setup import prepare

TIMES = 1.2  # at least
MODELS = {"detect": "faster-rcnn-mobilenet-fpn-320", "segment": "lraspp-mobilenet"}


class Enough(Exception):
    """Raised by the report when as many steps were done as are timed."""


class Boxes(Dataset[Any]):
    """Pictures and boxes as torchvision's detection reference makes them."""

    def __init__(self, root: str) -> None:
        self.truth = load(root, "train")

    def __len__(self) -> int:
        return len(self.truth)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        rows = self.truth.rows(index)
        image = vision.to_tensor(Image.open(self.truth.image_path(index)).convert("RGB"))
        boxes = torch.from_numpy(self.truth.boxes[rows].astype(np.float32))
        if random.random() < 0.5:
            image, width = image.flip(-1), image.shape[-1]
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        return image, {"boxes": boxes, "labels": torch.from_numpy(self.truth.labels[rows] + 1).long()}


class Maps(Dataset[Any]):
    """Pictures and label maps as torchvision's segmentation reference makes them: base size 520, crops of 480."""

    def __init__(self, root: str) -> None:
        self.truth = load_label_maps(root, "train")

    def __len__(self) -> int:
        return len(self.truth)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image: Any = Image.open(self.truth.image_path(index)).convert("RGB")
        labels: Any = Image.fromarray(self.truth.label_map(index))
        size = random.randint(260, 1040)
        image = vision.resize(image, size, antialias=True)
        labels = vision.resize(labels, size, interpolation=vision.InterpolationMode.NEAREST)
        if random.random() < 0.5:
            image, labels = vision.hflip(image), vision.hflip(labels)
        below, right = max(0, 480 - image.size[1]), max(0, 480 - image.size[0])
        image, labels = vision.pad(image, [0, 0, right, below], 0), vision.pad(labels, [0, 0, right, below], 255)
        top, left = random.randint(0, image.size[1] - 480), random.randint(0, image.size[0] - 480)
        pixels = vision.to_tensor(vision.crop(image, top, left, 480, 480))
        target = torch.from_numpy(np.array(vision.crop(labels, top, left, 480, 480))).long()
        return vision.normalize(pixels, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), target


def main() -> int:
    """Measures, prints the rates, and says whether the bar is met."""
    options = _options()
    torch.manual_seed(0)
    make_theirs = {"detect": _their_detector, "segment": _their_segmenter}[options.task]
    sides = {"torchvision": make_theirs(options), "detseg": _ours(options)}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    waits: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, turn in sides.items():
            seconds, waited = turn()
            rates[name].append(options.batch * options.steps / seconds)
            waits[name].append(waited / seconds)
    report = {
        "task": options.task,
        "threads": torch.get_num_threads(),
        "batch": options.batch,
        **{f"{name}_pictures_s": statistics.median(found) for name, found in rates.items()},
        **{f"{name}_waiting": statistics.median(found) for name, found in waits.items()},
    }
    report["times"] = report["detseg_pictures_s"] / report["torchvision_pictures_s"]
    print(json.dumps(report, indent=2) if options.json else _table(report))
    return 0 if report["times"] >= TIMES else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=list(MODELS))
    parser.add_argument("data")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


Turn = Callable[[], tuple[float, float]]  # seconds of all steps, and of these what was waited for data


def _their_detector(options: argparse.Namespace) -> Turn:
    data = Boxes(options.data)
    model = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=len(data.truth.categories) + 1
    )

    def loss(batch: Any) -> torch.Tensor:
        images, targets = batch
        return sum(model(list(images), list(targets)).values(), torch.zeros(()))

    return _their_turn(options, model, data, loss, collate=lambda batch: tuple(zip(*batch, strict=True)))


def _their_segmenter(options: argparse.Namespace) -> Turn:
    data = Maps(options.data)
    model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=len(data.truth.categories)
    )

    def loss(batch: Any) -> torch.Tensor:
        images, targets = batch
        return functional.cross_entropy(model(images)["out"], targets, ignore_index=255)

    return _their_turn(options, model, data, loss, collate=None)


def _their_turn(
    options: argparse.Namespace, model: Any, data: Dataset[Any], loss: Callable[[Any], torch.Tensor], collate: Any
) -> Turn:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=1e-4)
    model.train()

    def batches() -> Iterator[Any]:
        while True:
            yield from DataLoader(
                data, options.batch, shuffle=True, num_workers=options.workers, collate_fn=collate, drop_last=True
            )

    def turn() -> tuple[float, float]:
        seconds = waited = 0.0
        feed = batches()
        for step in range(options.steps + 1):
            started = time.perf_counter()
            batch = next(feed)
            there = time.perf_counter()
            total = loss(batch)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            if step:
                seconds += time.perf_counter() - started
                waited += there - started
        return seconds, waited

    return turn


def _ours(options: argparse.Namespace) -> Turn:
    plain: dict[str, Any] = {"layout": "crops", "fit": "shorter", "imgsz": 480} if options.task == "segment" else {}
    config = TrainConfig(
        data=options.data,
        model=MODELS[options.task],
        backbone_weights=None,
        **plain,
        augment="light",
        mosaic=0,
        multi_scale=0,
        batch=options.batch,
        workers=options.workers,
        optimizer="sgd",
        lr=0.001,
        freeze_stages=0,
        freeze_bn=False,
        epochs=1000,
    )
    prepared = prepare(config, "benchmark")

    def turn() -> tuple[float, float]:
        times: list[float] = []
        watch = Stopwatch(torch.device("cpu"))

        def report(event: Any) -> None:
            if hasattr(event, "step"):
                times.append(time.perf_counter())
                if len(times) == 1:  # the first step does not count
                    watch.seconds.clear()
                if len(times) > options.steps:
                    raise Enough

        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                model=prepared.model,
                preprocess=prepared.card.preprocess,
                data=prepared.data,
                config=config,
                folder=RunFolder(Path(folder), prepared.card),
                validate=lambda model: {"ap": 0.0, "miou": 0.0},
                report=report,
                lap=watch,
            )
            with suppress(Enough):
                trainer.run()
        return times[-1] - times[0], watch.seconds["waiting for data"]

    return turn


def _table(report: dict[str, Any]) -> str:
    sides = [
        f"{name}: {report[f'{name}_pictures_s']:.2f} pictures/s, {report[f'{name}_waiting']:.1%} of it waiting for data"
        for name in ("torchvision", "detseg")
    ]
    head = f"{report['task']}, {report['threads']} threads, batches of {report['batch']}"
    return "\n".join([head, *sides, f"{report['times']:.2f} times; bar: {TIMES:g}"])


if __name__ == "__main__":
    raise SystemExit(main())
