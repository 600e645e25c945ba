"""`RawDetections`: what a network says before anything is selected, for a whole batch."""

from __future__ import annotations

from typing import Any, NamedTuple


class RawDetections(NamedTuple):
    """Candidate boxes in the network's frame and a score per class; arrays, or tensors inside a torch model.

    boxes (N, A, 4) xyxy, or (N, A, K, 4) where each class has a box of its own; scores (N, A, K) in [0, 1].
    N pictures, A candidates (a network that finds fewer pads with score 0), K classes. `masks`, of a network that
    outlines its objects, (N, A, M, M): how sure it is of each part of a candidate's box, in [0, 1].
    `postprocess.select` turns one picture's candidates into detections.
    """

    boxes: Any
    scores: Any
    masks: Any = None
