"""`Draft`: a data set while it is being read; in the end boxes are cut to their pictures, faults recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detseg.annotations.categories import Categories
from detseg.annotations.dataset import AnnotationSet, Fault
from detseg.geometry import boxes as box_geometry

# Boxes may stick out this far without a word: some tools count from 0 where VOC counts from 1, others round.
OUTSIDE_TOLERANCE = 1.0  # pixels


@dataclass
class Draft:
    """Pictures and annotations in the order in which a reader meets them, and what was wrong with them."""

    root: Path
    format: str
    faults: list[Fault] = field(default_factory=list)
    _pictures: list[tuple[str, int | None, tuple[int, int], str]] = field(default_factory=list)
    _index: list[int] = field(default_factory=list)
    _boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    _labels: list[int] = field(default_factory=list)
    _areas: list[float] = field(default_factory=list)
    _ids: list[int] = field(default_factory=list)
    _crowd: list[bool] = field(default_factory=list)
    _difficult: list[bool] = field(default_factory=list)

    def error(self, kind: str, file: str | Path, message: str, annotation: int | None = None) -> None:
        """Records something that made the reader leave out a picture or an annotation."""
        self.faults.append(Fault("error", kind, str(file), message, annotation))

    def warn(self, kind: str, file: str | Path, message: str, annotation: int | None = None) -> None:
        """Records something the reader could repair."""
        self.faults.append(Fault("warning", kind, str(file), message, annotation))

    def add_picture(self, file: str, hw: tuple[int, int], source: str | Path, id: int | None = None) -> int:
        """Adds a picture; `source` is the file that its annotations stand in. Returns its index."""
        self._pictures.append((file, id, hw, str(source)))
        return len(self._pictures) - 1

    def add_box(
        self,
        picture: int,
        box: tuple[float, float, float, float],
        label: int,
        id: int,
        *,
        area: float = float("nan"),
        crowd: bool = False,
        difficult: bool = False,
    ) -> int:
        """Adds an annotation, xyxy in pixels, as the file says it; area NaN is the box's. Returns its row."""
        self._index.append(picture)
        self._boxes.append(box)
        self._labels.append(label)
        self._ids.append(id)
        self._areas.append(area)
        self._crowd.append(crowd)
        self._difficult.append(difficult)
        return len(self._ids) - 1

    def is_row(self, row: int, picture: int, box: tuple[float, float, float, float], label: int) -> bool:
        """Is the annotation of this row the same object?"""
        return (self._index[row], self._boxes[row], self._labels[row]) == (picture, box, label)

    def finish(self, categories: Categories, *, ids_are_own: bool = False) -> AnnotationSet:
        """The set: boxes cut to their pictures, those with a side below 1 px left out, each with a fault.

        `ids_are_own`: the annotations' ids are the data set's; otherwise they are places in a file, good for
        naming faults only, and the set counts its annotations from 1.
        """
        index = np.asarray(self._index, np.int64)
        image_hw = np.asarray([p[2] for p in self._pictures], np.int32).reshape(-1, 2)
        given = np.asarray(self._boxes, np.float64).reshape(-1, 4)
        boxes = _clip_each(given, image_hw[index])
        dropped = box_geometry.is_degenerate(boxes)
        self._tell_of_boxes(index, given, boxes, dropped)
        keep = ~dropped
        areas = np.asarray(self._areas, np.float64)
        ids = [p[1] for p in self._pictures]
        return AnnotationSet.from_columns(
            root=self.root,
            format=self.format,
            categories=categories,
            image_files=[p[0] for p in self._pictures],
            image_hw=image_hw,
            image_ids=None if None in ids else ids,
            image_index=index[keep],
            boxes=boxes[keep],
            labels=np.asarray(self._labels, np.int64)[keep],
            areas=np.where(np.isnan(areas), box_geometry.area(boxes), areas)[keep],
            ids=np.asarray(self._ids, np.int64)[keep] if ids_are_own else None,
            crowd=np.asarray(self._crowd, np.bool_)[keep],
            difficult=np.asarray(self._difficult, np.bool_)[keep],
            faults=self.faults,
        )

    def _tell_of_boxes(
        self,
        index: NDArray[np.int64],
        given: NDArray[np.float64],
        clipped: NDArray[np.float64],
        dropped: NDArray[np.bool_],
    ) -> None:
        outside = (np.abs(given - clipped) > OUTSIDE_TOLERANCE).any(axis=1)
        for row in np.flatnonzero(outside | dropped):
            file, _, hw, source = self._pictures[index[row]]
            box = ", ".join(f"{v:.6g}" for v in given[row])
            what = f"box ({box}) of {file} ({hw[1]}x{hw[0]})"
            if dropped[row]:
                message = f"{what} is less than 1 pixel wide or high inside the picture; left out"
                self.warn("degenerate-box", source, message, self._ids[row])
            else:
                self.warn("box-outside", source, f"{what} reaches outside; cut to the picture", self._ids[row])


def _clip_each(boxes: NDArray[np.float64], hw: NDArray[np.int32]) -> NDArray[np.float64]:
    """(M, 4) boxes, (M, 2) sizes -> boxes cut each to its own picture; a size of 0 is unknown: no limit."""
    limit = np.where(hw > 0, hw, np.inf)[:, [1, 0, 1, 0]]
    return np.clip(boxes, 0, limit)
