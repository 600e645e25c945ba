"""What every model answers with: frozen, validated numpy containers."""

from detseg.results.detections import Detections

__all__ = ["Detections"]
