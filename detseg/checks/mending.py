"""The objects of one part mended: frames of boxes, objects given twice, outlines, areas. Every change is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from detseg.annotations import AnnotationSet
from detseg.annotations.outlines import Outlines, Segmentation, rle_of, text_of
from detseg.checks import outline_repair
from detseg.checks.objects import duplicates, faults_of_outline, outlined, too_large
from detseg.checks.survey import PictureFacts
from detseg.geometry import boxes as box_geometry

Told = Callable[[str, Path | str, str, int | None], None]  # kind, file, what was done, annotation


@dataclass
class _Table:
    """The columns of a set that are being changed. `texts`: outlines as JSON."""

    hw: NDArray[np.int32]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    texts: list[bytes]

    @classmethod
    def of(cls, truth: AnnotationSet) -> _Table:
        return cls(truth.image_hw.copy(), truth.boxes.copy(), truth.areas.copy(), list(truth.outlines.texts()))

    def into(self, truth: AnnotationSet) -> AnnotationSet:
        """The set with these columns."""
        return replace(
            truth, image_hw=self.hw, boxes=self.boxes, areas=self.areas, outlines=Outlines.of_texts(self.texts)
        )


def mended(truth: AnnotationSet, facts: Mapping[Path, PictureFacts], told: Told) -> AnnotationSet:
    """The part with everything repaired that can be. Pictures that cannot be read must be gone already."""
    framed = _in_their_frames(truth, facts, told)
    joined = _one_entry_a_picture(framed, told)
    single = _without_duplicates(joined, told)
    return _whole_boxes(_with_good_outlines(single, told), told)


def without_rows(truth: AnnotationSet, gone: Sequence[int]) -> AnnotationSet:
    """The set without some annotations."""
    keep = np.ones(len(truth.boxes), np.bool_)
    keep[list(gone)] = False
    return _rows(truth, np.flatnonzero(keep), truth.image_index[keep])


def _rows(truth: AnnotationSet, rows: NDArray[np.int64], image_index: NDArray[np.int64]) -> AnnotationSet:
    """The annotations `rows`, each in the picture that `image_index` says."""
    names = ("boxes", "labels", "areas", "ids", "crowd", "difficult", "outlines")
    columns: dict[str, Any] = {name: getattr(truth, name)[rows] for name in names}
    return AnnotationSet.from_columns(
        root=truth.root,
        format=truth.format,
        categories=truth.categories,
        image_files=truth.image_files,
        image_hw=truth.image_hw,
        image_ids=truth.image_ids,
        image_index=image_index,
        faults=truth.faults,
        **columns,
    )


# ---- frames ----


def _in_their_frames(truth: AnnotationSet, facts: Mapping[Path, PictureFacts], told: Told) -> AnnotationSet:
    """Sizes are those of the files. Boxes lie in the frame of the size that was said: they are turned or scaled."""
    table = _Table.of(truth)
    for image in range(len(truth)):
        path = truth.image_path(image)
        fact, (h, w) = facts[path], truth.image_hw[image].tolist()
        if min(h, w) < 1 or fact.hw == (h, w):
            table.hw[image] = fact.hw
            continue
        table.hw[image] = fact.hw
        rows = truth.rows(image)
        if fact.turned and fact.hw == (w, h):
            table.boxes[rows] = outline_repair.turned_boxes(truth.boxes[rows], (h, w), fact.orientation)
            told("exif", path, f"turned the boxes from {w}x{h} to {h}x{w}", None)
        else:
            table.boxes[rows] = truth.boxes[rows] * np.tile([fact.hw[1] / w, fact.hw[0] / h], 2)
            said, real = f"{w}x{h}", f"{fact.hw[1]}x{fact.hw[0]}"
            told("size-mismatch", path, f"scaled the boxes from {said} to {real}: look whether they fit", None)
        _move_outlines(truth, table, image, fact)
        table.areas[rows] = truth.areas[rows] * (fact.hw[0] * fact.hw[1] / (h * w))
    return table.into(truth)


def _move_outlines(truth: AnnotationSet, table: _Table, image: int, fact: PictureFacts) -> None:
    h, w = truth.image_hw[image].tolist()
    rows = truth.rows(image)
    for row in range(rows.start, rows.stop):
        outline = truth.outlines.segmentation(row)
        if outline is None:
            continue
        if fact.turned and fact.hw == (w, h):
            moved = outline_repair.turned(outline, (h, w), fact.orientation)
        else:
            moved = outline_repair.scaled(outline, (h, w), fact.hw)
        table.texts[row] = text_of(moved)


# ---- repetitions ----


def _one_entry_a_picture(truth: AnnotationSet, told: Told) -> AnnotationSet:
    """Objects of further entries of a picture go to its first; those entries vanish."""
    first: dict[Path, int] = {}
    home = [first.setdefault(truth.image_path(i), i) for i in range(len(truth))]
    if len(first) == len(truth):
        return truth
    for i, kept in enumerate(home):
        if kept != i:
            message = f"joined picture {truth.image_ids[i]} with {truth.image_ids[kept]}"
            told("duplicate-file-name", truth.image_path(i), message, None)
    moved = _rows(truth, np.arange(len(truth.boxes)), np.array(home, np.int64)[truth.image_index])
    return moved.subset(sorted(first.values()))


def _without_duplicates(truth: AnnotationSet, told: Told) -> AnnotationSet:
    gone = sorted({second for _, second in duplicates(truth)})
    for row in gone:
        name = truth.categories.names[truth.labels[row]]
        told("duplicate-annotation", _place(truth, row), f"left out a {name!r} that is given twice", _id(truth, row))
    return without_rows(truth, gone) if gone else truth


# ---- outlines and areas ----


def _with_good_outlines(truth: AnnotationSet, told: Told) -> AnnotationSet:
    table = _Table.of(truth)
    changed = False
    for row in np.flatnonzero(truth.outlines.has).tolist():
        thing = outlined(truth, row)
        kinds = [kind for kind, _ in faults_of_outline(thing)]
        if not kinds or min(thing.hw) < 1:
            continue
        outline: Segmentation | None = thing.outline
        if "outline-outside" in kinds and isinstance(outline, list):
            outline = outline_repair.cut(outline, thing.hw) or None
            told("outline-outside", _place(truth, row), "cut the outline to the picture", _id(truth, row))
        if "bad-outline" in kinds or outline is None or coco_mask.area(rle_of(outline, thing.hw)) == 0:
            outline = None
            told("bad-outline", _place(truth, row), "left out the outline, kept the box", _id(truth, row))
        if outline is not None and "crowd-polygon" in kinds:
            outline = rle_of(outline, thing.hw)
            told("crowd-polygon", _place(truth, row), "wrote the polygons as run lengths", _id(truth, row))
        table.texts[row] = text_of(outline)
        area = _area(outline, thing.hw, truth.boxes[row])
        if "area" in kinds:
            told("area", _place(truth, row), f"area {truth.areas[row]:.6g} becomes {area:.6g}", _id(truth, row))
        if "area" in kinds or outline is None or "outline-outside" in kinds:
            table.areas[row] = area
        changed = True
    return table.into(truth) if changed else truth


def _area(outline: Segmentation | None, hw: tuple[int, int], box: NDArray[np.float64]) -> float:
    if outline is None:
        return float((box[2:] - box[:2]).prod())
    return float(coco_mask.area(rle_of(outline, hw)))


def _whole_boxes(truth: AnnotationSet, told: Told) -> AnnotationSet:
    """Boxes cut to their pictures, those without area left out, areas no larger than their box."""
    table = _Table.of(truth)
    hw = truth.image_hw[truth.image_index]
    limit = np.where(hw > 0, hw, np.inf)[:, [1, 0, 1, 0]]
    table.boxes = np.clip(table.boxes, 0, limit)
    for row in np.flatnonzero(too_large(truth)).tolist():
        table.areas[row] = _area(None, (0, 0), table.boxes[row])
        told("area", _place(truth, row), f"area {truth.areas[row]:.6g} becomes that of the box", _id(truth, row))
    cut = table.into(truth)
    gone = np.flatnonzero(box_geometry.is_degenerate(cut.boxes)).tolist()
    for row in gone:
        told("degenerate-box", _place(truth, row), "left out a box that has no area now", _id(truth, row))
    return without_rows(cut, gone) if gone else cut


def _place(truth: AnnotationSet, row: int) -> Path:
    return truth.image_path(int(np.searchsorted(truth.starts, row, side="right")) - 1)


def _id(truth: AnnotationSet, row: int) -> int | None:
    return int(truth.ids[row]) if truth.format == "coco" else None
