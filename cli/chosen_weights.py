"""Which weight file a command uses: the one that was named, or the default, in the kind that the run needs."""

from __future__ import annotations

from pathlib import Path

import click

from detseg.checkpoints import Card, zoo
from detseg.checkpoints.header import open_header


def choose(
    weights: Path | None,
    *,
    runtime: str,
    device: str,
    imgsz: tuple[int, int] | None,
    several_sizes: bool = False,
) -> tuple[Path, str, Card]:
    """The weight file, its kind ("onnx", "safetensors") and its card, checked.

    ONNX is the faster on a CPU; a GPU, another frame size or several need .safetensors. Raises WeightsError for a
    file that cannot be used, UsageError for a frame size that an exported model does not take.
    """
    on_gpu = device not in ("auto", "cpu")
    wants_torch = runtime == "torch" or (runtime == "auto" and (on_gpu or imgsz or several_sizes))
    kind = "safetensors" if wants_torch else "onnx"
    path = zoo.resolve(weights, kind) if weights else zoo.default_weights("detect", kind)
    kind, card = open_header(path)
    if kind == "onnx" and imgsz not in (None, card.preprocess.frame_hw):
        height, width = card.preprocess.frame_hw
        raise click.UsageError(f"{path} was exported for {height}x{width} pixels; --imgsz needs .safetensors weights")
    return path, kind, card
