"""CVAT, DOTA and Open Images written through hotcoco, their files named as `foreign` finds them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from detseg import files
from detseg.annotations import not_kept
from detseg.annotations.coco import to_coco
from detseg.annotations.dataset import AnnotationSet
from detseg.annotations.foreign import LABEL_FOLDERS, ForeignFormat
from detseg.annotations.not_kept import NotKept
from detseg.annotations.rings import losses_of, one_ring
from detseg.annotations.voc_write import one_line
from detseg.errors import DataError
from detseg.geometry.boxes import xyxy_to_cxcywh

# the digits that hotcoco writes
_CVAT_STEP = 0.01  # pixels
_DOTA_STEP = 0.1  # pixels
_OID_STEP = 1e-6  # of the picture


def write_foreign(annotations: AnnotationSet, root: Path, split: str | None, format: ForeignFormat) -> list[NotKept]:
    """Writes annotations of one split under `root`, no picture; gives what was not kept.

    CVAT: `<split>.xml`, coordinates to 0.01 px; DOTA: labelTxt/<split>/*.txt, 0.1 px; Open Images: `<split>.csv`,
    a millionth of the picture's side. Raises DataError for pictures whose size is unknown.
    """
    unknown = np.flatnonzero(annotations.image_hw.min(axis=1, initial=1) < 1)
    if len(unknown):
        raise DataError(f"{annotations.image_files[unknown[0]]}: its size is unknown, so it cannot be written")
    writers = {"cvat": _write_cvat, "dota": _write_dota, "openimages": _write_oid}
    kinds = writers[format](annotations, root, split)
    ids = int((annotations.ids != np.arange(1, len(annotations.ids) + 1)).sum())
    images = int((annotations.image_ids != np.arange(1, len(annotations) + 1)).sum())
    return not_kept.merge(
        [
            kinds,
            [
                NotKept("ids", ids, "annotation ids are not kept: the format has none"),
                NotKept("image-ids", images, "picture ids are not kept: the format has none"),
            ],
        ]
    )


def _write_cvat(annotations: AnnotationSet, root: Path, split: str | None) -> list[NotKept]:
    """An object with an outline is one polygon, without a box."""
    names = [one_line(name) for name in annotations.categories.names]
    content, file = _content(annotations, names), root / f"{split or 'annotations'}.xml"
    kept: list[Any] = []
    losses: list[NotKept] = []
    for row, annotation in enumerate(content["annotations"]):
        outline = annotations.outlines.segmentation(row)
        annotation["segmentation"] = []
        if annotations.ignored[row]:
            continue
        if outline is not None:
            hw = tuple(annotations.image_hw[int(annotations.image_index[row])].tolist())
            ring = one_ring(outline, hw)
            annotation["segmentation"] = [ring.ravel().tolist()] if len(ring) >= 3 else []
            losses += losses_of(ring, annotations.boxes[row], outline)
        kept.append(annotation)
    content["annotations"] = kept
    with tempfile.TemporaryDirectory() as folder:
        _hotcoco(content).to_cvat(f"{folder}/a.xml")
        files.write_bytes(file, Path(folder, "a.xml").read_bytes())
    return [
        *not_kept.merge([losses]),
        *_ignored_left_out(annotations, "CVAT"),
        NotKept("rounding", len(kept), "objects are rounded to hundredths of a pixel", _CVAT_STEP / 2),
    ]


def _write_dota(annotations: AnnotationSet, root: Path, split: str | None) -> list[NotKept]:
    folder = root / LABEL_FOLDERS[0] / (split or "")
    names = ["_".join(one_line(name).split()) for name in annotations.categories.names]
    stems = [Path(name).stem for name in annotations.image_files]
    if len(set(stems)) < len(stems) or len(set(names)) < len(names):
        raise DataError(f"{folder}: two pictures, or two classes, would have the same name in a DOTA tree")
    content = _content(annotations, names)
    for picture, stem in zip(content["images"], stems, strict=True):
        picture["file_name"] = stem
    for annotation, box in zip(content["annotations"], xyxy_to_cxcywh(annotations.boxes).tolist(), strict=True):
        annotation["obb"] = [*box, 0.0]
    with tempfile.TemporaryDirectory() as place:
        _hotcoco(content).to_dota(place)
        for stem in stems:
            written = Path(place, f"{stem}.txt")
            files.write_bytes(folder / f"{stem}.txt", written.read_bytes() if written.is_file() else b"")
    files.write_text(root / "classes.txt", "".join(f"{name}\n" for name in names))
    renamed = sum(a != b for a, b in zip(names, annotations.categories.names, strict=True))
    return [
        NotKept("outlines", int(annotations.outlines.has.sum()), "outlines are left out, their boxes are written"),
        NotKept("crowd", int(annotations.crowd.sum()), "crowd regions become difficult objects: DOTA knows no crowds"),
        NotKept("names", renamed, "class names are changed: DOTA's have no spaces"),
        NotKept("category-ids", _not_from_one(annotations), "category ids count from 1 now"),
        NotKept("rounding", len(annotations.boxes), "boxes are rounded to tenths of a pixel", _DOTA_STEP / 2),
    ]


def _write_oid(annotations: AnnotationSet, root: Path, split: str | None) -> list[NotKept]:
    content = _content(annotations, [one_line(name) for name in annotations.categories.names])
    stems = [Path(name).stem for name in annotations.image_files]
    if len(set(stems)) < len(stems):
        raise DataError(f"{root}: two pictures have the same stem, by which Open Images names them")
    for annotation, ignored in zip(content["annotations"], annotations.ignored.tolist(), strict=True):
        annotation["is_group_of"] = bool(ignored)
    with tempfile.TemporaryDirectory() as folder:
        _hotcoco(content).to_oid(f"{folder}/a.csv")
        files.write_bytes(root / f"{split or 'annotations'}.csv", Path(folder, "a.csv").read_bytes())
    bare = int((np.diff(annotations.starts) == 0).sum())
    difficult = int((annotations.difficult & ~annotations.crowd).sum())
    worst = float(annotations.image_hw.max(initial=0)) * _OID_STEP / 2
    return [
        NotKept("outlines", int(annotations.outlines.has.sum()), "outlines are left out, their boxes are written"),
        NotKept("difficult", difficult, "difficult objects become groups: Open Images knows no difficult ones"),
        NotKept("empty-pictures", bare, "pictures without objects are not named in the file"),
        NotKept("category-ids", _not_from_one(annotations), "category ids count from 1 now"),
        NotKept("rounding", len(annotations.boxes), "boxes are rounded to millionths of the picture", worst),
    ]


def _content(annotations: AnnotationSet, names: list[str] | None = None) -> dict[str, Any]:
    content = to_coco(annotations)
    for category, name in zip(content["categories"], names or annotations.categories.names, strict=True):
        category["name"] = name
    return content


def _hotcoco(content: dict[str, Any]) -> Any:
    import hotcoco

    for place, picture in enumerate(content["images"]):  # it takes no negative ids
        picture["was"] = picture["id"]
        picture["id"] = place + 1
    new = {picture.pop("was"): picture["id"] for picture in content["images"]}
    categories = {c["id"]: place + 1 for place, c in enumerate(content["categories"])}
    for category in content["categories"]:
        category["id"] = categories[category["id"]]
    for place, annotation in enumerate(content["annotations"]):
        annotation["id"] = place + 1
        annotation["image_id"] = new[annotation["image_id"]]
        annotation["category_id"] = categories[annotation["category_id"]]
    return hotcoco.COCO(content)


def _ignored_left_out(annotations: AnnotationSet, name: str) -> list[NotKept]:
    crowd, difficult = int(annotations.crowd.sum()), int((annotations.difficult & ~annotations.crowd).sum())
    return [
        NotKept("crowd", crowd, f"crowd regions are left out: {name} cannot say 'ignored'"),
        NotKept("difficult", difficult, f"difficult objects are left out: {name} cannot say 'ignored'"),
    ]


def _not_from_one(annotations: AnnotationSet) -> int:
    wanted = np.arange(1, len(annotations.categories) + 1)
    return 0 if np.array_equal(annotations.categories.ids, wanted) else len(wanted)
