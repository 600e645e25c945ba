"""How a model in training is measured: the numbers of a validation, and what they are called.

Several processes each look at a share of the pictures, in the batches that one process would make, so that what they
find is the same to the last bit. The first one gathers it, measures once, and tells the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from detseg import evaluation
from detseg.annotations import AnnotationSet
from detseg.annotations.semantic import IGNORE, SemanticSet
from detseg.evaluation.label_maps import confusion, overall
from detseg.pipeline import Pace, detect_files, segment_files
from detseg.postprocess import Selection
from detseg.results import Detections

from .eval_request import pictures_of

if TYPE_CHECKING:
    from detseg.training.processes import Processes
    from detseg.training.setup import Prepared

T = TypeVar("T")
Validate = Callable[[Any], dict[str, float]]
See = Callable[[int, Any], None]  # the index of a picture, and the Detections or LabelMap that were found


def of(prepared: Prepared, group: Processes, see: See) -> Validate:
    """Measures on the validation pictures; on the training pictures themselves where there are none.

    `see` is shown what is found in each picture; of several processes by the first, what that one looks at.
    """
    truth = prepared.validation or prepared.truth
    if isinstance(truth, SemanticSet):
        return _maps(prepared, truth, group, see)
    return _objects(prepared, truth, group, see)


def own_share(count: int, batch: int, rank: int, processes: int) -> list[int]:
    """The pictures, of `count`, that a process looks at: every so many of the batches that one process would make."""
    return [i for i in range(count) if i // batch % processes == rank]


def _in_order(shares: Sequence[Sequence[T]], count: int, batch: int) -> list[T]:
    """What the processes found in their shares, in the order of the pictures."""
    found: dict[int, T] = {}
    for rank, share in enumerate(shares):
        found |= zip(own_share(count, batch, rank, len(shares)), share, strict=True)
    return [found[i] for i in range(count)]


def decisive_column(prepared: Prepared) -> str:
    """The number by which the best weights are kept."""
    truth = prepared.validation or prepared.truth
    if isinstance(truth, SemanticSet):
        return "miou"
    return "mask_ap" if prepared.masks and truth.outlines.any else "ap"


def metric_name(key: str) -> str:
    """ "ap50" -> "AP50", "mask_ap" -> "mask AP", "miou" -> "mean IoU"."""
    words = {"miou": "mean IoU", "pixel_accuracy": "pixel accuracy", "mean_accuracy": "mean accuracy"}
    if key in words:
        return words[key]
    kind, _, rest = key.rpartition("_")
    return f"{kind} {rest.upper()}".strip()


def _objects(prepared: Prepared, truth: AnnotationSet, group: Processes, see: See) -> Validate:
    """COCO's numbers, of boxes and where there are such of masks."""
    from detseg import catalog
    from detseg.runtimes.live import LiveRuntime

    files, config = pictures_of(truth), prepared.config
    selection = Selection.for_measuring(catalog.usual_nms(config.model))
    mine = own_share(len(files), config.batch, group.rank, group.count)

    def validate(model: Any) -> dict[str, float]:
        runtime = LiveRuntime(prepared.card, model)
        own = [files[i] for i in mine]
        outcomes = detect_files(own, runtime, selection, pace=Pace(config.batch), proposals=prepared.proposer)
        found = [
            outcome.found
            if outcome.found is not None
            else Detections((int(truth.image_hw[i, 0]), int(truth.image_hw[i, 1])))
            for i, outcome in zip(mine, outcomes, strict=True)
        ]
        if group.first:
            for i, one in zip(mine, found, strict=True):
                see(i, one)
        shares = group.gather(found)
        return group.of_first(measured(_in_order(shares, len(files), config.batch)) if group.first else {})

    def measured(found: list[Detections]) -> dict[str, float]:
        metrics = evaluation.evaluate(truth, found)
        numbers = {"ap": metrics.ap, "ap50": metrics.ap50, "ap75": metrics.ap75, "ar": metrics.ar_max}
        if prepared.masks and truth.outlines.any:
            rows, outlines = evaluation.result_rows(truth, found), evaluation.result_outlines(truth, found)
            of_masks = evaluation.evaluate_rows(truth, rows, kind="segm", outlines=outlines)
            numbers |= {"mask_ap": of_masks.ap, "mask_ap50": of_masks.ap50, "mask_ap75": of_masks.ap75}
        return numbers

    return validate


def _maps(prepared: Prepared, truth: SemanticSet, group: Processes, see: See) -> Validate:
    """Of label maps; all pixels of a picture that cannot be read count as missed."""
    from detseg.runtimes.live import LiveRuntime

    files, config = pictures_of(truth), prepared.config
    mine = own_share(len(files), config.batch, group.rank, group.count)

    def validate(model: Any) -> dict[str, float]:
        own = [files[i] for i in mine]
        outcomes = segment_files(own, LiveRuntime(prepared.card, model), pace=Pace(config.batch))
        size = len(truth.categories)
        counts = np.zeros((size, size + 1), np.int64)
        for i, outcome in zip(mine, outcomes, strict=True):
            there = truth.label_map(i)
            found = np.full_like(there, IGNORE) if outcome.found is None else outcome.found.labels
            counts += confusion(there, found, size)
            if group.first and outcome.found is not None:
                see(i, outcome.found)
        numbers = overall(np.sum(group.gather(counts), axis=0))
        return {name: numbers[name] for name in ("miou", "pixel_accuracy", "mean_accuracy")}

    return validate
