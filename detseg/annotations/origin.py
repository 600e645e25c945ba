"""Where in a data set's own files the truth of a picture stands, in words: what to open when it makes trouble."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from detseg.annotations.dataset import AnnotationSet
from detseg.annotations.draft import Draft
from detseg.annotations.mask_files import MaskFiles
from detseg.annotations.semantic import Painted, SemanticSet
from detseg.annotations.yolo_labels import label_file, read_labels


def origin_of(truth: AnnotationSet | SemanticSet, image: int) -> str:
    """COCO: the ids of the annotations. YOLO: label file and lines. VOC: XML file. Masks: mask file.

    Of other formats the rows of the set, which count from 1.
    """
    if isinstance(truth, SemanticSet):
        source = truth.source
        if isinstance(source, Painted):
            return origin_of(source.truth, image)
        return str(source.files[image]) if isinstance(source, MaskFiles) else "its label map"
    rows = range(len(truth.boxes))[truth.rows(image)]
    if not rows:
        return "no annotation"
    if truth.format == "coco":
        return f"annotations {_listed(truth.ids[truth.rows(image)].tolist())}"
    path = truth.image_path(image)
    if truth.format == "yolo":
        file = Path(label_file(str(path)))
        lines = read_labels(file, Draft(truth.root, truth.format)) or []  # its faults were told when it was read
        return f"{file}, lines {_listed(line.number for line in lines)}"
    if truth.format == "voc":
        return f"{truth.root / 'Annotations' / path.stem}.xml, its {len(rows)} objects"
    return f"annotations {_listed(row + 1 for row in rows)} of the data set"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
