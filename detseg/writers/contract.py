"""What a format must offer, in two kinds: one file per picture, or one file for the whole run.

The kinds differ in who may call them. A picture's own files touch nothing else, so threads may write them at
once; what gathers all pictures is written by one caller, in the order of the pictures. What was found is Detections
or a LabelMap: `opening` says which formats are for which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detseg.images import ImageFile

Picture = NDArray[np.uint8]  # (h, w, 3) RGB, upright, the size that the detections speak of


@dataclass(frozen=True)
class Options:
    """What formats can be told.

    `save_conf`: scores also where a format leaves them out (YOLO, VOC). `image_ids`: the data set's own id of
    each picture by its name; without, pictures are numbered from 1.
    """

    save_conf: bool = False
    image_ids: Mapping[str, int] | None = field(default=None, hash=False)


class PictureWriter(Protocol):
    """A format with files for each picture. `place` is the folder they are in."""

    place: Path
    needs_image: bool

    def write(self, file: ImageFile, image: Picture | None, found: Any) -> None:
        """Writes what belongs to this picture alone; several threads may call it. Raises DetsegError."""
        ...


class RunWriter(Protocol):
    """A format with one file for all pictures. `place` is that file, complete only after `close`."""

    place: Path

    def append(self, file: ImageFile, found: Any) -> None:
        """Adds one picture; called by one thread, in order. Raises DetsegError."""
        ...

    def close(self) -> None:
        """Ends the file well and puts it in its place, also after a run cut short. Raises DetsegError."""
        ...
