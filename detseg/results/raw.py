"""`RawDetections`: what a network says before anything is selected, for a whole batch."""

from __future__ import annotations

from typing import Any, NamedTuple


class RawDetections(NamedTuple):
    """Candidate boxes in the network's frame and a score per class; arrays, or tensors inside a torch model.

    boxes (N, A, 4) xyxy; scores (N, A, K) in [0, 1]. N pictures, A candidates (a network that finds fewer pads with
    score 0), K classes. `postprocess.select` turns one picture's candidates into detections.
    """

    boxes: Any
    scores: Any
