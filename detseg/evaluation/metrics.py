"""`DetectionMetrics`: what an evaluation says, in COCO's words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["bbox", "segm", "boundary"]


@dataclass(frozen=True)
class ClassMetrics:
    """One class: `images` that show it, `objects` of it (without ignored ones), and how well it was found.

    `ap...` and `ar...` are means over the overlap thresholds 0.50:0.05:0.95, `ap50` and `ap75` at one, `..._small`,
    `..._medium`, `..._large` for objects of that size; -1 where there is no object to find.
    """

    name: str
    id: int
    images: int
    objects: int
    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar: float
    ar_small: float
    ar_medium: float
    ar_large: float


@dataclass(frozen=True)
class DetectionMetrics:
    """COCO's twelve numbers, and the classes one by one.

    Average precision (`ap...`) and recall (`ar...`) over classes and the overlap thresholds 0.50:0.05:0.95,
    or at 0.50 and 0.75; small, medium and large objects are those of less than 32², less than 96² and more
    square pixels. `ar_1` and `ar_10` allow that many detections per picture and class, all others `max_dets`.
    -1 where there is nothing to find, as COCO says it. `kind` tells what overlaps: boxes ("bbox"), masks
    ("segm"), or masks and their boundaries both ("boundary").
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar_1: float
    ar_10: float
    ar_max: float
    ar_small: float
    ar_medium: float
    ar_large: float
    max_dets: int
    images: int
    objects: int
    detections: int
    per_class: tuple[ClassMetrics, ...]
    kind: Kind = "bbox"

    def twelve(self) -> dict[str, float]:
        """COCO's numbers in COCO's order, by name."""
        return {name: getattr(self, name) for name in TWELVE}

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)


_PRECISIONS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
_RECALLS = ("ar_1", "ar_10", "ar_max", "ar_small", "ar_medium", "ar_large")
TWELVE = (*_PRECISIONS, *_RECALLS)
