"""From a `TrainConfig` to what a run needs: truth, model, card."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from detseg import catalog, checkpoints
from detseg.annotations import AnnotationSet, load_label_maps, splits
from detseg.annotations import load as load_truth
from detseg.annotations.anchors import Anchors, fit_of, kmeans_anchors, sizes_in_frame
from detseg.annotations.map_summary import pixel_counts
from detseg.annotations.semantic import Painted, SemanticSet
from detseg.annotations.split_names import canonical
from detseg.checkpoints import Card
from detseg.detectors.contract import Detector
from detseg.errors import DataError, DetsegError
from detseg.parts.map_losses import PixelCounts
from detseg.preprocess import Preprocess
from detseg.proposals import FileProposer, ProposalSettings, Proposer, Searcher
from detseg.segmenters.contract import Segmenter
from detseg.training.config import TrainConfig
from detseg.training.data import FrameSet, MapSet, TrainingSet
from detseg.training.inheritance import Inherited, inherit
from detseg.training.shared_truth import share
from detseg.training.transfer import Likeness, is_little, likeness_of

Downloads = Callable[[int, int | None], None]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything a run starts from; `anchors`, how well they fit, `likeness` and `inherited` are for telling."""

    config: TrainConfig
    data: FrameSet[Any]
    validation: AnnotationSet | SemanticSet | None
    model: Detector | Segmenter
    card: Card
    anchors: Anchors | None = None
    likeness: Likeness | None = None  # what was said of the data where their amount chose the recipe
    inherited: Inherited | None = None  # what was taken from a checkpoint; None without one
    masks: bool = False  # whether a detector learns from masks, and answers with them
    proposer: Proposer | None = None  # where its proposals come from, if it looks at such

    @cached_property
    def origin(self) -> dict[str, Any]:
        """What the run is started with: its command, and its data in plain values that differ where the data do."""
        sets = {"training": self.truth, **({"validation": self.validation} if self.validation is not None else {})}
        data = {f"{part} {name}": value for part, truth in sets.items() for name, value in about_data(truth).items()}
        return {"command": self.card.training["command"], "data": data}

    def with_batch(self, batch: int) -> Prepared:
        """The same, to be trained with another batch."""
        config = self.config.model_copy(update={"batch": batch})
        data = copy(self.data)
        data.config = config
        training = {**self.card.training, "settings": {**self.card.training["settings"], "batch": batch}}
        return replace(self, config=config, data=data, card=replace(self.card, training=training))

    @property
    def truth(self) -> AnnotationSet | SemanticSet:
        """What is learnt from."""
        return self.data.truth


def prepare(config: TrainConfig, command: str, progress: Downloads | None = None) -> Prepared:
    """Reads the data, builds the model with its starting weights, writes its card.

    `progress` hears of a download of the backbone's weights: bytes so far, bytes in all where the server tells.
    Raises DataError, WeightsError or DetsegError in words for the user.
    """
    if catalog.entry(config.model).task == "segment":
        return _prepared_for_maps(config, command, progress)
    module = catalog.module(config.model)
    truth, validation = read_truth(config)
    config, likeness = _settled(config, truth)
    masks = bool(getattr(module, "NEEDS_MASKS", False))
    if masks:
        _expect_masks(config, truth)
    truth = share(truth)
    found: list[Anchors] = []

    def anchors(count: int) -> NDArray[np.float64] | None:
        sizes = sizes_in_frame(truth, config.frame_hw, config.fit)
        if len(sizes) < count:  # too few boxes for as many clusters: the model keeps its own
            return None
        found.append(kmeans_anchors(sizes, count, config.seed))
        return found[0].wh

    started = _started(config, command, truth, anchors if config.anchors == "data" else None, progress)
    card = started.card
    fit = found[0] if found else _fit_of_own_anchors(card, truth, config)
    if fit is not None:
        about = {"from": "data" if found else "model", "mean_iou": fit.mean_iou, "reach": fit.best_possible_recall}
        card = replace(card, training={**card.training, "anchors": about})
    proposer = _proposer(config, card, [truth, *([validation] if validation else [])])
    return Prepared(
        config=config,
        data=TrainingSet(truth, config, card.preprocess, masks=masks, proposer=proposer),
        validation=validation,
        model=started.model,
        card=card,
        anchors=fit,
        likeness=likeness,
        inherited=started.inherited,
        masks=masks,
        proposer=proposer,
    )


