"""YOLO's labels: a text file per picture, a line per object, everything in fractions of the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detseg.annotations.categories import Categories
from detseg.files import write_bytes
from detseg.geometry.boxes import xyxy_to_cxcywh
from detseg.images import ImageFile
from detseg.results import Detections
from detseg.writers.contract import Options, Picture
from detseg.writers.text import readable


def yolo_lines(found: Detections, *, save_conf: bool = False) -> str:
    """`label xc yc w h` of each object, label the class index; with `save_conf` the score comes last."""
    h, w = found.image_hw
    boxes = xyxy_to_cxcywh(found.boxes.astype(np.float64)) / (w, h, w, h)
    columns = np.column_stack([boxes, found.scores]) if save_conf else boxes
    rows = zip(found.labels.tolist(), columns.tolist(), strict=True)
    return "".join(f"{label} {' '.join(f'{value:.6f}' for value in row)}\n" for label, row in rows)


class YoloWriter:
    """labels/NAME.txt for every picture, empty without objects; classes.txt names the labels in order."""

    needs_image = False

    def __init__(self, out: Path, categories: Categories, options: Options) -> None:
        self.place = out / "labels"
        self._save_conf = options.save_conf
        names = (" ".join(readable(name).splitlines()) for name in categories.names)
        write_bytes(out / "classes.txt", "".join(f"{name}\n" for name in names).encode())

    def write(self, file: ImageFile, image: Picture | None, found: Detections) -> None:
        """Writes the labels of one picture."""
        lines = yolo_lines(found, save_conf=self._save_conf)
        write_bytes(self.place / f"{file.output}.txt", lines.encode())
