"""PASCAL VOC trees: Annotations/*.xml, JPEGImages/, ImageSets/Main/*.txt.

VOC counts pixels from 1 and includes the last one; here a box becomes x1 - 1, y1 - 1, x2, y2. A box whose
corners are one and the same pixel is a slip of the mouse, not an object. Classes are the names found in the
whole tree, sorted, so that every split agrees on them; a `classes.txt` or `labels.txt` beside `Annotations`
(one name a line) says otherwise. Their ids count from 1. Objects get their outlines from SegmentationObject, where
it has a mask of the picture (see `voc_maps`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, ParseError

import numpy as np

from detseg.annotations.categories import Categories
from detseg.annotations.dataset import AnnotationSet
from detseg.annotations.draft import Draft
from detseg.annotations.pictures import MAX_SIDE, SUFFIXES, Folders, header_hw
from detseg.annotations.split_names import choose_split
from detseg.annotations.voc_write import CORNERS, write_voc
from detseg.annotations.xml_files import ForbiddenXml, parse_xml
from detseg.errors import DataError

__all__ = [
    "class_names",
    "is_tree",
    "listed_stems",
    "load",
    "pictures_by_stem",
    "split_files",
    "splits",
    "write_voc",
]

IMAGE_FOLDERS = ("JPEGImages", "images", "Images")
CLASS_FILES = ("classes.txt", "labels.txt")
_SPLIT_FOLDERS = ("ImageSets/Main", "ImageSets", "ImageSets/Layout", "ImageSets/Segmentation")


class _Object(NamedTuple):
    position: int  # counted from 1 in its file
    name: str
    box: tuple[float, float, float, float]
    difficult: bool

    @property
    def is_click(self) -> bool:
        """Do both corners lie in one pixel?"""
        x1, y1, x2, y2 = self.box
        return x1 <= x2 <= x1 + 1 and y1 <= y2 <= y1 + 1


class _Page(NamedTuple):
    """One XML file as it is."""

    file: Path
    filename: str
    hw: tuple[int, int]  # 0 where the file does not say
    objects: list[_Object]


def is_tree(path: Path) -> bool:
    """Is there a VOC tree in this folder?"""
    # `annotations/` of a COCO folder is `Annotations` too where names have no case
    return _image_folder(path) is not None and any((path / "Annotations").glob("*.xml"))


def splits(root: Path) -> tuple[str, ...]:
    """The names of the tree's picture lists, those of one class (`cat_train`) left out."""
    files = split_files(root)
    return tuple(s for s in files if "_" not in s or s.rpartition("_")[2] not in files)


def load(root: Path, split: str | None = None, *, need_images: bool = True) -> AnnotationSet:
    """The tree's pictures that have an XML file, sorted by name; or those of one list, in its order.

    A list is any of ImageSets/Main; in one with a second column (`cat_train`), -1 means "not in it". Pictures
    that are missing are left out with a fault, unless `need_images` is False. Raises DataError when nothing
    can be used.
    """
    draft = Draft(root, "voc")
    annotations = root / "Annotations"
    files = sorted(p for p in annotations.iterdir() if p.suffix.lower() == ".xml" and p.is_file())
    if not files:
        raise DataError(f"{annotations}: no .xml file in it; a VOC tree keeps one a picture there")
    pages = {file.stem: page for file in files if (page := _read_page(file, draft)) is not None}
    if not pages:
        raise DataError(f"{annotations}: none of the {len(files)} XML files can be read; {draft.faults[0]}")
    categories = _categories(root, pages, draft)
    found_elsewhere = len(draft.faults)
    stems = list(pages) if split is None else _read_list(root, split, pages, draft)
    chosen = {annotations / f"{stem}.xml" for stem in stems}
    # faults of pictures that were not asked for are not this split's
    kept = [f for f in draft.faults[:found_elsewhere] if Path(f.file) in chosen or split is None]
    draft.faults = kept + draft.faults[found_elsewhere:]
    _fill(draft, [pages[stem] for stem in stems if stem in pages], categories, need_images)
    result = draft.finish(categories)
    if not len(result):
        raise DataError(f"{root}: no picture of the tree can be used; {_first(draft)}")
    return result


