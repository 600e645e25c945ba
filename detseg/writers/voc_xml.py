"""Pascal VOC's annotations: an XML file per picture, pixels counted from 1, the last one included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detseg.annotations.categories import Categories
from detseg.files import write_bytes
from detseg.images import ImageFile
from detseg.results import Detections
from detseg.writers.contract import Options, Picture
from detseg.writers.text import to_xml

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def voc_pixels(found: Detections) -> NDArray[np.int64]:
    """(n, 4) xmin, ymin, xmax, ymax: the box's edges at the nearest whole pixel, then x1 + 1, y1 + 1, x2, y2.

    At least one pixel, and inside the picture: tools that read VOC expect whole numbers within its size.
    """
    h, w = found.image_hw
    edges = np.rint(found.boxes).astype(np.int64)
    first = np.clip(edges[:, :2], 0, np.array([w - 1, h - 1])) + 1
    last = np.clip(edges[:, 2:], first, np.array([w, h]))
    return np.concatenate([first, last], axis=1)


def voc_xml(file: ImageFile, found: Detections, categories: Categories, *, save_conf: bool = False) -> str:
    """The whole annotation of one picture; with `save_conf` each object has a `confidence`."""
    h, w = found.image_hw
    lines = [
        "<annotation>",
        f"  <folder>{to_xml(file.name.parent.as_posix())}</folder>",
        f"  <filename>{to_xml(file.name.name)}</filename>",
        f"  <size><width>{w}</width><height>{h}</height><depth>3</depth></size>",
        "  <segmented>0</segmented>",
    ]
    for pixels, score, label in zip(voc_pixels(found).tolist(), found.scores, found.labels, strict=True):
        corners = "".join(f"<{tag}>{at}</{tag}>" for tag, at in zip(_CORNERS, pixels, strict=True))
        lines += [
            "  <object>",
            f"    <name>{to_xml(categories.names[label])}</name>",
            "    <pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>",
            f"    <bndbox>{corners}</bndbox>",
            *([f"    <confidence>{score:.6f}</confidence>"] if save_conf else []),
            "  </object>",
        ]
    return "\n".join([*lines, "</annotation>\n"])


class VocWriter:
    """voc/NAME.xml for every picture."""

    needs_image = False

    def __init__(self, out: Path, categories: Categories, options: Options) -> None:
        self.place = out / "voc"
        self._categories, self._save_conf = categories, options.save_conf

    def write(self, file: ImageFile, image: Picture | None, found: Detections) -> None:
        """Writes the annotation of one picture."""
        page = voc_xml(file, found, self._categories, save_conf=self._save_conf)
        write_bytes(self.place / f"{file.output}.xml", page.encode())
