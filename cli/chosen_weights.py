"""Which weight file a command uses: the one that was named, or the default, in the kind that the run needs.

And where its proposals come from, for a model that looks at such.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from detseg.checkpoints import Card, zoo
from detseg.checkpoints.header import open_header
from detseg.errors import WeightsError

if TYPE_CHECKING:
    from detseg.annotations import AnnotationSet
    from detseg.proposals import Proposer


def choose(
    weights: Path | None,
    *,
    runtime: str,
    device: str,
    imgsz: tuple[int, int] | None,
    several_sizes: bool = False,
    task: str = "detect",
) -> tuple[Path, str, Card]:
    """The weight file, its kind ("onnx", "safetensors") and its card, checked; for `task`.

    ONNX is the faster on a CPU; a GPU, another frame size or several need .safetensors. Raises WeightsError for a
    file that cannot be used, UsageError for a frame size that an exported model does not take.
    """
    on_gpu = device not in ("auto", "cpu")
    wants_torch = runtime == "torch" or (runtime == "auto" and (on_gpu or imgsz or several_sizes))
    kind = "safetensors" if wants_torch else "onnx"
    path = zoo.resolve(weights, kind) if weights else zoo.default_weights(task, kind)
    kind, card = open_header(path)
    if card.task != task:
        what = "objects" if card.task == "detect" else "the classes of pixels"
        raise WeightsError(f"{path}: {card.model} finds {what}; use it with: detseg {card.task}")
    if kind == "onnx" and imgsz not in (None, card.preprocess.frame_hw):
        height, width = card.preprocess.frame_hw
        raise click.UsageError(
            f"{path} was exported for {height}x{width} pixels; another size needs .safetensors weights"
        )
    return path, kind, card


def proposer(card: Card, file: Path | None, truth: AnnotationSet | None = None) -> tuple[Proposer | None, str]:
    """Where the proposals come from, None for the usual place, and a note for the user or "".

    `file`: where the user has some; `truth`: the pictures, where they are known. Raises UsageError for a model that
    wants none, DataError for a file that cannot be used, or that lacks pictures of `truth`.
    """
    from detseg.proposals import FileProposer, ProposalSettings

    wanted = ProposalSettings.of_config(card.config)
    if file is None:
        settings = card.training.get("settings")
        learnt_from = settings.get("proposals") if isinstance(settings, dict) else None
        if wanted is None or not learnt_from:
            return None, ""
        return (
            None,
            f"trained on proposals of a file ({learnt_from}), used with those of selective search; see --proposals",
        )
    if wanted is None:
        raise click.UsageError(f"{card.model} looks at no proposals of others; leave --proposals out")
    if truth is not None:
        return FileProposer.of_sets(file, [truth], wanted.count), ""
    return FileProposer.of_any(file, wanted.count), ""
