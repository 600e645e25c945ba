"""Which recipe of transfer learning is best where there are few pictures?

    python benchmarks/few_pictures.py DATA [--pictures 20] [--seeds 3] [--model yolo] [--epochs 50] [--only head,late]

For every seed so many training pictures are drawn, the same for all recipes; each recipe then trains on them through
`detseg train`, to the last epoch, and is measured once, on the test list: nothing is chosen by it. What is finished is
not done again and an interrupted training goes on where it was, so the same command can be given until all is done.
results.json in the folder `--out` holds all numbers. The table tells, of each recipe, mean and standard deviation over
the seeds, and by how much `late` is better on the same pictures.

At the defaults (20 pictures, 50 epochs, 320 pixels) the five recipes and three seeds are meant for two free cores and
20 minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from detseg.annotations import AnnotationSet, load, splits
from detseg.annotations.coco import write_coco
from detseg.checkpoints import read_card
from detseg.cli.main import main as detseg
from detseg.files import write_text

REFERENCE = "late"  # the claim is about it
# name -> words for `detseg train`, what it is
USUAL: dict[str, tuple[str, str]] = {
    "none": ("", "no recipe: two stages and batch norms frozen"),
    "head": ("--transfer head", "the head alone learns"),
    "late": ("--transfer late", "three stages frozen"),
    "all": ("--transfer all", "all learns, batch norms too, early stages slower"),
    "scratch": ("--transfer scratch", "all learns, from random numbers"),
}
VARIANTS: dict[str, tuple[str, str]] = {  # only where they are asked for
    "late-in-two": ("--transfer late --finetune-at 10", "three stages frozen, the head alone in 10 epochs"),
    "all-one-rate": ("--transfer all --layer-decay 1", "all learns at the backbone's one rate"),
    "all-norms-fixed": ("--transfer all --freeze-bn", "all learns but batch norms"),
    "all-in-two": ("--transfer all --finetune-at 10", "all learns, the head alone in 10 epochs"),
}
RECIPES = USUAL | VARIANTS


def main() -> int:
    """Does what is not done yet, then prints the table."""
    asked = _arguments()
    file = asked.out / "results.json"
    results = _known(file, asked)
    data = _drawn(asked)
    for seed in range(asked.seeds):
        for name in asked.only:
            key = f"{name}-{seed}"
            if key not in results["runs"]:
                results["runs"][key] = _trained(asked, data, name, seed)
                write_text(file, json.dumps(results, indent=2) + "\n")
                print(f"{key}: {results['runs'][key]}", file=sys.stderr, flush=True)
    print(_table(results["runs"], asked))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", help="a data set with the lists train and test")
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default="yolo")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--test-pictures", type=int, help="of the test list only so many; default: all")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(USUAL), help=", ".join(RECIPES))
    parser.add_argument("--out", type=Path, default=Path("runs/few-pictures"))
    asked = parser.parse_args()
    if unknown := set(asked.only) - RECIPES.keys():
        parser.error(f"no recipe is called {', '.join(sorted(unknown))}")
    return asked


def _known(file: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """The results so far, which must be of the same settings."""
    fixed = ("data", "pictures", "model", "epochs", "imgsz", "batch", "test_pictures")
    settings = {name: getattr(asked, name) for name in fixed}
    if not file.is_file():
        return {"settings": settings, "runs": {}}
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if results["settings"] != settings:
        sys.exit(f"{file}: holds results of other settings: {results['settings']}; choose another --out")
    return results


def _drawn(asked: argparse.Namespace) -> Path:
    """A data set of the test list and, for every seed, the pictures drawn by it; written where it is not yet there."""
    folder: Path = asked.out / "data"
    available = splits(asked.data)
    if not {"train", "test"} <= set(available):
        sys.exit(f"{asked.data}: needs the lists train and test; it has {', '.join(available) or 'none'}")
    test = load(asked.data, "test")
    _write(test.subset(range(min(len(test), asked.test_pictures or len(test)))), folder, "test")
    train = load(asked.data, "train")
    if asked.pictures > len(train):
        sys.exit(f"{asked.data}: {len(train)} training pictures, and {asked.pictures} are to be drawn")
    for seed in range(asked.seeds):
        chosen = np.random.default_rng(seed).choice(len(train), asked.pictures, replace=False)
        _write(train.subset(sorted(chosen.tolist())), folder, f"draw{seed}")
    return folder


def _write(truth: AnnotationSet, folder: Path, split: str) -> None:
    file = folder / "annotations" / f"{split}.json"
    if file.exists():
        return
    for i, name in enumerate(truth.image_files):
        copy = folder / "images" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            shutil.copyfile(truth.image_path(i), copy)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_coco(truth, file)


def _trained(asked: argparse.Namespace, data: Path, name: str, seed: int) -> dict[str, float]:
    """Trains to the end, from where an interrupted run was; gives AP and AP50 of the averaged weights at the end."""
    run = asked.out / f"{name}-{seed}"
    words = ["train", "--resume", str(run), "-q"]
    if not (run / "state.pt").exists():
        words = ["train", str(data), "-m", asked.model, "--split", f"draw{seed}", "--val-split", "test", "-q"]
        words += ["--epochs", str(asked.epochs), "--eval-every", str(asked.epochs), "--imgsz", str(asked.imgsz)]
        words += ["--batch", str(asked.batch), "--seed", str(seed), "--out", str(run), "--exist-ok"]
        words += RECIPES[name][0].split()
    started = time.perf_counter()
    if code := detseg(words):
        sys.exit(f"detseg {' '.join(words)}: exit code {code}")
    metrics = read_card(run / "weights" / "last.safetensors").training["metrics"]
    return {"ap": metrics["ap"], "ap50": metrics["ap50"], "seconds": round(time.perf_counter() - started, 1)}


def _table(runs: dict[str, dict[str, float]], asked: argparse.Namespace) -> str:
    """Markdown: a line for every recipe that has been run."""
    lines = [
        f"| recipe | what | seeds | AP50 | AP | AP50 of `{REFERENCE}` less this | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in (name for name in RECIPES if name in asked.only):
        own = {seed: runs[f"{name}-{seed}"] for seed in range(asked.seeds) if f"{name}-{seed}" in runs}
        if not own:
            continue
        reference = {seed: runs.get(f"{REFERENCE}-{seed}") for seed in own}
        apart = [other["ap50"] - own[seed]["ap50"] for seed, other in reference.items() if other is not None]
        cells = [
            f"`{name}`",
            RECIPES[name][1],
            str(len(own)),
            *(_spread([result[number] for result in own.values()]) for number in ("ap50", "ap")),
            _spread(apart, sign="+") if apart and name != REFERENCE else "",
            f"{mean(result['seconds'] for result in own.values()):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float], sign: str = "") -> str:
    """Mean and, of several, standard deviation."""
    return f"{mean(values):{sign}.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    raise SystemExit(main())
