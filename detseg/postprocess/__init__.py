"""From the network's frame to the picture's: select, merge views, then restore. Torch-free."""

from detseg.postprocess.restore import restore
from detseg.postprocess.select import Selection, select
from detseg.postprocess.views import View, Views

__all__ = ["Selection", "View", "Views", "restore", "select"]
