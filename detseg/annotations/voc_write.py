"""VOC trees written: XML files, lists, classes.txt, and the masks where objects have outlines."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
from numpy.typing import NDArray

from detseg import files
from detseg.annotations import not_kept
from detseg.annotations.dataset import AnnotationSet
from detseg.annotations.mask_files import voc_palette, write_mask
from detseg.annotations.not_kept import NotKept
from detseg.annotations.semantic import IGNORE
from detseg.errors import DataError
from detseg.geometry import rle as run_lengths

CORNERS = ("xmin", "ymin", "xmax", "ymax")
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2
_MOST = IGNORE - 1  # objects, or classes, that a mask of 8 bits tells apart


def write_voc(
    annotations: AnnotationSet, root: str | Path, split: str | None, *, outlines: bool = False
) -> list[NotKept]:
    """Writes an XML file for every picture, the split's list, classes.txt; no picture. Gives what was not kept.

    Boxes are rounded to VOC's whole pixels; crowd regions become difficult objects. With `outlines` pictures whose
    objects have some get masks in SegmentationClass and SegmentationObject, and the split a list of them; there
    smaller objects lie on larger ones, ignored ones below all. Raises DataError when two pictures would share one
    XML file.
    """
    root = Path(root)
    stems = [Path(name).stem for name in annotations.image_files]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise DataError(f"{root}: two pictures are called {twice}: a VOC tree names its files by the stem alone")
    masks = outlines and annotations.outlines.any and len(annotations.categories) <= _MOST
    losses = [_of_whole_set(annotations, masks)]
    segmented: list[str] = []
    for image, stem in enumerate(stems):
        if masks and annotations.outlines.has[annotations.rows(image)].any():
            losses.append(_write_masks(annotations, image, root, stem))
            segmented.append(stem)
        page = _page_text(annotations, image, segmented=segmented[-1:] == [stem])
        files.write_text(root / "Annotations" / f"{stem}.xml", page)
    if split is not None:
        files.write_text(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{stem}\n" for stem in stems))
    if masks:
        listed = "".join(f"{stem}\n" for stem in segmented)
        files.write_text(root / "ImageSets" / "Segmentation" / f"{split or 'trainval'}.txt", listed)
    names = [one_line(name) for name in annotations.categories.names]
    files.write_text(root / "classes.txt", "".join(f"{name}\n" for name in names))
    return not_kept.merge(losses)


def corners(boxes: NDArray[np.float64], hw: tuple[int, int]) -> NDArray[np.int64]:
    """(n, 4) xmin, ymin, xmax, ymax: edges at the nearest whole pixel, then x1 + 1, y1 + 1, x2, y2.

    A box that rounding would leave without a second pixel is widened by one: VOC's readers take a box whose corners
    are one pixel for a slip.
    """
    edges = np.rint(boxes).astype(np.int64)
    narrow = edges[:, 2:] - edges[:, :2] < 1
    low = np.where(narrow, np.floor(boxes[:, :2]).astype(np.int64), edges[:, :2])
    high = np.maximum(edges[:, 2:], low + 1)
    click = (high - low == 1).all(axis=1)
    high[click, 0] += 1
    limit = np.array([hw[1], hw[0]]) if min(hw) > 0 else high.max(axis=0, initial=1)
    over = np.maximum(high - limit, 0)
    return np.concatenate([np.maximum(low - over, 0) + 1, high - over], axis=1)


def one_line(name: str) -> str:
    """A class name as an XML file and a list of classes can both hold it."""
    return " ".join(_NOT_XML.sub("?", name).split())


def _of_whole_set(annotations: AnnotationSet, masks: bool) -> list[NotKept]:
    crowd = int(annotations.crowd.sum())
    ids = int((annotations.ids != np.arange(1, len(annotations.ids) + 1)).sum())
    images = int((annotations.image_ids != np.arange(1, len(annotations) + 1)).sum())
    in_order = np.array_equal(annotations.categories.ids, np.arange(1, len(annotations.categories) + 1))
    unsaid = 0 if masks else int(annotations.outlines.has.sum())
    hw = annotations.image_hw[annotations.image_index]
    written = [corners(annotations.boxes[r], _hw(annotations, i)) for i, r in enumerate(_rows(annotations))]
    moved = np.abs(np.concatenate([*written, np.zeros((0, 4))]) - (1, 1, 0, 0) - annotations.boxes).max(axis=1)
    renamed = sum(one_line(name) != name for name in annotations.categories.names)
    return [
        NotKept("crowd", crowd, "crowd regions become difficult objects: VOC knows no crowds"),
        NotKept(
            "rounding", int((moved > 0).sum()), "boxes are rounded to whole pixels", float(max(moved, default=0.0))
        ),
        NotKept("outlines", unsaid, "outlines are left out, their boxes are written"),
        NotKept("ids", ids, "annotation ids are not kept: VOC's files have none"),
        NotKept("image-ids", images, "picture ids are not kept: VOC's files have none"),
        NotKept("category-ids", 0 if in_order else len(annotations.categories), "category ids count from 1 now"),
        NotKept("names", renamed, "class names are changed: XML cannot hold them as they are"),
        NotKept("sizes", int((hw.min(axis=1) < 1).sum()), "objects are in pictures of unknown size"),
    ]


def _rows(annotations: AnnotationSet) -> list[slice]:
    return [annotations.rows(image) for image in range(len(annotations))]


def _hw(annotations: AnnotationSet, image: int) -> tuple[int, int]:
    return int(annotations.image_hw[image, 0]), int(annotations.image_hw[image, 1])


def _write_masks(annotations: AnnotationSet, image: int, root: Path, stem: str) -> list[NotKept]:
    hw = _hw(annotations, image)
    rows = annotations.rows(image)
    objects, classes = np.zeros(hw[0] * hw[1], np.uint8), np.zeros(hw[0] * hw[1], np.uint8)  # column by column
    areas, ignored = annotations.areas[rows], annotations.ignored[rows]
    whole: dict[int, int] = {}
    for place in np.lexsort((-areas, ~ignored)).tolist():
        row = rows.start + place
        if place >= _MOST or not annotations.outlines.has[row]:
            continue
        pixels = run_lengths.places(annotations.outlines.rle(row, hw))
        objects[pixels] = place + 1
        classes[pixels] = IGNORE if ignored[place] else int(annotations.labels[row]) + 1
        whole[place] = len(pixels)
    shown = np.bincount(objects, minlength=IGNORE)
    hidden = sum(shown[place + 1] < count for place, count in whole.items())
    bare = int(annotations.outlines.has[rows].sum()) - len(whole)
    palette = voc_palette()
    write_mask(root / "SegmentationObject" / f"{stem}.png", objects.reshape(hw[::-1]).T, palette)
    write_mask(root / "SegmentationClass" / f"{stem}.png", classes.reshape(hw[::-1]).T, palette)
    return [
        NotKept("hidden", hidden, "outlines lose the pixels that other objects cover: one object a pixel"),
        NotKept("outlines", bare, f"outlines are left out: a mask tells {_MOST} objects apart"),
    ]


def _page_text(annotations: AnnotationSet, image: int, *, segmented: bool) -> str:
    h, w = _hw(annotations, image)
    page = Element("annotation")
    _add_text(page, "folder", "JPEGImages")
    _add_text(page, "filename", Path(annotations.image_files[image]).name)
    size = SubElement(page, "size")
    for tag, value in (("width", w), ("height", h), ("depth", 3)):
        _add_text(size, tag, str(value))
    _add_text(page, "segmented", str(int(segmented)))
    rows = annotations.rows(image)
    pixels = corners(annotations.boxes[rows], (h, w)).tolist()
    for box, label, ignored in zip(pixels, annotations.labels[rows], annotations.ignored[rows], strict=True):
        element = SubElement(page, "object")
        _add_text(element, "name", one_line(annotations.categories.names[label]))
        for tag, text in (("pose", "Unspecified"), ("truncated", "0"), ("difficult", str(int(ignored)))):
            _add_text(element, tag, text)
        bounds = SubElement(element, "bndbox")
        for tag, value in zip(CORNERS, box, strict=True):
            _add_text(bounds, tag, str(value))
    indent(page, "\t")
    return tostring(page, "unicode") + "\n"


def _add_text(parent: Element, tag: str, text: str) -> None:
    SubElement(parent, tag).text = _NOT_XML.sub("?", text)
