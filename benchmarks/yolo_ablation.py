"""What each part of YOLO's training and inference is worth: runs that differ from the defaults in one thing each.

Every setting is trained with every seed, one after another, then measured on the split asked for; the settings of
inference are measured with the weights of the defaults. What is finished is not done again, an interrupted training
goes on where it was: the same command can be given until all is done, and tells the table of what there is so far.

Run: python benchmarks/yolo_ablation.py DATA [--only base,mixup ...] [--seeds 0,1,2] [--split test] [-- WORDS OF train]
For example: python benchmarks/yolo_ablation.py bccd --split test -- --imgsz 416 --epochs 50 --batch 8 --eval-every 10
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

BASE = "base"
# name -> words for `detseg train` that make the difference, what it tries
TRAINING: dict[str, tuple[str, str]] = {
    BASE: ("", "the defaults"),
    "assign-neighbours": ("--option assignment=neighbours", "every prior of a like size and place learns each truth"),
    "assign-best": ("--option assignment=best --option decoding=exp", "one prior a truth, exponential decoding (v3)"),
    "no-skips": ("--option skips=false", "neck and heads without shortcuts"),
    "kernel-1": ("--option kernel=1", "the last convolutions see one cell"),
    "patches": ("--layout patches --mosaic 0 --multi-scale 0", "SSD's zoom-out and patches instead of mosaic"),
    "objectness-one": ("--option objectness=one", "objectness learns 1, not the IoU (v3)"),
    "loss-iou": ("--option box_loss=iou", "box loss 1 - IoU"),
    "loss-giou": ("--option box_loss=giou", "box loss 1 - GIoU"),
    "loss-diou": ("--option box_loss=diou", "box loss 1 - DIoU"),
    "focal": ("--option focal_gamma=1.5", "focal loss"),
    "smoothing": ("--option label_smoothing=0.1", "smoothed classes"),
    "anchors-model": ("--anchors model", "the priors of v3 instead of the data's"),
    "one-scale": ("--multi-scale 0", "frames of one size"),
    "no-mosaic": ("--mosaic 0", "no mosaic"),
    "more-mosaic": ("--mosaic 1", "mosaic always"),
    "mixup": ("--mixup 0.15", "a frame in seven blended of two"),
    "no-hsv": ("--hsv 0", "no shifts of colour"),
    "no-jitter": ("--jitter 0", "pictures at one scale"),
    "flips": ("--flip-vertical", "mirrored top to bottom too"),
    "turns": ("--turns", "turned by 90 degrees too: all eight symmetries"),
    "no-augment": ("--augment none", "pictures as they are"),
    "no-ema": ("--ema 0", "no moving average of the weights"),
    "all-learn": ("--freeze 0 --learn-bn", "nothing frozen"),
}
# name -> words for `detseg eval` on the weights of the defaults
INFERENCE: dict[str, tuple[str, str]] = {
    "nms-hard": ("--nms hard", "the best box stays as it is"),
    "nms-hard-0.5": ("--nms hard --iou 0.5", "the same, boxes compete from an overlap of 0.5 on, as where they vote"),
    "nms-soft": ("--nms soft", "soft NMS, Gaussian"),
    "nms-soft-linear": ("--nms soft-linear", "soft NMS, linear"),
    "nms-diou": ("--nms diou", "NMS by distance IoU"),
    "nms-wbf": ("--nms wbf", "boxes that overlap become their mean"),
    "agnostic": ("--agnostic-nms", "classes compete"),
    "tta-flips": ("--tta --tta-scales 1", "two views: both sides"),
    "tta": ("--tta", "six views: both sides, three sizes"),
    "tta-hard": ("--tta --nms hard", "the same, plain suppression"),
    "tta-wbf": ("--tta --nms hard --tta-merge wbf", "the same, each view for itself, then weighted means"),
}


def main() -> None:
    """Does what is not done yet, then prints the table."""
    given, train_words = arguments()
    todo = [name for name in (*TRAINING, *INFERENCE) if not given.only or name in given.only]
    for seed in [] if given.table else given.seeds:
        for name in with_base(todo):
            done = measured(given, name, seed, train_words)
            print(f"{name}, seed {seed}: AP {done['ap']['value']:.3f}", file=sys.stderr, flush=True)
    print(table(given, todo))


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """The options, and the words after -- for `detseg train`."""
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--split", default=None, help="measured on; default: what detseg eval takes")
    parser.add_argument("--only", type=lambda text: text.split(","), help=", ".join((*TRAINING, *INFERENCE)))
    parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[0])
    parser.add_argument("--table", action="store_true", help="only print what there is")
    given = parser.parse_args(words[:cut])
    unknown = set(given.only or ()) - {*TRAINING, *INFERENCE}
    if unknown:
        parser.error(f"no setting is called {', '.join(sorted(unknown))}")
    return given, words[cut + 1 :]


def with_base(names: list[str]) -> list[str]:
    """The defaults first: everything is compared with them."""
    return [BASE, *(name for name in names if name != BASE)]


def measured(given: argparse.Namespace, name: str, seed: int, train_words: list[str]) -> dict[str, Any]:
    """The intervals of one setting, worked out where that has not been done."""
    known = result(given, name, seed)
    if known is not None:
        return known
    run = given.out / f"{name if name in TRAINING else BASE}-{seed}"
    weights = run / "weights" / "best.safetensors"
    if name in TRAINING:
        train(given, run, [*train_words, *TRAINING[name][0].split(), "--seed", str(seed)])
    words = ["eval", str(weights), str(given.data), "--report", "--json", "-q", "--out", str(folder(given, name, seed))]
    words += [
        "--exist-ok",
        *(["--split", given.split] if given.split else []),
        *INFERENCE.get(name, ("", ""))[0].split(),
    ]
    if name != BASE:
        words += ["--compare", str(folder(given, BASE, seed) / "predictions.json")]
    detseg(words)
    known = result(given, name, seed)
    assert known is not None
    return known


def train(given: argparse.Namespace, run: Path, words: list[str]) -> None:
    """Trains to the end, from where an interrupted run was."""
    if (run / "state.pt").exists():
        detseg(["train", "--resume", str(run), "-q"])
    else:
        detseg(["train", str(given.data), "--out", str(run), "--exist-ok", "-q", *words])


def detseg(words: list[str]) -> None:
    """Runs a command; its numbers are read from what it writes."""
    done = subprocess.run([sys.executable, "-m", "detseg.cli.main", *words], stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        sys.exit(f"detseg {' '.join(words)}: exit code {done.returncode}")


def folder(given: argparse.Namespace, name: str, seed: int) -> Path:
    """Where a setting's evaluation is written."""
    path: Path = given.out / f"{name}-{seed}" / "eval"
    return path


