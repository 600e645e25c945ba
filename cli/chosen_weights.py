"""Which weight file a command uses: the one that was named, or the default, in the kind that the run needs.

And where its proposals come from, for a model that looks at such.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from detseg.checkpoints import Card, zoo
from detseg.checkpoints.header import open_header
from detseg.errors import WeightsError
from detseg.preprocess import Preprocess
from detseg.runtimes import Runtime, open_runtime

if TYPE_CHECKING:
    from detseg.annotations import AnnotationSet
    from detseg.proposals import Proposer


class Asked(Protocol):
    """What a command line says of weights and of how they are run."""

    @property
    def weights(self) -> Path | None: ...
    @property
    def runtime(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def imgsz(self) -> tuple[int, int] | None: ...
    @property
    def batch(self) -> int: ...
    @property
    def workers(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Model:
    """The weights of a run: the file, its kind ("onnx" or "safetensors"), what it says of itself."""

    weights: Path
    kind: str
    card: Card

    def open(self, asked: Asked) -> Runtime:
        """The network, ready."""
        limit = 1 if self._side_by_side(asked) else None
        return open_runtime(self.weights, runtime=asked.runtime, device=asked.device, threads=limit)

    def stream(self, asked: Asked) -> dict[str, Any]:
        """How the route is to run it: what `detect_files` and `segment_files` are told of batches and threads."""
        network_threads = asked.workers if self._side_by_side(asked) else 1
        how = {"batch": asked.batch, "workers": asked.workers, "network_threads": network_threads}
        return {**how, "recipe": self.recipe(asked)}

    def recipe(self, asked: Asked) -> Preprocess:
        """How pictures are laid in: as trained, or in frames of the size that was asked for."""
        usual = self.card.preprocess
        return replace(usual, frame_hw=asked.imgsz) if asked.imgsz else usual

    def _side_by_side(self, asked: Asked) -> bool:
        """Whether each call of the network keeps to one core, so that several run at once (wasting less)."""
        return self.kind == "onnx" and asked.device in ("auto", "cpu")


def choose(
    asked: Asked,
    *,
    imgsz: tuple[int, int] | None = None,
    several_sizes: bool = False,
    task: str = "detect",
) -> Model:
    """The weights, checked; for `task`, and frames of `imgsz` where they are not of the size that was `asked` for.

    ONNX is the faster on a CPU; a GPU, another frame size or several need .safetensors. Raises WeightsError for a
    file that cannot be used, UsageError for a frame size that an exported model does not take.
    """
    imgsz = imgsz or asked.imgsz
    on_gpu = asked.device not in ("auto", "cpu")
    wants_torch = asked.runtime == "torch" or (asked.runtime == "auto" and (on_gpu or imgsz or several_sizes))
    kind = "safetensors" if wants_torch else "onnx"
    path = zoo.resolve(asked.weights, kind) if asked.weights else zoo.default_weights(task, kind)
    kind, card = open_header(path)
    if card.task != task:
        what = "objects" if card.task == "detect" else "the classes of pixels"
        raise WeightsError(f"{path}: {card.model} finds {what}; use it with: detseg {card.task}")
    if kind == "onnx" and imgsz not in (None, card.preprocess.frame_hw):
        height, width = card.preprocess.frame_hw
        raise click.UsageError(
            f"{path} was exported for {height}x{width} pixels; another size needs .safetensors weights"
        )
    return Model(path, kind, card)


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
