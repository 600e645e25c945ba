"""Makes the weights that come with detseg out of a training run: half precision, ONNX, card, manifest.

    python weights/publish.py RUN NAME --data DATA --split val --about "..." --licence "..." [--default]

Writes NAME.safetensors, NAME.onnx and cards/NAME.md beside this file and enters them in manifest.json. Every number
on the card is measured here, with the very file that is shipped (the ONNX one) on pictures it was not trained on.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from detseg import checkpoints
from detseg.annotations import load as load_truth
from detseg.annotations import load_label_maps
from detseg.annotations.semantic import IGNORE
from detseg.files import write_text
from detseg.runtimes.export import export_onnx

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Reads the command line and publishes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--about", required=True, help="one sentence: what it finds, for what it is made")
    parser.add_argument("--licence", required=True, help="the data's terms, and what they mean for the weights")
    parser.add_argument("--default", action="store_true")
    given = parser.parse_args()
    files = write_weights(given.run / "weights" / "best.safetensors", given.name)
    metrics = measure(files["onnx"], given.data, given.split)
    card = card_text(given, files, metrics)
    write_text(HERE / "cards" / f"{given.name}.md", card)
    enter(given.name, given.about, files, default=given.default)
    print(card)


def write_weights(best: Path, name: str) -> dict[str, Path]:
    """Both files of an entry, their matrices in half precision."""
    card, state = checkpoints.load(best)
    command = re.sub(r" (--out|-o) \S+", "", card.training["command"])  # where it was written says nothing of it
    command = re.sub(r"/\S*/(?=[^/\s]+)", "", command)  # nor do the folders where data and other weights lay
    settings = card.training["settings"]
    if settings["weights"] is not None:
        settings = {**settings, "weights": Path(settings["weights"]).name}
    card = replace(card, training={**card.training, "command": command, "settings": settings})
    files = {kind: HERE / f"{name}.{kind}" for kind in ("safetensors", "onnx")}
    checkpoints.save(files["safetensors"], card, state, half=True)
    export_onnx(files["safetensors"], files["onnx"], half=True)
    return files


def measure(weights: Path, data: str, split: str) -> dict[str, Any]:
    """The numbers of `detseg eval`, by running it."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["eval", str(weights), data, "--split", split, "--json", "--out", folder]
        told = subprocess.run([sys.executable, "-m", "detseg.cli.main", *words], stdout=subprocess.PIPE, check=True)
    metrics: dict[str, Any] = json.loads(told.stdout)["metrics"]
    return metrics


def card_text(given: Any, files: dict[str, Path], metrics: dict[str, Any]) -> str:
    """The card, in Markdown."""
    card = checkpoints.read_card(files["onnx"])
    training = card.training
    data = training["data"]
    height, width = card.preprocess.frame_hw
    backbone = f" on `{card.config['backbone']}`" if "backbone" in card.config else ""
    sizes = ", ".join(f"`{path.name}` {path.stat().st_size / 1e6:.1f} MB" for path in files.values())
    shown = f"{data['objects']} objects" if "objects" in data else "a label map each"
    measured = boxes_measured if card.task == "detect" else maps_measured
    return f"""# {given.name}

{given.about}

- **Model**: `{card.model}`{backbone}, frame {height} x {width} ({card.preprocess.fit}), half precision; {sizes}.
- **Data**: {data["name"]}, {data["pictures"]} training pictures with
  {shown}, fingerprint {data["fingerprint"]}.
- **Licence of the data**: {given.licence}
- **Command**: `{training["command"]}`
- **Seed** {training["settings"]["seed"]}; the weights of epoch {training["epoch"]}; {epochs(given.run, training)}.
- **Machine**: {training["machine"]}.
- **Versions**: {", ".join(f"{name} {number}" for name, number in training["versions"].items())}.

## Measured

On the {metrics["images"]} pictures of the list `{given.split}`, with the ONNX file: {measured(given.data, metrics)}

Again with:

    detseg eval {given.name} {Path(given.data).name} --split {given.split}
"""


def boxes_measured(data: str, metrics: dict[str, Any]) -> str:
    """The numbers of a detector, and its classes."""
    truth = load_truth(data, "train")
    labels = truth.labels[~truth.ignored]
    learnt = {name: int((labels == i).sum()) for i, name in enumerate(truth.categories.names)}
    classes = sorted(metrics["per_class"], key=lambda c: -learnt[c["name"]])
    enough = [c["ap50"] for c in classes if learnt[c["name"]] >= 100]
    rows = "\n".join(
        f"| {c['name']} | {learnt[c['name']]} | {c['objects']} | {c['ap']:.3f} | {c['ap50']:.3f} |"
        for c in classes
        if c["objects"]
    )
    return f"""AP **{metrics["ap"]:.3f}**,
AP50 **{metrics["ap50"]:.3f}**, AP75 {metrics["ap75"]:.3f}, AR {metrics["ar_max"]:.3f}. Mean AP50 over the
{len(enough)} classes with at least 100 training boxes: **{sum(enough) / len(enough):.3f}**.

| class | training boxes | boxes here | AP | AP50 |
|---|---|---|---|---|
{rows}"""


def maps_measured(data: str, metrics: dict[str, Any]) -> str:
    """The numbers of a segmenter, and its classes."""
    truth = load_label_maps(data, "train")
    learnt = dict.fromkeys(truth.categories.names, 0)
    for i in range(len(truth)):
        for label in set(np.unique(truth.label_map(i)).tolist()) - {IGNORE}:
            learnt[truth.categories.names[label]] += 1
    classes = sorted(metrics["per_class"], key=lambda c: -learnt[c["name"]])
    enough = [c["iou"] for c in classes if learnt[c["name"]] + c["images"] >= 100]
    rows = "\n".join(
        f"| {c['name']} | {learnt[c['name']]} | {c['images']} | {c['iou']:.3f} | {c['dice']:.3f} |"
        for c in classes
        if c["images"]
    )
    return f"""mean IoU **{metrics["miou"]:.3f}** over all classes,
pixel accuracy {metrics["pixel_accuracy"]:.3f}. Mean IoU over the {len(enough)} classes that at least 100 pictures of
the data show: **{sum(enough) / len(enough):.3f}**.

| class | training pictures | pictures here | IoU | Dice |
|---|---|---|---|---|
{rows}"""


def epochs(run: Path, training: dict[str, Any]) -> str:
    """How far the run went and what that took, in words."""
    with open(run / "results.csv", newline="", encoding="utf-8") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    planned = training["settings"]["epochs"]
    went = f"all {planned} epochs" if len(seconds) == planned else f"stopped after {len(seconds)} of {planned} epochs"
    hours = sum(seconds) / 3600
    return f"{went}, {hours:.1f} hours" if hours >= 1 else f"{went}, {hours * 60:.0f} minutes"


def enter(name: str, about: str, files: dict[str, Path], *, default: bool) -> None:
    """Puts the entry into the manifest, in place of an older one of its name."""
    task = checkpoints.read_card(files["onnx"]).task
    manifest = json.loads((HERE / "manifest.json").read_text())
    others = [entry for entry in manifest["weights"] if entry["name"] != name]
    if default:  # one for each task
        others = [{**entry, "default": entry["default"] and entry["task"] != task} for entry in others]
    block = {
        "name": name,
        "task": task,
        "summary": about,
        "default": default,
        "files": {
            kind: {
                "file": path.name,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "bytes": path.stat().st_size,
            }
            for kind, path in files.items()
        },
    }
    manifest["weights"] = [block, *others]
    write_text(HERE / "manifest.json", json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    main()
