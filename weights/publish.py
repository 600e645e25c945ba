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

from detseg import checkpoints
from detseg.annotations.formats import load as load_truth
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
    card = card_text(given, files, metrics, count_train_boxes(given.data))
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


def count_train_boxes(data: str) -> dict[str, int]:
    """Objects to learn from, by class."""
    truth = load_truth(data, "train")
    labels = truth.labels[~truth.ignored]
    return {name: int((labels == i).sum()) for i, name in enumerate(truth.categories.names)}


def card_text(given: Any, files: dict[str, Path], metrics: dict[str, Any], train_boxes: dict[str, int]) -> str:
    """The card, in Markdown."""
    card = checkpoints.read_card(files["onnx"])
    training = card.training
    height, width = card.preprocess.frame_hw
    classes = sorted(metrics["per_class"], key=lambda c: -train_boxes[c["name"]])
    enough = [c["ap50"] for c in classes if train_boxes[c["name"]] >= 100]
    rows = "\n".join(
        f"| {c['name']} | {train_boxes[c['name']]} | {c['objects']} | {c['ap']:.3f} | {c['ap50']:.3f} |"
        for c in classes
        if c["objects"]
    )
    backbone = f" on `{card.config['backbone']}`" if "backbone" in card.config else ""
    sizes = ", ".join(f"`{path.name}` {path.stat().st_size / 1e6:.1f} MB" for path in files.values())
    return f"""# {given.name}

{given.about}

- **Model**: `{card.model}`{backbone}, frame {height} x {width} ({card.preprocess.fit}), half precision; {sizes}.
- **Data**: {training["data"]["name"]}, {training["data"]["pictures"]} training pictures with
  {training["data"]["objects"]} objects, fingerprint {training["data"]["fingerprint"]}.
- **Licence of the data**: {given.licence}
- **Command**: `{training["command"]}`
- **Seed** {training["settings"]["seed"]}; the weights of epoch {training["epoch"]}; {epochs(given.run, training)}.
- **Machine**: {training["machine"]}.
- **Versions**: {", ".join(f"{name} {number}" for name, number in training["versions"].items())}.

## Measured

On the {metrics["images"]} pictures of the list `{given.split}`, with the ONNX file: AP **{metrics["ap"]:.3f}**,
AP50 **{metrics["ap50"]:.3f}**, AP75 {metrics["ap75"]:.3f}, AR {metrics["ar_max"]:.3f}. Mean AP50 over the
{len(enough)} classes with at least 100 training boxes: **{sum(enough) / len(enough):.3f}**. Again with:

    detseg eval {given.name} {Path(given.data).name} --split {given.split}

| class | training boxes | boxes here | AP | AP50 |
|---|---|---|---|---|
{rows}
"""


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
    manifest = json.loads((HERE / "manifest.json").read_text())
    others = [entry for entry in manifest["weights"] if entry["name"] != name]
    if default:
        others = [{**entry, "default": False} for entry in others]
    block = {
        "name": name,
        "task": "detect",
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
