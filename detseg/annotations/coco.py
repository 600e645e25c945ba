"""COCO JSON: one file of pictures, categories and annotations, or a folder of such files, one a split.

`bbox` is [x, y, width, height] in pixels from the corner, `segmentation` polygons or run lengths. Classes are in the
order of their ids, which may have holes; picture, category and annotation ids stay the file's own.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from detseg import files
from detseg.annotations.coco_file import load_file
from detseg.annotations.dataset import AnnotationSet
from detseg.annotations.joining import together
from detseg.annotations.split_names import SPLITS, canonical, choose_split, split_of
from detseg.errors import DataError
from detseg.geometry.boxes import xyxy_to_xywh

_NOT_BOXES = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")


def looks_like(file: Path) -> bool:
    """Does the file speak of pictures and categories? Its text is searched, not parsed, however large."""
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return text.find(b'"images"') >= 0 and text.find(b'"categories"') >= 0
    except (OSError, ValueError):  # ValueError: an empty file cannot be mapped
        return False


def split_files(root: Path) -> dict[str, Path]:
    """Split name -> its JSON file, of root/*.json, root/annotations/*.json and root/<split>/*.json."""
    folders = [root, root / "annotations", *(p for p in _subfolders(root) if canonical(p.name) in SPLITS)]
    files = (f for folder in folders for f in sorted(folder.glob("*.json")))
    # a damaged train.json is still the training split: it must be complained of, not passed over
    found = [f for f in files if looks_like(f) or canonical(split_of(f)) in SPLITS]
    boxes = [f for f in found if not f.name.startswith(_NOT_BOXES)] or found
    names = [split_of(f) for f in boxes]
    unique = [
        n if [canonical(m) for m in names].count(canonical(n)) == 1 else f.stem
        for n, f in zip(names, boxes, strict=True)
    ]
    return dict(zip(unique, boxes, strict=True))


def load(path: Path, split: str | None = None, *, need_images: bool = True) -> AnnotationSet:
    """A JSON file, or a folder of them: the file of the split, or of all splits together when none is named.

    Pictures are looked for beside the file and in the usual folders; those that are missing are left out with
    a fault, unless `need_images` is False. Raises DataError when nothing can be used.
    """
    if path.is_file():
        if split is not None and canonical(split_of(path)) != canonical(split):
            raise DataError(f"{path}: one file is one split, and its name does not say {split!r}; name the file to use")
        return load_file(path, need_images)
    available = split_files(path)
    if split is not None:
        return load_file(available[choose_split(path, split, tuple(available))], need_images)
    if not available:
        raise DataError(f"{path}: no COCO JSON in it, nor in its folder annotations")
    return _together(path, [load_file(file, need_images) for file in available.values()], list(available.values()))


def to_coco(annotations: AnnotationSet) -> dict[str, Any]:
    """The set as COCO's JSON dict, with its own ids; ignored objects have iscrowd 1."""
    outlines = annotations.outlines
    content = _content(annotations)
    for row in np.flatnonzero(outlines.has).tolist():
        content["annotations"][row]["segmentation"] = outlines.segmentation(row)
    return content


def coco_text(annotations: AnnotationSet) -> bytes:
    """`to_coco` as JSON text; outlines are written as they were read, to the last digit."""
    outlines = annotations.outlines
    content = _content(annotations)
    for row in np.flatnonzero(outlines.has).tolist():
        content["annotations"][row]["segmentation"] = msgspec.Raw(outlines.text(row))
    return msgspec.json.encode(content)


def write_coco(annotations: AnnotationSet, file: str | Path) -> None:
    """Writes the set as a COCO JSON file, in one step."""
    files.write_bytes(file, coco_text(annotations) + b"\n")


def _content(annotations: AnnotationSet) -> dict[str, Any]:
    image_of = annotations.image_ids[annotations.image_index].tolist()
    category_of = np.asarray(annotations.categories.ids, np.int64)[annotations.labels].tolist()
    rows = zip(
        annotations.ids.tolist(),
        image_of,
        category_of,
        xyxy_to_xywh(annotations.boxes).tolist(),
        annotations.areas.tolist(),
        annotations.ignored.tolist(),
        annotations.difficult.tolist(),
        strict=True,
    )
    pictures = zip(annotations.image_ids.tolist(), annotations.image_files, annotations.image_hw.tolist(), strict=True)
    return {
        "images": [{"id": i, "file_name": f, "width": w, "height": h} for i, f, (h, w) in pictures],
        "annotations": [
            {
                "id": id_,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": area,
                "iscrowd": int(ignored),
            }
            | ({"difficult": 1} if difficult else {})
            for id_, image, category, box, area, ignored, difficult in rows
        ],
        "categories": annotations.categories.to_json(),
    }


def _subfolders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir())


def _together(root: Path, sets: Sequence[AnnotationSet], sources: Sequence[Path]) -> AnnotationSet:
    """Several files as one set."""
    for other, file in zip(sets[1:], sources[1:], strict=True):
        if other.categories != sets[0].categories:
            raise DataError(f"{sources[0]} and {file} have different categories; name one split, or one file")
    return together(root, sets)