def split_files(root: Path) -> dict[str, Path]:
    """List name -> its file, of the first folder under ImageSets that has lists."""
    for name in _SPLIT_FOLDERS:
        files = sorted((root / name).glob("*.txt"))
        if files:
            return {file.stem: file for file in files}
    return {}


def listed_stems(file: Path) -> list[str]:
    """The stems that a list names, each once; -1 in a second column means "not in it"."""
    stems: dict[str, None] = {}
    for line in _read_text(file).splitlines():
        words = line.split()
        if words and words[-1] != "-1":
            stems[line.strip() if len(words) == 1 else line.strip().removesuffix(words[-1]).strip()] = None
    return list(stems)


def class_names(root: Path) -> tuple[str, ...]:
    """The names of classes in all the tree's XML files, sorted."""
    draft = Draft(root, "voc")
    files = sorted((root / "Annotations").glob("*.xml"))
    pages = {file.stem: page for file in files if (page := _read_page(file, draft)) is not None}
    return tuple(sorted({o.name for p in pages.values() for o in p.objects}))


def pictures_by_stem(root: Path) -> dict[str, str]:
    """Stem -> path of the picture relative to `root`, .jpg before others."""
    folder = _image_folder(root)
    return {} if folder is None else {k: f"{folder.name}/{v}" for k, v in _by_stem(Folders().names(folder)).items()}


def _by_stem(names: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda n: (Path(n).suffix.lower() not in (".jpg", ".jpeg"), n)):
        if Path(name).suffix.lower() in SUFFIXES:
            found.setdefault(Path(name).stem, name)
    return found


def _first(draft: Draft) -> str:
    return f"{len(draft.faults)} faults, the first: {draft.faults[0]}" if draft.faults else "the list is empty"


def _image_folder(root: Path) -> Path | None:
    return next((root / name for name in IMAGE_FOLDERS if (root / name).is_dir()), None)


def _fill(draft: Draft, pages: Sequence[_Page], categories: Categories, need_images: bool) -> None:
    folder = _image_folder(draft.root)
    assert folder is not None  # `is_tree` said so
    names = Folders().names(folder)
    by_stem = _by_stem(names)
    masks = Folders().names(draft.root / "SegmentationObject")
    for page in pages:
        own = page.filename if page.filename in names else None
        # the picture of the same stem is VOC's rule; `filename` is often a leftover, but tells .jpg from .png
        same_stem = own is not None and Path(own).stem == page.file.stem
        found = own if same_stem else by_stem.get(page.file.stem, own)
        if found is None and need_images:
            draft.error("missing-picture", page.file, f"no picture {page.file.stem} in {folder}; left out")
            continue
        name = found or f"{page.file.stem}.jpg"
        hw = page.hw if min(page.hw) > 0 else header_hw(folder / name) or (0, 0)
        if need_images and min(hw) < 1:
            draft.error("unreadable-picture", folder / name, f"no size in {page.file}, no readable picture; left out")
            continue
        picture = draft.add_picture(f"{folder.name}/{name}", hw, page.file)
        mask = f"{page.file.stem}.png"
        _add_objects(draft, picture, page, categories, mask if mask in masks else None)


def _add_objects(draft: Draft, picture: int, page: _Page, categories: Categories, mask: str | None) -> None:
    outlines: dict[int, Any] = {}
    if mask is not None:
        from detseg.annotations.voc_maps import outlines_of

        hw, boxes = draft.picture_hw(picture), np.array([obj.box for obj in page.objects])
        outlines = outlines_of(draft.root / "SegmentationObject" / mask, boxes, hw, draft)
    for place, obj in enumerate(page.objects):
        label = categories.index_of_name.get(obj.name)
        if label is None:
            message = f"unknown class {obj.name!r}; left out"
            draft.error("unknown-category", page.file, message, obj.position)
        elif obj.is_click:
            message = f"{obj.name!r} begins and ends in one pixel; left out"
            draft.warn("degenerate-box", page.file, message, obj.position)
        else:
            outline = outlines.get(place)
            draft.add_box(picture, obj.box, label, obj.position, difficult=obj.difficult, segmentation=outline)


