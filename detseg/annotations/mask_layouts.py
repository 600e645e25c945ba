"""Where mask folders keep pictures and masks, and which mask belongs to which picture. Names alone are looked at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from detseg.annotations.mask_files import MASK_SUFFIXES
from detseg.annotations.pictures import SUFFIXES
from detseg.annotations.split_names import SPLITS, canonical

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "JPEGImages", "leftImg8bit", "input", "inputs", "data")
MASK_FOLDERS = (
    *("masks", "mask", "SegmentationClass", "SegmentationClassAug", "SegmentationClassPNG", "label_maps", "labelmaps"),
    *("labels", "label", "annotations", "annotation", "annot", "segmentation", "segmentations", "ground_truth"),
    *("gt", "gtFine", "target", "targets"),
)
INSTANCE_FOLDERS = ("instances", "instance_masks", "SegmentationObject", "instance_ids")
_BESIDE = ("annot", "_labels", "_label", "_masks", "_mask", "_annot", "_gt")  # train/ and trainannot/
_MASK_ENDINGS = (
    *("", "_mask", "_masks", "_L", "_labelIds", "_gtFine_labelIds", "_label", "_labels", "_gt", "_GT", "_seg"),
    *("_segmentation", "_annot", "_lbl", "_labelTrainIds", "_gtFine_labelTrainIds", "_color", "_gtFine_color"),
)
_INSTANCE_ENDINGS = ("", "_instanceIds", "_gtFine_instanceIds", "_instances", "_instance", "_mask", "_masks")
_PICTURE_ENDINGS = ("", "_leftImg8bit", "_sat", "_image", "_img", "_rgb")


class Pair(NamedTuple):
    """A folder of pictures, the folder of their masks, and the split they are; "" where there are no splits."""

    images: Path
    masks: Path
    split: str


def is_folder(path: Path) -> bool:
    """Are there pictures and masks in this folder?"""
    return bool(find_pairs(path) or find_pairs(path, INSTANCE_FOLDERS) or object_folders(path))


def find_pairs(root: Path, folders: tuple[str, ...] = MASK_FOLDERS) -> list[Pair]:
    """images/ and masks/, whole or by splits; or both in each split's folder; or train/ and trainannot/."""
    together = _pair_in(root, folders)
    if together is not None:
        images, masks = together
        inner = {canonical(p.name): p for p in _subfolders(masks)}
        found = [
            Pair(p, inner[canonical(p.name)], p.name)
            for p in _subfolders(images)
            if canonical(p.name) in SPLITS and canonical(p.name) in inner
        ]
        return found or [Pair(images, masks, "")]
    here = [p for p in _subfolders(root) if canonical(p.name) in SPLITS]
    inside = [Pair(*pair, p.name) for p in here if (pair := _pair_in(p, folders)) is not None]
    return inside or [Pair(p, masks, p.name) for p in here for masks in _beside(p)]


def _beside(images: Path) -> list[Path]:
    """trainannot/ beside train/, and so on: the first that there is."""
    places = (images.with_name(images.name + ending) for ending in _BESIDE)
    return [place for place in places if _has_masks(place)][:1]


def match(pair: Pair, *, instances: bool = False) -> tuple[list[tuple[Path, Path]], list[Path], list[Path]]:
    """(picture, its mask) sorted by name; pictures without mask; masks without picture.

    A mask is called like its picture, perhaps with an ending such as `_mask`, the same one in the whole folder.
    """
    pictures = {_key(p, pair.images): p for p in _files(pair.images, SUFFIXES)}
    masks = {_key(m, pair.masks): m for m in _files(pair.masks, MASK_SUFFIXES)}
    if pair.images == pair.masks:
        pictures = {key: p for key, p in pictures.items() if not p.stem.endswith(_MASK_ENDINGS[1:])}
    names = _paired(pictures, masks, _INSTANCE_ENDINGS if instances else _MASK_ENDINGS)
    if not names:  # the folders inside differ: the names alone
        pictures, masks = ({Path(key).name: p for key, p in found.items()} for found in (pictures, masks))
        names = _paired(pictures, masks, _INSTANCE_ENDINGS if instances else _MASK_ENDINGS)
    pairs = [(pictures[p], masks[m]) for p, m in names.items()]
    used = set(names.values())
    # masks in other colours of the same pictures are no stray ones
    strays = (
        [] if any(names.values()) and len(masks) >= 2 * len(used) else [m for k, m in masks.items() if k not in used]
    )
    return pairs, [p for key, p in pictures.items() if key not in names], strays


def _paired(pictures: dict[str, Path], masks: dict[str, Path], endings: tuple[str, ...]) -> dict[str, str]:
    """Picture's name -> mask's name, by the endings that match most."""
    best: dict[str, str] = {}
    for cut in _PICTURE_ENDINGS:
        bare = {key.removesuffix(cut): key for key in pictures if key.endswith(cut)}
        for ending in endings:
            found = {key: name + ending for name, key in bare.items() if name + ending in masks}
            if len(found) > len(best):
                best = found
    return best


def object_folders(root: Path) -> list[tuple[Path, str]]:
    """(folder, split) of each picture that has a folder of its own, with images/ and masks/ (one file an object)."""
    found = [(p, "") for p in _subfolders(root) if _is_object_folder(p)]
    if found:
        return found
    parts = [p for p in _subfolders(root) if canonical(p.name) in SPLITS]
    return [(p, part.name) for part in parts for p in _subfolders(part) if _is_object_folder(p)]


def _is_object_folder(folder: Path) -> bool:
    return canonical(folder.name) not in SPLITS and (folder / "images").is_dir() and (folder / "masks").is_dir()


def mask_files(folder: Path) -> list[Path]:
    """The files of a folder that may be masks, sorted."""
    return list(_files(folder, MASK_SUFFIXES))


def picture_files(folder: Path) -> list[Path]:
    """The files of a folder that may be pictures, sorted."""
    return list(_files(folder, SUFFIXES))


def _pair_in(root: Path, folders: tuple[str, ...]) -> tuple[Path, Path] | None:
    names = {p.name.lower(): p for p in _subfolders(root)}
    images = next((names[n.lower()] for n in IMAGE_FOLDERS if n.lower() in names), None)
    if images is None:
        return None
    masks = next((names[n.lower()] for n in folders if n.lower() in names and _has_masks(names[n.lower()])), None)
    return None if masks is None or masks == images else (images, masks)


def _has_masks(folder: Path) -> bool:
    return folder.is_dir() and next(_files(folder, MASK_SUFFIXES), None) is not None


def _files(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    for where, inner, names in os.walk(folder):
        inner.sort()
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in suffixes and not name.startswith("."):  # noqa: PTH122
                yield Path(where, name)


def _key(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder).with_suffix(""))


def _subfolders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir())
