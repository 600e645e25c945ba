"""YOLO's label files: a line an object, everything in parts of the picture's width and height.

`class cx cy w h` is a box; more values are an outline, `class x1 y1 x2 y2 x3 y3 ...`, one ring. Several rings of an
object are joined by bridges that are gone over twice (see `rings`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detseg import files
from detseg.annotations import not_kept
from detseg.annotations.dataset import AnnotationSet
from detseg.annotations.draft import Draft
from detseg.annotations.not_kept import NotKept
from detseg.annotations.rings import losses_of, one_ring
from detseg.errors import DataError
from detseg.geometry.boxes import xyxy_to_cxcywh

Box = tuple[float, float, float, float]

_WORST = 0.1  # a value this far outside 0..1 was not meant as a part of the picture; it is in pixels, perhaps
_DIGITS = ".9g"  # a millionth of a pixel in a picture of 1,000


class Line(NamedTuple):
    """A usable line of a label file; `ring` x1, y1, x2, y2, ... is empty for a box."""

    number: int  # counted from 1
    class_id: int
    box: Box  # xyxy in parts of the picture
    ring: Sequence[float]


def label_file(picture: str) -> str:
    """YOLO's rule: the last folder `images` of the path becomes `labels`, the ending `.txt`."""
    parts = Path(picture).with_suffix(".txt").parts
    places = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if not places:
        return str(Path(*parts))
    return str(Path(*parts[: places[-1]], "labels", *parts[places[-1] + 1 :]))


def read_labels(file: Path, draft: Draft) -> list[Line] | None:
    """The usable lines of a label file, the others told as faults; None where there is no such file."""
    try:
        text = file.read_bytes().decode("utf-8-sig", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        draft.error("unreadable-labels", file, f"cannot be read: {error.strerror}; no object of it is used")
        return []
    lines: list[Line] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            lines.append(Line(number, *_parse(words)))
        except ValueError as error:
            draft.error("bad-line", file, f"line {number}: {error}; left out", number)
    return lines


def _parse(words: Sequence[str]) -> tuple[int, Box, Sequence[float]]:
    try:
        class_id, values = float(words[0]), [float(word) for word in words[1:]]
    except ValueError:
        raise ValueError("something in it is not a number") from None
    if not (class_id.is_integer() and 0 <= class_id < 2**31):
        raise ValueError(f"class {words[0][:20]!r} is not a number counted from 0")
    if not all(map(math.isfinite, values)):
        raise ValueError("something in it is not a usable number")
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise ValueError(f"{len(words)} values, where 5 make a box and 7, 9, 11, ... an outline")
    if not (min(values) >= -_WORST and max(values) <= 1 + _WORST):
        raise ValueError("values far outside 0..1; are they pixels?")
    if len(values) == 4:
        cx, cy, w, h = values
        return int(class_id), (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), ()
    xs, ys = values[0::2], values[1::2]
    return int(class_id), (min(xs), min(ys), max(xs), max(ys)), values


def write_yolo(annotations: AnnotationSet, root: str | Path, *, outlines: bool = True) -> list[NotKept]:
    """Writes a label file under `root` for every picture, by YOLO's rule, but no picture; gives what was not kept.

    An object with an outline is written as one, unless `outlines` is False. YOLO's files cannot say "ignored":
    such objects are left out. Class numbers are the category ids. Raises DataError for a picture of unknown size
    or a negative id.
    """
    if min(annotations.categories.ids, default=0) < 0:
        raise DataError(f"{root}: category id {min(annotations.categories.ids)} cannot be a YOLO class: it is negative")
    with_outlines = outlines and annotations.outlines.any
    losses = [_of_whole_set(annotations, outlines)]
    for image, name in enumerate(annotations.image_files):
        h, w = annotations.image_hw[image].tolist()
        if min(h, w) < 1:
            raise DataError(f"{name}: its size is unknown, so its boxes cannot be written in parts of it")
        rows = np.arange(annotations.starts[image], annotations.starts[image + 1])
        lines, lost = _lines(annotations, rows[~annotations.ignored[rows]], (h, w), with_outlines)
        losses.append(lost)
        target = label_file(name) if "images" in Path(name).parts[:-1] else str(Path("labels", label_file(name)))
        files.write_text(Path(root) / target, "".join(line + "\n" for line in lines))
    return not_kept.merge(losses)


def _of_whole_set(annotations: AnnotationSet, outlines: bool) -> list[NotKept]:
    written = ~annotations.ignored
    ids = annotations.ids[written]
    renumbered = int((ids != np.arange(1, len(ids) + 1)).sum())
    images = int((annotations.image_ids != np.arange(1, len(annotations) + 1)).sum())
    crowd, difficult = int(annotations.crowd.sum()), int((annotations.difficult & ~annotations.crowd).sum())
    unsaid = 0 if outlines else int((annotations.outlines.has & written).sum())
    return [
        NotKept("crowd", crowd, "crowd regions are left out: YOLO's files cannot say 'ignored'"),
        NotKept("difficult", difficult, "difficult objects are left out: YOLO's files cannot say 'ignored'"),
        NotKept("outlines", unsaid, "outlines are left out, their boxes are written"),
        NotKept("ids", renumbered, "annotation ids are not kept: YOLO's files have none"),
        NotKept("image-ids", images, "picture ids are not kept: YOLO's files have none"),
    ]


def _lines(
    annotations: AnnotationSet, rows: NDArray[np.int64], hw: tuple[int, int], with_outlines: bool
) -> tuple[list[str], list[NotKept]]:
    scale = np.array([hw[1], hw[0]], np.float64)
    boxes = xyxy_to_cxcywh(annotations.boxes[rows]) / (*scale, *scale)
    losses: list[NotKept] = []
    lines: list[str] = []
    for row, box in zip(rows.tolist(), boxes.tolist(), strict=True):
        values = box
        outline = annotations.outlines.segmentation(row) if with_outlines else None
        if outline is not None:
            ring = np.clip(one_ring(outline, hw), 0, scale)
            losses += losses_of(ring, annotations.boxes[row], outline)
            values = (ring / scale).ravel().tolist() if len(ring) >= 3 else box
        elif with_outlines:
            losses.append(
                NotKept("mixed", 1, "objects have no outline and are boxes among outlines; some trainers misread such")
            )
        class_id = annotations.categories.ids[int(annotations.labels[row])]
        lines.append(f"{class_id} " + " ".join(f"{value:{_DIGITS}}" for value in values))
    return lines, losses
