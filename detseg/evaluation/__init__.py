"""How good are the detections: COCO's numbers, overall and per class. Torch-free."""

from detseg.evaluation.classes import ClassMatch
from detseg.evaluation.coco import evaluate, evaluate_rows, result_rows, results_json, truth_json
from detseg.evaluation.metrics import TWELVE, ClassMetrics, DetectionMetrics
from detseg.evaluation.predictions import Predictions, read_predictions

__all__ = [
    "TWELVE",
    "ClassMatch",
    "ClassMetrics",
    "DetectionMetrics",
    "Predictions",
    "evaluate",
    "evaluate_rows",
    "read_predictions",
    "result_rows",
    "results_json",
    "truth_json",
]
