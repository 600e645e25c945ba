"""The masks of VOC trees: SegmentationClass, a class for every pixel; SegmentationObject, an object for every pixel.

In both 0 is background and 255 void, which does not count. The classes' numbers are places in the tree's list of
classes (classes.txt, labelmap.txt), from 1; without a list those of PASCAL VOC's twenty classes, where all names of
the tree are of them, else the names sorted. The objects' numbers are matched with the XML's objects by their boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.annotations import voc
from detseg.annotations.class_files import PixelClass, find_class_file, read_classes
from detseg.annotations.dataset import Fault
from detseg.annotations.draft import Draft
from detseg.annotations.mask_files import MaskFiles, read_pixels
from detseg.annotations.masks import meaning_of
from detseg.annotations.object_masks import BACKGROUND_NAMES, objects_in
from detseg.annotations.pictures import header_hw
from detseg.annotations.semantic import IGNORE, SemanticSet
from detseg.annotations.split_names import choose_split
from detseg.errors import DataError
from detseg.geometry.boxes import iou

VOC_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
CLASS_MAPS = ("SegmentationClass", "SegmentationClassAug", "SegmentationClassPNG")
OBJECT_MAPS = "SegmentationObject"
_BESIDE = 2.0  # pixels by which a mask may stick out of its object's box
_SAME = 0.5  # IoU from which a mask's box and an object's are one


def has_label_maps(root: Path) -> bool:
    """Are there masks of classes in the tree?"""
    return _folder(root) is not None


def _folder(root: Path) -> Path | None:
    return next((root / name for name in CLASS_MAPS if any((root / name).glob("*.png"))), None)


def load_label_maps(root: Path, split: str | None = None) -> SemanticSet:
    """The pictures of a VOC tree that have a mask of classes; of one list, where a split is named.

    Lists of ImageSets/Segmentation come before those of Main. Raises DataError when nothing can be used.
    """
    folder = _folder(root)
    if folder is None:
        raise DataError(f"{root}: no masks of classes in {CLASS_MAPS[0]}")
    faults: list[Fault] = []
    masks = {mask.stem: mask for mask in sorted(folder.glob("*.png"))}
    pictures = voc.pictures_by_stem(root)
    names: list[str] = []
    files: list[Path] = []
    sizes: list[tuple[int, int]] = []
    for stem in _stems(root, split, masks, faults):
        hw = header_hw(root / pictures[stem]) if stem in pictures else None
        mask_hw = header_hw(masks[stem])
        if hw is None or mask_hw != hw:
            faults.append(_fault(masks[stem], hw, mask_hw))
            continue
        names.append(pictures[stem])
        files.append(masks[stem])
        sizes.append(hw)
    if not names:
        raise DataError(f"{root}: no picture with a mask of classes can be used{f'; {faults[0]}' if faults else ''}")
    classes, source = _classes(root)
    meaning = meaning_of(classes, source, set(), faults)
    hw_array = np.asarray(sizes, np.int32).reshape(-1, 2)
    return SemanticSet(
        root=root,
        format="voc",
        categories=meaning.categories,
        image_files=tuple(names),
        image_ids=np.arange(1, len(names) + 1),
        image_hw=hw_array,
        source=MaskFiles(tuple(files), hw_array, meaning.values),
        faults=tuple(faults),
    )


def _stems(root: Path, split: str | None, masks: dict[str, Path], faults: list[Fault]) -> list[str]:
    if split is None:
        return list(masks)
    own = {file.stem: file for file in sorted((root / "ImageSets/Segmentation").glob("*.txt"))}
    lists = own or voc.split_files(root)
    listed = voc.listed_stems(lists[choose_split(root, split, tuple(lists))])
    bare = [stem for stem in listed if stem not in masks]
    if bare:
        severity: Any = "error" if own else "warning"  # a list of Main names many pictures that were never segmented
        message = f"{len(bare)} pictures of the list have no mask, the first is {bare[0]}; left out"
        faults.append(Fault(severity, "missing-mask", str(lists[choose_split(root, split, tuple(lists))]), message))
    return [stem for stem in listed if stem in masks]


def _fault(mask: Path, hw: tuple[int, int] | None, mask_hw: tuple[int, int] | None) -> Fault:
    if hw is None:
        return Fault("error", "missing-picture", str(mask), "no readable picture of it; left out")
    if mask_hw is None:
        return Fault("error", "unreadable-mask", str(mask), "no readable mask; its picture is left out")
    message = f"is {mask_hw[1]}x{mask_hw[0]}, its picture {hw[1]}x{hw[0]} (upright); left out"
    return Fault("error", "mask-size", str(mask), message)


def _classes(root: Path) -> tuple[list[PixelClass], Path]:
    """Background and the classes, and the file that says so."""
    file = find_class_file(root)
    if file is None:
        names: Sequence[str] = voc.class_names(root)
        names = VOC_NAMES if set(names) <= set(VOC_NAMES) else names
        return [PixelClass(name, value, None) for value, name in enumerate(("background", *names))], root
    classes = read_classes(file)
    if classes[0].name.lower() not in BACKGROUND_NAMES and all(c.by_place for c in classes):
        shifted = [PixelClass(c.name, 1 + place, None) for place, c in enumerate(classes)]
        classes = [PixelClass("background", 0, None), *shifted]
    return classes, file


def outlines_of(mask: Path, boxes: NDArray[np.float64], hw: tuple[int, int], draft: Draft) -> dict[int, Any]:
    """Object's place in `boxes` (n, 4) -> its run lengths, from a mask of SegmentationObject.

    VOC numbers the masks as the XML has its objects. Where that holds for half of them (their boxes overlap with an
    IoU of a half at least), it is believed of all that lie in their boxes: covered objects show little of themselves.
    The others are paired from the best overlap on, down to an IoU of a half. What is left over is told.
    """
    try:
        pixels = read_pixels(mask)
    except DataError as error:
        draft.error("unreadable-mask", mask, str(error).removeprefix(f"{mask}: "))
        return {}
    if pixels.ndim != 2 or (pixels.shape != hw and min(hw) > 0):
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        kind = "a picture of colours" if pixels.ndim != 2 else f"of {size}, its picture {hw[1]}x{hw[0]}"
        draft.error("mask-size" if pixels.ndim == 2 else "bad-mask", mask, f"is {kind}; not used")
        return {}
    found = list(objects_in(pixels, (0, IGNORE)))
    matched = _matched(np.array([f.number for f in found]), np.array([f.box for f in found]), boxes)
    if len(matched) < len(found):
        stray = next(f for i, f in enumerate(found) if i not in matched)
        left = f"{len(found) - len(matched)} of its {len(found)} objects, the first {stray.number},"
        draft.warn("unmatched-mask", mask, f"{left} lie on no box of the XML file; not used")
    return {j: found[i].rle for i, j in matched.items()}


def _matched(numbers: NDArray[np.int64], masks: NDArray[np.float64], boxes: NDArray[np.float64]) -> dict[int, int]:
    """Place of the mask -> place of its object; masks, boxes (n, 4)."""
    masks, boxes = masks.reshape(-1, 4), boxes.reshape(-1, 4)
    overlaps = iou(masks, boxes)
    own = numbers - 1
    placed = np.flatnonzero((own >= 0) & (own < len(boxes)))
    matched: dict[int, int] = {}
    if len(placed) and (overlaps[placed, own[placed]] >= _SAME).sum() * 2 >= len(masks):
        low, high = boxes[own[placed], :2], boxes[own[placed], 2:]
        inside = (masks[placed, :2] >= low - _BESIDE).all(axis=1) & (masks[placed, 2:] <= high + _BESIDE).all(axis=1)
        matched = {int(i): int(own[i]) for i in placed[inside | (overlaps[placed, own[placed]] >= _SAME)]}
    taken = set(matched.values())
    order = np.argsort(-overlaps.ravel(), kind="stable")
    for i, j in zip(*(axis.tolist() for axis in np.unravel_index(order, overlaps.shape)), strict=True):
        if overlaps[i, j] < _SAME:
            break
        if i not in matched and j not in taken:
            matched[i] = j
            taken.add(j)
    return matched
