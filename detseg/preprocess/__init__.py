"""From a picture to the network's frame, and the way back. Torch-free."""

from detseg.preprocess.placement import Placement
from detseg.preprocess.recipe import Preprocess

__all__ = ["Placement", "Preprocess"]
