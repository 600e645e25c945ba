"""What is in a data set, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.annotations.dataset import AnnotationSet, Fault

SIZE_LIMITS = {"small": 32**2, "medium": 96**2}  # square pixels, COCO's; what is larger is large


@dataclass(frozen=True)
class ClassSummary:
    """A class: its id and name, its objects and the pictures they are in, and how many more are ignored."""

    id: int
    name: str
    objects: int
    images: int
    ignored: int


@dataclass(frozen=True)
class FaultSummary:
    """A kind of fault: how many there are, and the first in words."""

    kind: str
    severity: str
    count: int
    first: str


@dataclass(frozen=True)
class Summary:
    """A data set in numbers.

    `objects` are those that count, `ignored` the crowd and difficult ones. `image_sizes` are (h, w, pictures)
    of the most frequent sizes, `shortest_side` and `longest_side` of all pictures; `box_sizes` counts the
    objects by COCO's limits of area: small < 32^2 <= medium < 96^2 <= large.
    """

    format: str
    root: str
    fingerprint: str
    images: int
    images_without_objects: int
    objects: int
    ignored: int
    classes: tuple[ClassSummary, ...]
    distinct_image_sizes: int
    image_sizes: tuple[tuple[int, int, int], ...]
    shortest_side: int
    longest_side: int
    box_sizes: dict[str, int]
    faults: tuple[FaultSummary, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return asdict(self)


def summarise(annotations: AnnotationSet, most_frequent: int = 5) -> Summary:
    """Counts what is in a set."""
    counted = ~annotations.ignored
    sizes = Counter((h, w) for h, w in annotations.image_hw.tolist())
    sides = annotations.image_hw[(annotations.image_hw > 0).all(axis=1)]
    with_objects = np.unique(annotations.image_index[counted])
    return Summary(
        format=annotations.format,
        root=str(annotations.root),
        fingerprint=annotations.fingerprint(),
        images=len(annotations),
        images_without_objects=len(annotations) - len(with_objects),
        objects=int(counted.sum()),
        ignored=int((~counted).sum()),
        classes=_classes(annotations, counted),
        distinct_image_sizes=len(sizes),
        image_sizes=tuple((h, w, n) for (h, w), n in sizes.most_common(most_frequent)),
        shortest_side=int(sides.min()) if len(sides) else 0,
        longest_side=int(sides.max()) if len(sides) else 0,
        box_sizes=_box_sizes(annotations.areas[counted]),
        faults=_faults(annotations.faults),
    )


def _classes(annotations: AnnotationSet, counted: NDArray[np.bool_]) -> tuple[ClassSummary, ...]:
    k = len(annotations.categories)
    objects = np.bincount(annotations.labels[counted], minlength=k)
    ignored = np.bincount(annotations.labels[~counted], minlength=k)
    seen = np.stack([annotations.image_index[counted], annotations.labels[counted]], axis=1)
    images = np.bincount(np.unique(seen, axis=0)[:, 1], minlength=k)
    rows = zip(annotations.categories.ids, annotations.categories.names, objects, images, ignored, strict=True)
    return tuple(ClassSummary(id_, name, int(o), int(i), int(g)) for id_, name, o, i, g in rows)


def _box_sizes(areas: NDArray[np.float64]) -> dict[str, int]:
    counts = np.bincount(np.digitize(areas, list(SIZE_LIMITS.values())), minlength=3)
    return dict(zip((*SIZE_LIMITS, "large"), counts.tolist(), strict=True))


def _faults(faults: tuple[Fault, ...]) -> tuple[FaultSummary, ...]:
    """By kind, errors first, the most frequent first."""
    kinds = Counter((f.severity, f.kind) for f in faults)
    order = sorted(kinds, key=lambda key: (key[0] != "error", -kinds[key], key[1]))
    first = {(f.severity, f.kind): f for f in reversed(faults)}
    return tuple(
        FaultSummary(kind, severity, kinds[severity, kind], str(first[severity, kind])) for severity, kind in order
    )
