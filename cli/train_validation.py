"""How a model in training is measured: the numbers of a validation, and what they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from detseg import evaluation
from detseg.annotations import AnnotationSet
from detseg.annotations.semantic import IGNORE, SemanticSet
from detseg.evaluation.label_maps import evaluate_label_maps
from detseg.pipeline import detect_files, segment_files
from detseg.postprocess import Selection
from detseg.results import Detections

from .eval_request import pictures_of

if TYPE_CHECKING:
    from detseg.training.setup import Prepared

Validate = Callable[[Any], dict[str, float]]


def of(prepared: Prepared) -> Validate:
    """Measures on the validation pictures; on the training pictures themselves where there are none."""
    truth = prepared.validation or prepared.truth
    return _maps(prepared, truth) if isinstance(truth, SemanticSet) else _objects(prepared, truth)


def decisive_name(prepared: Prepared) -> str:
    """What the number is called by which the best weights are kept."""
    truth = prepared.validation or prepared.truth
    if isinstance(truth, SemanticSet):
        return "mean IoU"
    return "mask AP" if prepared.masks and truth.outlines.any else "AP"


def metric_name(key: str) -> str:
    """ "ap50" -> "AP50", "mask_ap" -> "mask AP", "miou" -> "mean IoU"."""
    words = {"miou": "mean IoU", "pixel_accuracy": "pixel accuracy", "mean_accuracy": "mean accuracy"}
    if key in words:
        return words[key]
    kind, _, rest = key.rpartition("_")
    return f"{kind} {rest.upper()}".strip()


def _objects(prepared: Prepared, truth: AnnotationSet) -> Validate:
    """COCO's numbers, of boxes and where there are such of masks."""
    from detseg import catalog
    from detseg.runtimes.live import LiveRuntime

    files, config = pictures_of(truth), prepared.config
    selection = Selection.for_measuring(catalog.usual_nms(config.model))

    def validate(model: Any) -> dict[str, float]:
        runtime = LiveRuntime(prepared.card, model)
        found = [
            outcome.found
            if outcome.found is not None
            else Detections((int(truth.image_hw[i, 0]), int(truth.image_hw[i, 1])))
            for i, outcome in enumerate(
                detect_files(files, runtime, selection, batch=config.batch, proposals=prepared.proposer)
            )
        ]
        metrics = evaluation.evaluate(truth, found)
        numbers = {"ap": metrics.ap, "ap50": metrics.ap50, "ap75": metrics.ap75, "ar": metrics.ar_max}
        if prepared.masks and truth.outlines.any:
            rows, outlines = evaluation.result_rows(truth, found), evaluation.result_outlines(truth, found)
            of_masks = evaluation.evaluate_rows(truth, rows, kind="segm", outlines=outlines)
            numbers |= {"mask_ap": of_masks.ap, "mask_ap50": of_masks.ap50, "mask_ap75": of_masks.ap75}
        return numbers

    return validate


def _maps(prepared: Prepared, truth: SemanticSet) -> Validate:
    """Of label maps; all pixels of a picture that cannot be read count as missed."""
    import numpy as np

    from detseg.runtimes.live import LiveRuntime

    files, config = pictures_of(truth), prepared.config

    def validate(model: Any) -> dict[str, float]:
        outcomes = segment_files(files, LiveRuntime(prepared.card, model), batch=config.batch)
        found = (
            np.full_like(truth.label_map(i), IGNORE) if outcome.found is None else outcome.found.labels
            for i, outcome in enumerate(outcomes)
        )
        metrics = evaluate_label_maps(truth, found)
        return {name: getattr(metrics, name) for name in ("miou", "pixel_accuracy", "mean_accuracy")}

    return validate
