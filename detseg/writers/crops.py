"""Each object cut out, sorted into folders by class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detseg.annotations.categories import Categories
from detseg.images import ImageFile
from detseg.results import Detections
from detseg.writers.contract import Options, Picture
from detseg.writers.picture_file import ending_for, write_picture
from detseg.writers.text import folder_names


def crop(image: Picture, box: np.ndarray) -> Picture:
    """The pixels of `image` that `box` (4,) xyxy touches; at least one."""
    h, w = image.shape[:2]
    left, top = (int(np.clip(np.floor(at), 0, side - 1)) for at, side in zip(box[:2], (w, h), strict=True))
    right, bottom = int(min(np.ceil(box[2]), w)), int(min(np.ceil(box[3]), h))
    return image[top : max(bottom, top + 1), left : max(right, left + 1)]


class CropWriter:
    """crops/CLASS/NAME_1.jpg and so on, numbered by the place among the picture's detections."""

    needs_image = True

    def __init__(self, out: Path, categories: Categories, options: Options) -> None:
        self.place = out / "crops"
        self._folders = folder_names(categories.names)

    def write(self, file: ImageFile, image: Picture | None, found: Detections) -> None:
        """Writes the crops of one picture."""
        assert image is not None
        for number, (box, _, label) in enumerate(found, start=1):
            pixels = crop(image, box)
            ending = ending_for(".jpg", (pixels.shape[0], pixels.shape[1]))
            write_picture(self.place / self._folders[label] / f"{file.output}_{number}{ending}", pixels)