def _prepared_for_maps(config: TrainConfig, command: str, progress: Downloads | None) -> Prepared:
    """The same of a segmenter, which learns from label maps."""
    if config.mixup:
        raise DetsegError(f"{config.model} learns from label maps, which cannot be blended; leave --mixup out")
    truth, validation = read_label_maps(config)
    config, likeness = _settled(config, truth)
    started = _started(config, command, truth, lambda: PixelCounts(*pixel_counts(truth)), progress)
    return Prepared(
        config=config,
        data=MapSet(truth, config, started.card.preprocess),
        validation=validation,
        model=started.model,
        card=started.card,
        likeness=likeness,
        inherited=started.inherited,
    )


def _settled(config: TrainConfig, truth: AnnotationSet | SemanticSet) -> tuple[TrainConfig, Likeness | None]:
    """With the recipe for so much data, where only their likeness was given; and that likeness."""
    return config.settled(little=has_little(truth)), likeness_of(config.transfer)


def has_little(truth: AnnotationSet | SemanticSet) -> bool:
    """Whether there is little to learn from, by the rule of `transfer.is_little`."""
    objects = len(truth.boxes) if isinstance(truth, AnnotationSet) else None
    return is_little(len(truth), objects, len(truth.categories))


class _Started(NamedTuple):
    """A model as training begins with it; see `Prepared`."""

    model: Detector | Segmenter
    card: Card
    inherited: Inherited | None


def _started(
    config: TrainConfig,
    command: str,
    truth: AnnotationSet | SemanticSet,
    about_data: Callable[..., Any] | None,
    progress: Downloads | None,
) -> _Started:
    """The model with its starting weights, what is to be frozen frozen, and its card.

    `about_data`: what its `configure` may ask of the data: anchors of a detector, pixels of a segmenter.
    """
    entry, module = catalog.entry(config.model), catalog.module(config.model)
    torch.manual_seed(config.seed)
    options = {"backbone": config.backbone, **entry.options, **_structure(config), **config.options}
    settings = module.configure(len(truth.categories), options, about_data)
    pretrained = None if config.weights else config.backbone_weights
    model: Detector | Segmenter = module.build(settings, backbone_weights=pretrained, progress=progress)
    inherited = inherit(model, config.weights, truth.categories) if config.weights else None
    backbone: Any = model.backbone
    backbone.freeze(config.freeze_stages)
    if config.freeze_bn:
        backbone.freeze_batch_norm()
    card = Card(
        model=config.model,
        config=module.config_to_json(settings),
        categories=truth.categories,
        preprocess=_preprocess(config, getattr(settings, "backbone", None), backbone),
        training=provenance(config, truth, command),
        task=entry.task,
    )
    return _Started(model, card, inherited)


def _proposer(config: TrainConfig, card: Card, sets: Sequence[AnnotationSet]) -> Proposer | None:
    """Where the model's proposals come from; None for a model that wants none, which cannot be given any."""
    wanted = ProposalSettings.of_config(card.config)
    if config.proposals is None:
        return None if wanted is None else Searcher(wanted)
    if wanted is None:
        raise DetsegError(
            f"{config.model} looks at no proposals of others; leave --proposals out, or train -m fast-rcnn"
        )
    return FileProposer.of_sets(Path(config.proposals), sets, wanted.count)


def _fit_of_own_anchors(card: Card, truth: AnnotationSet, config: TrainConfig) -> Anchors | None:
    """How well the anchors that the model came with fit the data; None for a model that has none."""
    groups = card.config.get("anchors")
    sizes = sizes_in_frame(truth, config.frame_hw, config.fit)
    if not groups or not len(sizes):
        return None
    wh = np.array([size for group in groups for size in group], np.float64).reshape(-1, 2)
    return Anchors(wh, *fit_of(sizes, wh))


