"""What is in a data set, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.annotations.dataset import AnnotationSet, Fault

SIZE_LIMITS = {"small": 32**2, "medium": 96**2}  # square pixels, COCO's; what is larger is large


QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class ClassSummary:
    """A class: its id and name, its objects and the pictures they are in, and how many more are ignored.

    `sizes` counts its objects by COCO's limits of area; `median_wh` and `median_aspect` (width / height) are of its
    boxes, 0 where it has none.
    """

    id: int
    name: str
    objects: int
    images: int
    ignored: int
    sizes: dict[str, int]
    median_wh: tuple[float, float]
    median_aspect: float


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
    objects by COCO's limits of area: small < 32^2 <= medium < 96^2 <= large. `outlined`: objects with an outline.
    `quantiles` (see QUANTILES) of the objects' width, height, aspect (width / height) and scale, the root of the
    share of the picture that the box covers. `objects_per_image`: mean, median and max. `together` (K, K): pictures
    in which both classes are; on the diagonal those in which the class is.
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
    outlined: int
    quantiles: dict[str, tuple[float, ...]]
    objects_per_image: dict[str, float]
    together: tuple[tuple[int, ...], ...]

    def pairs(self, most: int) -> list[tuple[str, str, int]]:
        """The classes that are most often in one picture: (name, name, pictures)."""
        names = [c.name for c in self.classes]
        upper = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
        counts = [(names[i], names[j], self.together[i][j]) for i, j in upper if self.together[i][j]]
        return sorted(counts, key=lambda pair: -pair[2])[:most]

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
        outlined=int((annotations.outlines.has & counted).sum()),
        quantiles=_quantiles(annotations, counted),
        objects_per_image=_per_image(annotations, counted),
        together=tuple(tuple(row) for row in _together(annotations, counted).tolist()),
    )


def _classes(annotations: AnnotationSet, counted: NDArray[np.bool_]) -> tuple[ClassSummary, ...]:
    k = len(annotations.categories)
    ignored = np.bincount(annotations.labels[~counted], minlength=k)
    images = _together(annotations, counted).diagonal()
    wh, labels = _wh(annotations)[counted], annotations.labels[counted]
    areas = annotations.areas[counted]
    rows = []
    for label, (id_, name) in enumerate(zip(annotations.categories.ids, annotations.categories.names, strict=True)):
        mine = labels == label
        w, h = np.median(wh[mine], axis=0).tolist() if mine.any() else (0.0, 0.0)
        aspect = float(np.median(wh[mine, 0] / wh[mine, 1])) if mine.any() else 0.0
        sizes = _box_sizes(areas[mine])
        rows.append(
            ClassSummary(id_, name, int(mine.sum()), int(images[label]), int(ignored[label]), sizes, (w, h), aspect)
        )
    return tuple(rows)


def _wh(annotations: AnnotationSet) -> NDArray[np.float64]:
    """(M, 2) widths and heights."""
    return annotations.boxes[:, 2:] - annotations.boxes[:, :2]


def _together(annotations: AnnotationSet, counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(K, K) pictures in which both classes are."""
    k = len(annotations.categories)
    seen = np.unique(np.stack([annotations.image_index[counted], annotations.labels[counted]], axis=1), axis=0)
    matrix = np.zeros((k, k), np.int64)
    counts = np.bincount(seen[:, 0], minlength=len(annotations)) if len(seen) else np.zeros(0, np.int64)
    for start, count in zip(np.cumsum(counts) - counts, counts, strict=True):
        here = seen[start : start + count, 1]
        matrix[np.ix_(here, here)] += 1
    return matrix


def _quantiles(annotations: AnnotationSet, counted: NDArray[np.bool_]) -> dict[str, tuple[float, ...]]:
    wh = _wh(annotations)[counted]
    hw = annotations.image_hw[annotations.image_index][counted].astype(np.float64)
    known = (hw > 0).all(axis=1)
    scale = np.sqrt(wh[known].prod(axis=1) / hw[known].prod(axis=1))
    columns = {"width": wh[:, 0], "height": wh[:, 1], "aspect": wh[:, 0] / wh[:, 1], "scale": scale}
    return {name: tuple(np.quantile(v, QUANTILES).tolist()) if len(v) else () for name, v in columns.items()}


def _per_image(annotations: AnnotationSet, counted: NDArray[np.bool_]) -> dict[str, float]:
    counts = np.bincount(annotations.image_index[counted], minlength=len(annotations))
    if not len(counts):
        return {"mean": 0.0, "median": 0.0, "max": 0.0}
    return {"mean": float(counts.mean()), "median": float(np.median(counts)), "max": float(counts.max())}


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
