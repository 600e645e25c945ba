"""How good are results: COCO's and VOC's numbers of boxes and masks, and those of label maps. Torch-free."""

from detseg.evaluation.coco import (
    evaluate,
    evaluate_rows,
    filled_outlines,
    result_outlines,
    result_rows,
    results_bytes,
    results_json,
    truth_bytes,
    truth_json,
    with_outlines,
)
from detseg.evaluation.metrics import TWELVE, ClassMetrics, DetectionMetrics, Kind
from detseg.evaluation.operating_point import OperatingPoint, operating_point
from detseg.evaluation.predictions import Predictions, read_predictions
from detseg.evaluation.voc import VocClass, VocMetrics, evaluate_voc

__all__ = [
    "TWELVE",
    "ClassMetrics",
    "DetectionMetrics",
    "Kind",
    "OperatingPoint",
    "Predictions",
    "VocClass",
    "VocMetrics",
    "evaluate",
    "evaluate_rows",
    "evaluate_voc",
    "filled_outlines",
    "operating_point",
    "read_predictions",
    "result_outlines",
    "result_rows",
    "results_bytes",
    "results_json",
    "truth_bytes",
    "truth_json",
    "with_outlines",
]