def read_truth(config: TrainConfig) -> tuple[AnnotationSet, AnnotationSet | None]:
    """The training pictures, and those to validate on (None where the data set has no such split)."""
    available = splits(config.data)
    truth = load_truth(config.data, config.split or _usual(available, "train"))
    if not len(truth.boxes) or truth.ignored.all():
        raise DataError(f"{config.data}: no object to learn from among its {len(truth)} training pictures")
    val_split = config.val_split or _usual(available, "val", "test")
    if val_split is None:
        return truth, None
    validation = load_truth(config.data, val_split)
    _expect_same_classes(config, truth, validation)
    return truth, validation


def _expect_same_classes(
    config: TrainConfig, truth: AnnotationSet | SemanticSet, validation: AnnotationSet | SemanticSet
) -> None:
    if validation.categories.names != truth.categories.names:
        raise DataError(
            f"{config.data}: the classes to train on ({', '.join(truth.categories.names)}) are not those to validate "
            f"on ({', '.join(validation.categories.names)})"
        )


def read_label_maps(config: TrainConfig) -> tuple[SemanticSet, SemanticSet | None]:
    """The training pictures with their label maps, and those to validate on (None where there is no such split)."""
    available = splits(config.data)
    truth = load_label_maps(config.data, config.split or _usual(available, "train"))
    if config.border_weight and isinstance(truth.source, Painted):  # objects that touch are to be told apart
        truth = replace(truth, source=replace(truth.source, apart=True))
    val_split = config.val_split or _usual(available, "val", "test")
    if val_split is None:
        return truth, None
    validation = load_label_maps(config.data, val_split)
    _expect_same_classes(config, truth, validation)
    return truth, validation


def _expect_masks(config: TrainConfig, truth: AnnotationSet) -> None:
    if not truth.outlines.any:
        raise DataError(
            f"{config.data}: {config.model} learns from masks, and its {len(truth.boxes)} objects have boxes only; "
            "give them outlines (COCO's segmentation, YOLO's polygons, or pictures of masks in instances/), or train "
            "a detector of boxes: detseg models"
        )


def _usual(available: Sequence[str], *wanted: str) -> str | None:
    """The first of the wanted splits that there is, by whatever spelling; None means everything."""
    return next((name for want in wanted for name in available if canonical(name) == want), None)


def _structure(config: TrainConfig) -> dict[str, Any]:
    """What the model must have in common with the checkpoint it starts from, where that is of the same kind."""
    if config.weights is None:
        return {}
    card = checkpoints.read_card(config.weights)
    return {n: card.config[n] for n in catalog.entry(config.model).structure if card.model == config.model}


def _preprocess(config: TrainConfig, name: str | None, backbone: Any) -> Preprocess:
    """What the network sees: normalised as the backbone's weights want it, be they a checkpoint's or ImageNet's."""
    own = Preprocess(config.frame_hw, config.fit, mean=backbone.mean, std=backbone.std)
    if config.weights is None:
        return own
    card = checkpoints.read_card(config.weights)
    if card.config.get("backbone") != name:
        return own
    return replace(own, mean=card.preprocess.mean, std=card.preprocess.std)


def provenance(config: TrainConfig, truth: AnnotationSet | SemanticSet, command: str) -> dict[str, Any]:
    """Where a checkpoint comes from: data, command, settings, versions, machine."""
    return {
        "data": {"name": Path(config.data).name, **about_data(truth)},
        "command": command,
        "settings": config.model_dump(exclude={"data"}),
        "versions": {name: version(name) for name in ("detseg", "torch", "torchvision", "albumentations", "numpy")},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
        + (torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"),
    }


def about_data(truth: AnnotationSet | SemanticSet) -> dict[str, Any]:
    """How many pictures and objects there are, and the hash of them all."""
    objects = {"objects": len(truth.boxes)} if isinstance(truth, AnnotationSet) else {}
    return {"fingerprint": truth.fingerprint(), "pictures": len(truth), **objects}
