"""What every model answers with: frozen, validated numpy containers. Torch-free."""

from detseg.results.detections import Detections
from detseg.results.label_map import LabelMap
from detseg.results.masks import Masks
from detseg.results.raw import RawDetections

__all__ = ["Detections", "LabelMap", "Masks", "RawDetections"]