def result(given: argparse.Namespace, name: str, seed: int) -> dict[str, Any] | None:
    """The intervals, and the comparison with the defaults, of an evaluation that is finished."""
    file = folder(given, name, seed) / "metrics.json"
    if not file.is_file():
        return None
    told = json.loads(file.read_text(encoding="utf-8"))
    return {**told["intervals"], "comparison": told.get("comparison")}


def table(given: argparse.Namespace, names: list[str]) -> str:
    """Markdown: mean over the seeds, the seeds' range, the interval of the pictures, the difference from the defaults.

    The interval is the mean of the seeds' bootstrap intervals.
    """
    lines = [
        "| setting | what | seeds | AP | range | interval of 95 % | AP50 | AP less that of the defaults |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in with_base(names):
        found = [r for seed in given.seeds if (r := result(given, name, seed)) is not None]
        if found:
            lines.append(row(name, found))
    return "\n".join(lines)


def row(name: str, found: list[dict[str, Any]]) -> str:
    """One line of the table."""

    def average(number: str, side: str) -> float:
        return mean(r[number][side] for r in found)

    values = [r["ap"]["value"] for r in found]
    apart = [r["comparison"]["difference"]["ap"] for r in found if r["comparison"]]
    difference = "" if not apart else "{:+.3f} ({:+.3f} to {:+.3f})".format(
        *(mean(one[side] for one in apart) for side in ("value", "low", "high"))
    )  # fmt: skip
    cells = [
        f"`{name}`",
        ({**TRAINING, **INFERENCE})[name][1],
        str(len(found)),
        f"{mean(values):.3f}",
        f"{min(values):.3f} to {max(values):.3f}" if len(values) > 1 else "",
        f"{average('ap', 'low'):.3f} to {average('ap', 'high'):.3f}",
        f"{average('ap50', 'value'):.3f}",
        difference,
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
