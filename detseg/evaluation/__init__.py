"""How good are the detections: COCO's numbers, overall and per class. Torch-free."""

from detseg.evaluation.coco import evaluate, result_rows, results_json, truth_json
from detseg.evaluation.metrics import TWELVE, ClassMetrics, DetectionMetrics

__all__ = [
    "TWELVE",
    "ClassMetrics",
    "DetectionMetrics",
    "evaluate",
    "result_rows",
    "results_json",
    "truth_json",
]
