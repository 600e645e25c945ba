"""Which weight files a command uses: those that were named, or the default, in the kind that the run needs.

Several are an ensemble, whose members look at the same pictures. And where proposals come from, for a model that looks
at such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click
import numpy as np
from numpy.typing import NDArray

from detseg.annotations import Categories, ClassMatch
from detseg.checkpoints import Card, zoo
from detseg.checkpoints.header import open_header
from detseg.errors import WeightsError
from detseg.pipeline import Pace
from detseg.preprocess import Preprocess
from detseg.runtimes import Runtime, open_runtime

if TYPE_CHECKING:
    from detseg.annotations import AnnotationSet
    from detseg.proposals import Proposer


class Asked(Protocol):
    """What a command line says of weights and of how they are run."""

    @property
    def weights(self) -> tuple[Path, ...]: ...
    @property
    def ensemble_weights(self) -> tuple[float, ...]: ...
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
    """A weight file of a run, its kind ("onnx" or "safetensors"), what it says of itself."""

    weights: Path
    kind: str
    card: Card

    def recipe(self, asked: Asked) -> Preprocess:
        """How pictures are laid in: as trained, or in frames of the size that was asked for."""
        usual = self.card.preprocess
        return usual.sized(asked.imgsz) if asked.imgsz else usual


@dataclass(frozen=True, eq=False)
class Chosen:
    """The weights of a run: one model, or several whose answers become one.

    `categories`: all classes that one of them knows; `classes`: for each model the index among them of each of its
    own; `shares`: how much the word of each counts.
    """

    models: tuple[Model, ...]
    categories: Categories
    classes: tuple[NDArray[np.int64], ...]
    shares: tuple[float, ...]

    @property
    def task(self) -> str:
        """ "detect", or "segment" of segmenters."""
        return self.models[0].card.task

    @property
    def name(self) -> str:
        """The files, for people."""
        return " and ".join(str(model.weights) for model in self.models)

    def origin(self, asked: Asked) -> dict[str, Any]:
        """What metrics.json says of them: of one model values, of several lists of them."""
        columns: dict[str, list[Any]] = {
            "weights": [str(model.weights) for model in self.models],
            "model": [model.card.model for model in self.models],
            "frame_hw": [list(model.recipe(asked).frame_hw) for model in self.models],
        }
        if len(self.models) == 1:
            return {name: only for name, (only,) in columns.items()}
        return {**columns, "ensemble_weights": list(self.shares)}

    def open(self, asked: Asked) -> tuple[Runtime, ...]:
        """The networks, ready."""
        limit = 1 if self._side_by_side(asked) else None
        return tuple(
            open_runtime(model.weights, runtime=asked.runtime, device=asked.device, threads=limit)
            for model in self.models
        )

    def each(self, asked: Asked) -> list[dict[str, Any]]:
        """What every `pipeline.Member` is told of its frames, its classes and its weight."""
        several = len(self.models) > 1
        return [
            {"recipe": model.recipe(asked), "weight": share, "classes": own if several else None}
            for model, own, share in zip(self.models, self.classes, self.shares, strict=True)
        ]

    def pace(self, asked: Asked) -> Pace:
        """How the route is to run them."""
        return Pace(asked.batch, asked.workers, network_threads=asked.workers if self._side_by_side(asked) else 1)

    def _side_by_side(self, asked: Asked) -> bool:
        """Whether each call of a network keeps to one core, so that several run at once (wasting less)."""
        return asked.device in ("auto", "cpu") and all(model.kind == "onnx" for model in self.models)


def choose(
    asked: Asked,
    *,
    imgsz: tuple[int, int] | None = None,
    several_sizes: bool = False,
    tasks: Sequence[str] = ("detect",),
) -> Chosen:
    """The weights, checked; for one of `tasks`, and frames of `imgsz` where they are not as large as `asked` for.

    Where none are named they are the usual ones of the first task. Detectors of an ensemble may know different classes;
    segmenters must know the same; the two do not go together. Raises WeightsError for files
    that cannot be used, UsageError for a frame size that an exported model does not take, or weights of other number.
    """
    named: Sequence[Path | None] = asked.weights or (None,)
    shares = asked.ensemble_weights or (1.0,) * len(named)
    if len(shares) != len(named):
        raise click.UsageError(
            f"--ensemble-weights: {len(shares)} numbers for {len(named)} weight files; give one for each -w"
        )
    models = tuple(_model(asked, path, imgsz or asked.imgsz, several_sizes, tasks) for path in named)
    first = models[0].card.task
    other = next((model for model in models if model.card.task != first), None)
    if other is not None:
        raise WeightsError(f"{models[0].weights} and {other.weights}: a detector and a segmenter make no ensemble")
    if first == "segment":
        _expect_same_classes(models)
    return Chosen(models, *_all_classes([model.card.categories for model in models]), shares)


def _model(
    asked: Asked, named: Path | None, imgsz: tuple[int, int] | None, several_sizes: bool, tasks: Sequence[str]
) -> Model:
    """One of them. ONNX is the faster on a CPU; a GPU, another frame size or several need .safetensors."""
    on_gpu = asked.device not in ("auto", "cpu")
    wants_torch = asked.runtime == "torch" or (asked.runtime == "auto" and (on_gpu or imgsz or several_sizes))
    kind = "safetensors" if wants_torch else "onnx"
    path = zoo.resolve(named, kind) if named else zoo.default_weights(tasks[0], kind)
    kind, card = open_header(path)
    if card.task not in tasks:
        what = "objects" if card.task == "detect" else "the classes of pixels"
        raise WeightsError(f"{path}: {card.model} finds {what}; use it with: detseg {card.task}")
    if kind == "onnx" and imgsz not in (None, card.preprocess.frame_hw):
        height, width = card.preprocess.frame_hw
        raise click.UsageError(
            f"{path} was exported for {height}x{width} pixels; another size needs .safetensors weights"
        )
    return Model(path, kind, card)


def _all_classes(of_models: Sequence[Categories]) -> tuple[Categories, tuple[NDArray[np.int64], ...]]:
    """The first model's classes, then those that only others know; and for each model where its own are among them.

    Names decide; a class that is added keeps its id where that is free.
    """
    known, places = of_models[0], [np.arange(len(of_models[0]))]
    for own in of_models[1:]:
        match = ClassMatch.of(own, known)
        of_own = dict(match.pairs)
        ids, names = list(known.ids), list(known.names)
        for name in match.unused:
            index = own.index_of_name[name]
            of_own[index] = len(ids)
            ids.append(own.ids[index] if own.ids[index] not in ids else max(ids) + 1)
            names.append(name)
        known = Categories(tuple(ids), tuple(names))
        places.append(np.array([of_own[index] for index in range(len(own))], np.int64))
    return known, tuple(places)


def _expect_same_classes(models: Sequence[Model]) -> None:
    """Raises WeightsError: the mean of probabilities is one only over the same classes."""
    first = models[0]
    for other in models[1:]:
        match = ClassMatch.of(other.card.categories, first.card.categories)
        lacking = [
            f"{model.weights} lacks {', '.join(names)}"
            for model, names in ((other, match.unknown), (first, match.unused))
            if names
        ]
        if lacking:
            raise WeightsError(
                f"segmenters of an ensemble must know the same classes: {'; '.join(lacking)}; leave one of them out"
            )


def proposers(
    chosen: Chosen, file: Path | None, truth: AnnotationSet | None = None
) -> tuple[list[Proposer | None], list[str]]:
    """For each model where its proposals come from, None for the usual place; and notes for the user.

    `file`: where the user has some; `truth`: the pictures, where they are known. Raises UsageError where no model wants
    any, DataError for a file that cannot be used, or that lacks pictures of `truth`.
    """
    from detseg.proposals import FileProposer, ProposalSettings

    cards = [model.card for model in chosen.models]
    wanted = [ProposalSettings.of_config(card.config) for card in cards]
    if file is None:
        learnt_from = [_learnt_from(card) for card, wants in zip(cards, wanted, strict=True) if wants is not None]
        usual = "used with those of selective search; see --proposals"
        return [None] * len(cards), [
            f"trained on proposals of a file ({name}), {usual}" for name in learnt_from if name
        ]
    if not any(wanted):
        names = " and ".join(dict.fromkeys(card.model for card in cards))
        raise click.UsageError(f"{names} looks at no proposals of others; leave --proposals out")
    counts = [None if wants is None else wants.count for wants in wanted]
    if truth is not None:
        return [None if count is None else FileProposer.of_sets(file, [truth], count) for count in counts], []
    return [None if count is None else FileProposer.of_any(file, count) for count in counts], []


def _learnt_from(card: Card) -> str | None:
    settings = card.training.get("settings")
    return settings.get("proposals") if isinstance(settings, dict) else None
