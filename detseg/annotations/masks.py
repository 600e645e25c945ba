"""Mask folders: pictures, and a class for every pixel in mask files beside them; or a mask file for each object.

images/ and masks/ (see `mask_layouts` for the other names), split by folders inside or outside. Classes stand in
classes.txt or one of its relatives (`class_files`); without one they are the values that are found. Masks hold
numbers (grey or palette pictures, 8 or 16 bits) or colours; colours that no file explains are those of PASCAL VOC.

255 is what is not counted, unless a class has that value; so are classes called void, ignore or unlabeled. Where
values count from 0 in the order of a list of names, the value after the last is taken for not counted too, with a
warning: many sets keep their void there without naming it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detseg.annotations.categories import Categories
from detseg.annotations.class_files import PixelClass, find_class_file, read_classes
from detseg.annotations.dataset import AnnotationSet, Fault
from detseg.annotations.draft import Draft
from detseg.annotations.mask_files import MaskFiles, PixelValues, pack, read_pixels, voc_palette
from detseg.annotations.mask_layouts import (
    INSTANCE_FOLDERS,
    Pair,
    find_pairs,
    mask_files,
    match,
    object_folders,
    picture_files,
)
from detseg.annotations.object_masks import objects_in
from detseg.annotations.pictures import header_hw
from detseg.annotations.semantic import IGNORE, MAX_CLASSES, SemanticSet
from detseg.annotations.split_names import choose_split
from detseg.errors import DataError

_SAMPLE = 12  # masks that are looked at before all are needed
_VOID_COLOUR = (224, 224, 192)


class _Meaning(NamedTuple):
    categories: Categories
    values: PixelValues


def has_label_maps(path: Path) -> bool:
    """Are there label maps, not only masks of objects?"""
    return bool(find_pairs(path))


def splits(path: Path) -> tuple[str, ...]:
    """The names of the splits; none where everything is together."""
    found = [p.split for p in find_pairs(path) or find_pairs(path, INSTANCE_FOLDERS)]
    found = found or [split for _, split in object_folders(path)]
    lists = _lists(path)
    return tuple(dict.fromkeys(name for name in found if name)) or tuple(lists)


def load(path: Path, split: str | None = None, *, need_images: bool = True) -> AnnotationSet:
    """The objects of a folder with a mask for each of them: see `load_objects`.

    Raises DataError for a folder of label maps, which hold classes and no objects.
    """
    if find_pairs(path, INSTANCE_FOLDERS) or object_folders(path):
        return load_objects(path, split)
    raise DataError(
        f"{path}: holds label maps, a class for every pixel, and no objects; `detseg data convert` can make objects "
        "of their connected parts (--objects parts) or of their values (--objects values)"
    )


def load_label_maps(path: Path, split: str | None = None) -> SemanticSet:
    """The label maps of a folder. Raises DataError when there are none, or their classes cannot be told."""
    pairs = [p for p in find_pairs(path) if split is None or p.split == _chosen(path, split) or not p.split]
    faults: list[Fault] = []
    matched = [m for pair in pairs for m in _matched(pair, path, split, faults)]
    files, sizes = _usable(matched, faults)
    if not files:
        why = f"; {faults[0]}" if faults else ""
        raise DataError(f"{path}: no picture with a mask in it{why}")
    meaning = _meaning(path, [mask for _, mask in files], faults)
    return SemanticSet(
        root=path,
        format="masks",
        categories=meaning.categories,
        image_files=tuple(str(picture.relative_to(path)) for picture, _ in files),
        image_ids=np.arange(1, len(files) + 1),
        image_hw=sizes,
        source=MaskFiles(tuple(mask for _, mask in files), sizes, meaning.values),
        faults=tuple(faults),
    )


def load_objects(path: Path, split: str | None = None, *, any_masks: bool = False) -> AnnotationSet:
    """Objects: each value of a mask another one (0 is none), or each mask file in the folder of its picture.

    Masks of objects lie in instances/ or SegmentationObject/, where 255 of a palette is no object either; `any_masks`
    reads the masks of any folder so. All are of one class, called "object". Raises DataError when there are none.
    """
    draft = Draft(path, "masks")
    own = [] if any_masks else object_folders(path)
    pairs = [] if own else find_pairs(path, INSTANCE_FOLDERS) or (find_pairs(path) if any_masks else [])
    wanted = None if split is None else _chosen(path, split)
    for folder, part in own:
        if wanted in (None, part):
            _add_folder(draft, folder)
    for pair in pairs:
        if wanted is None or pair.split in (wanted, ""):
            for picture, mask in _matched(pair, path, split, draft.faults, instances=True):
                _add_numbers(draft, picture, mask)
    result = draft.finish(Categories((1,), ("object",)))
    if not len(result):
        why = f"; {draft.faults[0]}" if draft.faults else ""
        raise DataError(f"{path}: no picture with masks of objects in it{why}")
    return result


def _chosen(path: Path, split: str) -> str:
    return choose_split(path, split, splits(path))


def _matched(
    pair: Pair, root: Path, split: str | None, faults: list[Fault], *, instances: bool = False
) -> list[tuple[Path, Path]]:
    """Pictures with their masks; of a list of ImageSets where the split is one."""
    pairs, bare, strays = match(pair, instances=instances)
    listed = None if split is None or pair.split else _stems(_lists(root)[_chosen(root, split)])
    if listed is not None:
        pairs = [(p, m) for p, m in pairs if p.stem in listed]
        bare, strays = [p for p in bare if p.stem in listed], []
    if not pairs and bare:
        faults.append(Fault("error", "missing-mask", str(bare[0]), f"no mask of this name in {pair.masks}"))
        return []
    faults += [Fault("error", "missing-mask", str(p), f"no mask of it in {pair.masks}; left out") for p in bare]
    faults += [Fault("warning", "stray-mask", str(m), f"no picture of it in {pair.images}; not used") for m in strays]
    return pairs


def _lists(root: Path) -> dict[str, Path]:
    return {file.stem: file for file in sorted((root / "ImageSets" / "Segmentation").glob("*.txt"))}


def _stems(file: Path) -> set[str]:
    try:
        return {line.strip() for line in file.read_text("utf-8-sig", "surrogateescape").splitlines() if line.strip()}
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error


def _usable(
    matched: Sequence[tuple[Path, Path]], faults: list[Fault]
) -> tuple[list[tuple[Path, Path]], NDArray[np.int32]]:
    """Those whose picture and mask can be read and are of one size, and the sizes."""
    kept, sizes = [], []
    for picture, mask in matched:
        hw, mask_hw = header_hw(picture), header_hw(mask)
        fault = _fault(picture, mask, hw, mask_hw)
        if fault is not None:
            faults.append(fault)
        else:
            kept.append((picture, mask))
            sizes.append(hw)
    return kept, np.asarray(sizes, np.int32).reshape(-1, 2)


def _fault(picture: Path, mask: Path, hw: tuple[int, int] | None, mask_hw: tuple[int, int] | None) -> Fault | None:
    if hw is None or min(hw) < 1:
        return Fault("error", "unreadable-picture", str(picture), "no readable picture; left out")
    if mask_hw is None:
        return Fault("error", "unreadable-mask", str(mask), "no readable mask; its picture is left out")
    if mask_hw != hw:
        message = f"is {mask_hw[1]}x{mask_hw[0]}, its picture {picture.name} {hw[1]}x{hw[0]} (upright); left out"
        return Fault("error", "mask-size", str(mask), message)
    return None


def _meaning(root: Path, masks: Sequence[Path], faults: list[Fault]) -> _Meaning:
    file = find_class_file(root) or find_class_file(masks[0].parent)
    if file is None:
        return _meaning_of_values(root, masks, faults)
    classes = read_classes(file)
    seen = _values_in(masks[:: max(1, len(masks) // _SAMPLE)])
    return meaning_of(classes, file, seen, faults)


def meaning_of(classes: Sequence[PixelClass], file: Path, seen: set[int], faults: list[Fault]) -> _Meaning:
    """What pixels mean by a file of classes; `seen`: values that are known to occur."""
    counted = [c for c in classes if not c.is_ignored]
    if len(counted) > MAX_CLASSES:
        raise DataError(f"{file}: {len(counted)} classes; a label map holds {MAX_CLASSES} at most")
    places = {c: place for place, c in enumerate(classes)}
    value_of = {c: places[c] if c.value is None else c.value for c in classes}
    numbers = {IGNORE: IGNORE} | {value: IGNORE for c, value in value_of.items() if c.is_ignored}
    numbers |= {value_of[c]: index for index, c in enumerate(counted)}
    palette = [tuple(rgb) for rgb in voc_palette().tolist()]
    colours = {c.colour: IGNORE if c.is_ignored else counted.index(c) for c in classes if c.colour is not None}
    by_colour = bool(colours) and all(c.value is None for c in classes)
    if not colours:
        colours = {palette[v]: i for v, i in numbers.items() if v < 256} | {_VOID_COLOUR: IGNORE}
    if len(set(value_of.values())) < len(value_of):
        raise DataError(f"{file}: two classes have the same value; give every line a value of its own")
    by_place = all(c.by_place for c in classes)
    if seen and seen <= {0, IGNORE} and IGNORE in seen and len(counted) <= 2 and IGNORE not in value_of.values():
        counted, numbers = _binary(counted, file, faults)
        value_of = dict(zip(counted, (0, IGNORE), strict=True))
    elif by_place and len(counted) == len(classes) and max(seen - {IGNORE}, default=-1) == len(classes):
        numbers[len(classes)] = IGNORE
        message = f"masks hold the value {len(classes)}, one more than the classes: taken for pixels that do not count"
        faults.append(Fault("warning", "assumed-void", str(file), f"{message}; a line `void` at the end says so"))
    elif by_place and len(counted) == len(classes):
        numbers.setdefault(len(classes), IGNORE)
    categories = Categories(tuple(value_of[c] for c in counted), tuple(c.name for c in counted))
    return _Meaning(categories, PixelValues(numbers, colours, by_colour))


def _binary(counted: list[PixelClass], file: Path, faults: list[Fault]) -> tuple[list[PixelClass], dict[int, int]]:
    """Masks of 0 and 255 alone: black and white, two classes."""
    if len(counted) == 1:
        counted = [PixelClass("background", 0, None), counted[0]]
    message = f"masks hold 0 and 255 alone: 255 is taken for {counted[1].name!r}"
    faults.append(Fault("warning", "binary-masks", str(file), message))
    return counted, {0: 0, IGNORE: 1}


def _values_in(masks: Sequence[Path]) -> set[int]:
    """The numbers in masks; those that cannot be read are told of when they are used."""
    seen: set[int] = set()
    for mask in masks:
        try:
            pixels = read_pixels(mask)
        except DataError:
            continue
        if pixels.ndim == 2:
            seen |= set(np.unique(pixels).tolist())
    return seen


def _meaning_of_values(root: Path, masks: Sequence[Path], faults: list[Fault]) -> _Meaning:
    """Classes of a folder that does not name them: the values, or colours, in all its masks."""
    seen: set[int] = set()
    colours: set[int] = set()
    for mask in masks:
        pixels = read_pixels(mask)
        target, found = (seen, pixels) if pixels.ndim == 2 else (colours, pack(pixels))
        target |= set(np.unique(found).tolist())
        if len(seen) > MAX_CLASSES + 1 or len(colours) > MAX_CLASSES:
            raise DataError(
                f"{mask}: more than {MAX_CLASSES} values up to this mask; are they objects, not classes "
                "(--objects values), or pictures that were compressed with loss?"
            )
    if colours:
        return _meaning_of_colours(root, colours, seen, faults)
    if seen == {0, IGNORE} or seen == {IGNORE}:
        counted, numbers = _binary([PixelClass("foreground", IGNORE, None)], root, faults)
        return _Meaning(Categories((0, IGNORE), tuple(c.name for c in counted)), PixelValues(numbers, {}))
    values = sorted(seen - {IGNORE})
    faults.append(Fault("warning", "no-names", str(root), "no class names (classes.txt); classes are their values"))
    numbers = {IGNORE: IGNORE} | {value: index for index, value in enumerate(values)}
    names = ["background" if value == 0 else str(value) for value in values]
    return _Meaning(Categories(tuple(values), tuple(names)), PixelValues(numbers, {}))


def _meaning_of_colours(root: Path, colours: set[int], seen: set[int], faults: list[Fault]) -> _Meaning:
    """Colours of PASCAL VOC's palette where all are; else in their order."""
    palette = pack(voc_palette()).tolist()
    void = pack(np.array(_VOID_COLOUR)).item()
    packed = sorted((colours | {palette[v] for v in seen if v < 256}) - {void})
    number = {colour: palette.index(colour) if set(packed) <= set(palette) else i for i, colour in enumerate(packed)}
    packed.sort(key=lambda colour: number[colour])
    message = "no class file; classes are named by their colours, those of PASCAL VOC numbered as there"
    faults.append(Fault("warning", "no-names", str(root), message))
    rgb = [(c >> 16, c >> 8 & 255, c & 255) for c in packed]
    index = {colour: i for i, colour in enumerate(rgb)} | {_VOID_COLOUR: IGNORE}
    names = ["background" if c == (0, 0, 0) else "#{:02x}{:02x}{:02x}".format(*c) for c in rgb]
    # a mask of greys alone is a picture of colours too
    greys = {r: index[r, g, b] for r, g, b in rgb if r == g == b}
    return _Meaning(Categories(tuple(number[c] for c in packed), tuple(names)), PixelValues(greys, index))


