"""Pixels to picture files, through cv2, in one step. The way in is `detseg.images`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from detseg.errors import DetsegError
from detseg.files import write_bytes
from detseg.writers.contract import Picture

_ENCODERS = {
    ".jpg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 90]),
    ".jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 90]),
    ".jfif": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 90]),
    ".webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 90]),
    ".png": (".png", []),
    ".bmp": (".bmp", []),
    ".tif": (".tiff", []),
    ".tiff": (".tiff", []),
}
_LONGEST_SIDE = {".jpg": 65_500, ".webp": 16_383}
_INSTEAD = {".gif": ".png"}


def ending_for(name_ending: str, image_hw: tuple[int, int]) -> str:
    """The ending, and so the format, in which a picture named like this and of this size can be written."""
    ending = name_ending if name_ending.lower() in _ENCODERS else _INSTEAD.get(name_ending.lower(), ".jpg")
    encoder = _ENCODERS[ending.lower()][0]
    return ending if max(image_hw) <= _LONGEST_SIDE.get(encoder, max(image_hw)) else ".png"


def write_picture(path: Path, image: Picture) -> None:
    """Writes (h, w, 3) uint8 RGB in the format of the ending. Raises DetsegError."""
    encoder, options = _ENCODERS[path.suffix.lower()]
    try:
        done, encoded = cv2.imencode(encoder, cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR), options)
    except cv2.error as error:
        raise DetsegError(f"{path}: the picture cannot be encoded: {error.err}") from error
    if not done:
        raise DetsegError(f"{path}: the picture cannot be encoded")
    write_bytes(path, encoded.tobytes())