def _categories(root: Path, pages: dict[str, _Page], draft: Draft) -> Categories:
    for name in CLASS_FILES:
        if (root / name).is_file():
            lines = [line.strip() for line in _read_text(root / name).splitlines()]
            names = list(dict.fromkeys(line for line in lines if line))
            if names:
                return Categories.from_names(names, first_id=1)
            draft.warn("empty-class-list", root / name, "no class in it; the names in the XML files are used")
    return Categories.from_names(sorted({o.name for p in pages.values() for o in p.objects}), first_id=1)


def _read_page(file: Path, draft: Draft) -> _Page | None:
    try:
        root = parse_xml(file.read_bytes())
    except ForbiddenXml:
        draft.error("unreadable-xml", file, "declares entities, which is refused; left out")
        return None
    # expat's own message, a broken encoding, an unknown one; nesting is bounded by expat and the stack
    except (ParseError, OSError, ValueError, LookupError, RecursionError) as error:
        draft.error("unreadable-xml", file, f"cannot be read: {error}; left out")
        return None
    objects: list[_Object] = []
    for position, element in enumerate(root.findall("object"), 1):
        try:
            objects.append(_read_object(element, position))
        except ValueError as error:
            draft.error("bad-object", file, f"{error}; left out", position)
    return _Page(file, Path(_text(root, "filename")).name, _read_size(root), objects)


def _read_object(element: Element, position: int) -> _Object:
    name = _text(element, "name")
    if not name:
        raise ValueError("object without a name")
    box = element.find("bndbox")
    if box is None:
        raise ValueError(f"object {name!r} without a bndbox")
    x1, y1, x2, y2 = (_number(_text(box, side), side) for side in CORNERS)
    difficult = _text(element, "difficult").lower() in ("1", "1.0", "true", "yes")
    return _Object(position, name, (x1 - 1, y1 - 1, x2, y2), difficult)


def _read_size(root: Element) -> tuple[int, int]:
    try:
        h, w = (round(_number(_text(root, f"size/{side}"), side)) for side in ("height", "width"))
    except ValueError:
        return (0, 0)
    return (h, w) if 0 < h <= MAX_SIDE and 0 < w <= MAX_SIDE else (0, 0)


def _text(element: Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _number(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{what} is {text!r}, not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{what} is {text}, not a number that can be used")
    return value


def _read_list(root: Path, split: str, pages: dict[str, _Page], draft: Draft) -> list[str]:
    files = split_files(root)
    name = choose_split(root, split, tuple(files), shown=splits(root))
    stems: dict[str, None] = {}
    for line in _read_text(files[name]).splitlines():
        entry = line.strip()
        if not entry:
            continue
        stem = _entry_stem(entry, pages, draft, files[name])
        if stem is not None and stem in stems:
            draft.warn("repeated-picture", files[name], f"{stem} is listed more than once; taken once")
        elif stem is not None:
            stems[stem] = None
    return list(stems)


def _entry_stem(entry: str, pages: dict[str, _Page], draft: Draft, file: Path) -> str | None:
    """The XML stem a line of a list means; None where it means none."""
    first, _, flag = entry.rpartition(" ")
    flagged = first.strip() if flag in ("-1", "0", "1") else ""
    for candidate in (entry, flagged):
        for stem in (candidate, Path(candidate).stem):
            if stem and stem in pages:
                return None if candidate == flagged and flagged and flag == "-1" else stem
    if not (file.parent.parent.parent / "Annotations" / f"{flagged or entry}.xml").is_file():
        draft.error("missing-annotation", file, f"{flagged or entry} has no XML file in Annotations; left out")
    return None  # an XML file that is there but cannot be read has its own fault already


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