def _add_folder(draft: Draft, folder: Path) -> None:
    """A picture with a folder of its own: one mask file an object."""
    pictures = picture_files(folder / "images")
    hw = header_hw(pictures[0]) if pictures else None
    if hw is None or min(hw) < 1:
        draft.error("unreadable-picture", folder / "images", "no readable picture; left out")
        return
    picture = draft.add_picture(str(pictures[0].relative_to(draft.root)), hw, folder / "masks")
    for number, mask in enumerate(mask_files(folder / "masks"), 1):
        try:
            pixels = _grey(read_pixels(mask))
        except DataError as error:
            draft.error("unreadable-mask", mask, str(error))
            continue
        if pixels.shape != hw:
            message = f"is {pixels.shape[1]}x{pixels.shape[0]}, its picture {hw[1]}x{hw[0]}; left out"
            draft.error("mask-size", mask, message)
            continue
        for found in objects_in((pixels != 0).astype(np.uint8)):
            draft.add_box(picture, found.box, 0, number, area=found.area, segmentation=found.rle)


def _add_numbers(draft: Draft, picture: Path, mask: Path) -> None:
    """A picture with a mask whose values are its objects."""
    hw = header_hw(picture)
    fault = _fault(picture, mask, hw, header_hw(mask))
    if fault is not None or hw is None:
        draft.faults += [] if fault is None else [fault]
        return
    try:
        pixels = read_pixels(mask)
    except DataError as error:
        draft.error("unreadable-mask", mask, str(error))
        return
    numbers = pack(pixels) if pixels.ndim == 3 else pixels
    index = draft.add_picture(str(picture.relative_to(draft.root)), hw, mask)
    void = (0, IGNORE) if mask.parent.name == "SegmentationObject" else (0,)
    for found in objects_in(numbers, void):
        draft.add_box(index, found.box, 0, found.number, area=found.area, segmentation=found.rle)


def _grey(pixels: NDArray[np.integer]) -> NDArray[np.integer]:
    return pixels.max(axis=2) if pixels.ndim == 3 else pixels
