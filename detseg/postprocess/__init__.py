"""From the network's frame to the picture's: select, then restore. Torch-free."""

from detseg.postprocess.restore import restore
from detseg.postprocess.select import Selection, select

__all__ = ["Selection", "restore", "select"]
