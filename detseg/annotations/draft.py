"""`Draft`: a data set while it is being read; in the end boxes are cut to their pictures, faults recorded."""

from __future__ import annotations

import math
from array import array
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from detseg.annotations.categories import Categories
from detseg.annotations.dataset import AnnotationSet, Fault
from detseg.annotations.outlines import Outlines, Segmentation, check, text_of
from detseg.geometry import boxes as box_geometry

Box = tuple[float, float, float, float]

# Boxes may stick out this far without a word: some tools count from 0 where VOC counts from 1, others round.
OUTSIDE_TOLERANCE = 1.0  # pixels


class Rows(NamedTuple):
    """Annotations as columns, see `AnnotationSet`."""

    pictures: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    ids: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    outlines: Outlines

    def take(self, order: NDArray[Any]) -> Rows:
        """The rows at some places (indices or a mask)."""
        columns: list[Any] = [column[order] for column in self]
        return Rows(*columns)


class Draft:
    """Pictures and annotations in the order in which a reader meets them, and what was wrong with them.

    Annotations go into arrays at once: large files are read without an object for each.
    """

    def __init__(self, root: Path, format: str) -> None:
        self.root = root
        self.format = format
        self.faults: list[Fault] = []
        self._pictures: list[tuple[str, int | None, tuple[int, int], str]] = []
        self._index = array("q")
        self._boxes = array("d")  # four a row
        self._labels = array("q")
        self._areas = array("d")
        self._ids = array("q")
        self._crowd = array("b")
        self._difficult = array("b")
        self._outlines: list[Outlines] = []
        self._texts: list[bytes] = []  # of the rows since the last of `_outlines`

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

    def picture_hw(self, picture: int) -> tuple[int, int]:
        """The size of a picture that was added; 0 where it is unknown."""
        return self._pictures[picture][2]

    def add_box(
        self,
        picture: int,
        box: Box,
        label: int,
        id: int,
        *,
        area: float = math.nan,
        crowd: bool = False,
        difficult: bool = False,
        segmentation: Segmentation | None = None,
    ) -> int:
        """Adds an annotation, xyxy in pixels, as the file says it; area NaN is the mask's or box's. Returns its row.

        A `segmentation` that cannot be drawn in its picture is left out, with a fault.
        """
        self._index.append(picture)
        self._boxes.extend(box)
        self._labels.append(label)
        self._ids.append(id)
        self._areas.append(area)
        self._crowd.append(crowd)
        self._difficult.append(difficult)
        self._texts.append(b"" if segmentation is None else self._checked_text(picture, id, segmentation))
        return len(self._ids) - 1

    def add_rows(self, rows: Rows) -> None:
        """Adds many annotations at once, outlines unchecked."""
        targets: tuple[array[Any], ...] = (self._index, self._boxes, self._labels, self._areas, self._ids)
        targets += (self._crowd, self._difficult)
        columns = (rows.pictures, rows.boxes, rows.labels, rows.areas, rows.ids, rows.crowd, rows.difficult)
        for target, values in zip(targets, columns, strict=True):
            target.frombytes(np.ascontiguousarray(values, np.dtype(target.typecode)).tobytes())
        self._close_texts()
        self._outlines.append(rows.outlines)

    def is_row(self, row: int, picture: int, box: Box, label: int) -> bool:
        """Is the annotation of this row the same object?"""
        mine = tuple(self._boxes[4 * row : 4 * row + 4])
        return (self._index[row], mine, self._labels[row]) == (picture, box, label)

    def _checked_text(self, picture: int, id: int, segmentation: Segmentation) -> bytes:
        file, _, hw, source = self._pictures[picture]
        try:
            check(segmentation, hw if min(hw) > 0 else None)
            return text_of(segmentation)
        except (ValueError, TypeError) as error:
            self.error("bad-outline", source, f"{error} ({file}); its outline is left out, the box is kept", id)
            return b""

    def finish(self, categories: Categories, *, ids_are_own: bool = False) -> AnnotationSet:
        """The set: boxes cut to their pictures, those with a side below 1 px left out, each with a fault.

        `ids_are_own`: the annotations' ids are the data set's; otherwise they are places in a file, good for
        naming faults only, and the set counts its annotations from 1.
        """
        index = _array(self._index)
        image_hw = np.asarray([p[2] for p in self._pictures], np.int32).reshape(-1, 2)
        given = _array(self._boxes).reshape(-1, 4)
        boxes = _clip_each(given, image_hw[index])
        dropped = box_geometry.is_degenerate(boxes)
        self._tell_of_boxes(index, given, boxes, dropped)
        keep = ~dropped
        self._close_texts()
        outlines = Outlines.concatenate(self._outlines)[keep]
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
            labels=_array(self._labels)[keep],
            areas=_areas(_array(self._areas)[keep], boxes[keep], outlines, image_hw[index[keep]]),
            ids=_array(self._ids)[keep] if ids_are_own else None,
            crowd=_array(self._crowd)[keep],
            difficult=_array(self._difficult)[keep],
            outlines=outlines,
            faults=self.faults,
        )

    def _close_texts(self) -> None:
        """Makes a column of the outlines that came one by one."""
        self._outlines.append(Outlines.of_texts(self._texts))
        self._texts = []

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


def _array(column: array[Any]) -> NDArray[Any]:
    return np.array(column)  # a copy: the draft may go on growing


def _areas(
    given: NDArray[np.float64], boxes: NDArray[np.float64], outlines: Outlines, hw: NDArray[np.int32]
) -> NDArray[np.float64]:
    """What the file says; else the mask's; else the box's."""
    areas = np.where(np.isnan(given), box_geometry.area(boxes), given)
    for row in np.flatnonzero(np.isnan(given) & outlines.has & (hw.min(axis=1) > 0)).tolist():
        areas[row] = float(coco_mask.area(outlines.rle(row, tuple(hw[row].tolist()))))
    return areas


def _clip_each(boxes: NDArray[np.float64], hw: NDArray[np.int32]) -> NDArray[np.float64]:
    """(M, 4) boxes, (M, 2) sizes -> boxes cut each to its own picture; a size of 0 is unknown: no limit."""
    limit = np.where(hw > 0, hw, np.inf)[:, [1, 0, 1, 0]]
    return np.clip(boxes, 0, limit)
