"""YOLO's labels: a text file per picture, a line per object, everything in fractions of the picture.

An object is a box, `label xc yc w h`, or its outline, `label x1 y1 x2 y2 ...`: one ring, which several parts and holes
are joined to by bridges that are gone over twice, so that drawing it gives the mask back.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detseg.annotations.categories import Categories
from detseg.annotations.rings import one_ring
from detseg.files import write_bytes
from detseg.geometry.boxes import xyxy_to_cxcywh
from detseg.images import ImageFile
from detseg.results import Detections
from detseg.writers.contract import Options, Picture
from detseg.writers.text import readable

_DIGITS = ".9g"  # of outlines, which run along the edges of pixels: drawn again they must give the same pixels


def yolo_lines(found: Detections, *, save_conf: bool = False) -> str:
    """`label xc yc w h` of each object, label the class index; with `save_conf` the score comes last."""
    h, w = found.image_hw
    boxes = xyxy_to_cxcywh(found.boxes.astype(np.float64)) / (w, h, w, h)
    columns = np.column_stack([boxes, found.scores]) if save_conf else boxes
    rows = zip(found.labels.tolist(), columns.tolist(), strict=True)
    return "".join(f"{label} {' '.join(f'{value:.6f}' for value in row)}\n" for label, row in rows)


def yolo_outlines(found: Detections, *, save_conf: bool = False) -> str:
    """`label x1 y1 x2 y2 ...` of each object, with `save_conf` and the score; the corners of its box without a mask."""
    h, w = found.image_hw
    lines = []
    for i, (box, score, label) in enumerate(found):
        ring = np.zeros((0, 2)) if found.masks is None else one_ring(found.masks.segmentation(i), found.image_hw)
        if len(ring) < 3:
            x1, y1, x2, y2 = box.tolist()
            ring = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
        values = (ring / (w, h)).ravel().tolist()
        words = [f"{value:{_DIGITS}}" for value in values] + ([f"{score:.6f}"] if save_conf else [])
        lines.append(f"{label} {' '.join(words)}\n")
    return "".join(lines)


class YoloWriter:
    """labels/NAME.txt for every picture, empty without objects; classes.txt names the labels in order."""

    needs_image = False
    _lines = staticmethod(yolo_lines)

    def __init__(self, out: Path, categories: Categories, options: Options) -> None:
        self.place = out / "labels"
        self._save_conf = options.save_conf
        names = (" ".join(readable(name).splitlines()) for name in categories.names)
        write_bytes(out / "classes.txt", "".join(f"{name}\n" for name in names).encode())

    def write(self, file: ImageFile, image: Picture | None, found: Detections) -> None:
        """Writes the labels of one picture."""
        lines = self._lines(found, save_conf=self._save_conf)
        write_bytes(self.place / f"{file.output}.txt", lines.encode())


class YoloSegWriter(YoloWriter):
    """The same with outlines in the place of boxes."""

    _lines = staticmethod(yolo_outlines)
