"""Reports: one HTML file each, with its pictures inside, that loads nothing from anywhere. Torch-free."""

from detseg.reports.detections import Evaluated, detection_report
from detseg.reports.label_maps import EvaluatedMaps, label_map_report
from detseg.reports.pictures import MAX_BYTES

__all__ = ["MAX_BYTES", "Evaluated", "EvaluatedMaps", "detection_report", "label_map_report"]
