"""Mask folders written: palette PNGs under masks/, and the file that names the classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detseg import files
from detseg.annotations.categories import Categories
from detseg.annotations.class_files import PixelClass, classes_text
from detseg.annotations.mask_files import voc_palette, write_mask
from detseg.annotations.semantic import IGNORE, SemanticSet


def pixel_categories(categories: Categories) -> Categories:
    """The classes with ids that pixels of 8 bits can hold: their own, or else their places."""
    fit = all(0 <= id_ < IGNORE for id_ in categories.ids)
    return categories if fit else Categories.from_names(categories.names)


def write_map(maps: SemanticSet, image: int, root: Path, picture: str) -> None:
    """Writes one label map beside its picture's name: images/a/b.jpg -> masks/a/b.png; 255 is what does not count."""
    categories = pixel_categories(maps.categories)
    value = np.full(256, IGNORE, np.uint8)
    value[: len(categories)] = categories.ids
    mask = Path("masks", *Path(picture).parts[1:]).with_suffix(".png")
    write_mask(root / mask, value[maps.label_map(image)], voc_palette())


def write_masks(maps: SemanticSet, root: Path) -> None:
    """Writes the label maps of all pictures, which lie under images/; see `write_map`."""
    for image, picture in enumerate(maps.image_files):
        write_map(maps, image, root, picture)


def write_classes(categories: Categories, root: Path) -> None:
    """Writes classes.txt, `value name` a line (classes.json where names could be misread), void last."""
    known = pixel_categories(categories)
    classes = [PixelClass(name, value, None) for value, name in zip(known.ids, known.names, strict=True)]
    name, text = classes_text([*classes, PixelClass("void", IGNORE, None)])
    files.write_text(root / name, text)
