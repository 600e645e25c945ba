"""The picture with its objects drawn in: boxes and masks in the colour of the class, labels that can be read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg.annotations.categories import Categories
from detseg.annotations.semantic import IGNORE
from detseg.geometry import rle as run_lengths
from detseg.images import ImageFile
from detseg.results import Detections
from detseg.writers.contract import Options, Picture
from detseg.writers.picture_file import ending_for, write_picture
from detseg.writers.text import readable

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

Colour = tuple[int, int, int]  # RGB
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in whole pixels

_SHADE = 0.4  # of a class's colour over the pixels of a mask
_MAP_SHADE = 0.55  # and of a label map
_GREY = (150, 150, 150)
_NOTHING = ("background", "bg", "_background_", "none")


@dataclass(frozen=True)
class Style:
    """Sizes in pixels that suit a picture."""

    line: int
    font: int

    @classmethod
    def for_picture(cls, hw: tuple[int, int]) -> Style:
        """Lines and letters grow with the picture, more slowly than it does; never too small to read."""
        side = float(np.sqrt(hw[0] * hw[1]))
        letters = min(6 + 0.016 * side, max(8.0, 0.4 * min(hw)))
        return cls(line=max(1, round(0.8 + 0.0025 * side)), font=max(8, round(letters)))


def class_colour(label: int) -> Colour:
    """The colour of a class: the same in every picture, and far from those of its neighbours."""
    turn = (0.58 + label * 0.618034) % 1.0  # golden ratio: hues never repeat and always spread
    saturation, value = ((0.80, 0.98), (0.95, 0.82), (0.60, 1.0))[label // 6 % 3]
    pixel = np.array([[[turn * 360, saturation, value]]], np.float32)
    red, green, blue = (cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] * 255).round().astype(int).tolist()
    return red, green, blue


def draw(image: Picture, found: Detections, categories: Categories) -> Picture:
    """A copy of `image` (h, w, 3) RGB with every object's mask, box, name and score; the best ones lie on top."""
    canvas = image.copy()
    style = Style.for_picture((image.shape[0], image.shape[1]))
    best_first = found.by_score()
    rectangles = _rectangles(best_first, canvas.shape)
    masks = best_first.masks
    for i, (rectangle, label) in reversed(list(enumerate(zip(rectangles, best_first.labels.tolist(), strict=True)))):
        if masks is not None:
            draw_mask(canvas, masks.rle(i), class_colour(label), style.line)
        draw_box(canvas, rectangle, class_colour(label), style.line if masks is None else max(1, style.line // 2))
    placed = Placed(canvas.shape[0], canvas.shape[1])
    labels = []
    for rectangle, (_, score, label) in zip(rectangles, best_first, strict=True):
        tile = _fitting_tile(categories.names[label], score, style.font, label, canvas.shape[1])
        if tile is not None:
            labels.append((tile, placed.find(rectangle, tile.shape)))
    for tile, spot in reversed(labels):
        paste(canvas, tile, spot)
    return canvas


def is_clear(label: int, categories: Categories) -> bool:
    """Is this class what most pixels are in many sets, and so left as it is?"""
    return label == 0 and categories.names[label].lower() in _NOTHING


def map_colours(label_map: NDArray[np.uint8], categories: Categories) -> NDArray[np.uint8]:
    """(h, w) class indices -> (h, w, 4) RGBA; background is clear, pixels that do not count are grey."""
    table = np.zeros((256, 4), np.uint8)
    for index in range(len(categories)):
        table[index] = (0, 0, 0, 0) if is_clear(index, categories) else (*class_colour(index), 255)
    table[IGNORE] = (*_GREY, 255)
    return table[label_map]


def shaded(image: Picture, label_map: NDArray[np.uint8], categories: Categories) -> Picture:
    """A copy of `image` (h, w, 3) RGB with each class's colour over its pixels."""
    colours = map_colours(label_map, categories)
    alpha = colours[..., 3:].astype(np.float32) / 255 * _MAP_SHADE
    return np.rint(image + (colours[..., :3] - image.astype(np.float32)) * alpha).astype(np.uint8)


def _rectangles(found: Detections, shape: tuple[int, ...]) -> list[Rectangle]:
    """The first and last pixels of each box, inside the picture."""
    h, w = shape[:2]
    pixels = np.rint(found.boxes).astype(int)
    first = np.clip(pixels[:, :2], 0, (w - 1, h - 1))
    last = np.clip(pixels[:, 2:] - 1, first, (w - 1, h - 1))
    return [(*a, *b) for a, b in zip(first.tolist(), last.tolist(), strict=True)]


def draw_box(canvas: Picture, rectangle: Rectangle, colour: Colour, line: int) -> None:
    """A frame that lies inside the box, so that it is whole at the picture's edge too."""
    left, top, right, bottom = rectangle
    line = max(1, min(line, min(right - left, bottom - top) // 6))  # small objects stay visible
    for edge in (
        (slice(top, top + line), slice(left, right + 1)),
        (slice(max(bottom - line + 1, top), bottom + 1), slice(left, right + 1)),
        (slice(top, bottom + 1), slice(left, left + line)),
        (slice(top, bottom + 1), slice(max(right - line + 1, left), right + 1)),
    ):
        canvas[edge] = colour


def draw_mask(canvas: Picture, rle: dict[str, Any], colour: Colour, line: int) -> None:
    """The pixels of a mask {"size", "counts"} shaded with `colour`, and the line around them."""
    xs, ys = np.divmod(run_lengths.places(rle), canvas.shape[0])
    if not len(xs):
        return
    left, top = int(xs.min()), int(ys.min())
    inside = np.zeros((int(ys.max()) - top + 1, int(xs.max()) - left + 1), np.uint8)
    inside[ys - top, xs - left] = 1
    pixels = canvas[ys, xs]
    canvas[ys, xs] = np.rint(pixels + (np.array(colour, np.float32) - pixels) * np.float32(_SHADE)).astype(np.uint8)
    rings, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(left, top))
    cv2.drawContours(canvas, rings, -1, colour, line, cv2.LINE_AA)


class Placed:
    """Where labels are already, so that the next one finds a free place."""

    def __init__(self, h: int, w: int) -> None:
        self._hw = (h, w)
        self._rectangles: list[Rectangle] = []

    def find(self, box: Rectangle, tile: tuple[int, ...]) -> tuple[int, int]:
        """(left, top) of a label: above the box, in it or under it, where it is free."""
        (h, w), (tile_h, tile_w) = self._hw, tile[:2]
        left, top, right, bottom = box
        outside, inside, under = top - tile_h, top, bottom + 1
        tops = [at for at in (outside, inside, under) if 0 <= at <= h - tile_h] or [max(0, h - tile_h)]
        lefts = [min(max(at, 0), w - tile_w) for at in (left, right + 1 - tile_w)]
        spots = [(x, y) for x in lefts for y in tops]
        spot = next((s for s in spots if self._is_free(s, tile_h, tile_w)), spots[0])
        self._rectangles.append((spot[0], spot[1], spot[0] + tile_w, spot[1] + tile_h))
        return spot

    def _is_free(self, spot: tuple[int, int], tile_h: int, tile_w: int) -> bool:
        x, y = spot
        return not any(
            x < right and left < x + tile_w and y < bottom and top < y + tile_h
            for left, top, right, bottom in self._rectangles
        )


def paste(canvas: Picture, tile: Picture, spot: tuple[int, int]) -> None:
    x, y = spot
    window = canvas[y : y + tile.shape[0], x : x + tile.shape[1]]
    window[:] = tile[: window.shape[0], : window.shape[1]]


def _fitting_tile(name: str, score: float, size: int, label: int, width: int) -> Picture | None:
    """The label with as much text as the picture is wide enough for; None when not even a part fits."""
    name = " ".join(readable(name).split())
    for text in (f"{name} {score:.2f}", name, name[:4], name[:1]):
        tile = label_tile(text, size, class_colour(label))
        if tile.shape[1] <= width:
            return tile
    return None


@lru_cache(maxsize=2048)
def label_tile(text: str, size: int, colour: Colour) -> Picture:
    """(h, w, 3) the text on a ground of `colour`, in black or white, whichever stands out more."""
    font = _font(size)
    ascent, descent = font.getmetrics() if hasattr(font, "getmetrics") else (size, size // 4)
    pad = max(2, round(0.3 * size))
    mask = _mask(text, font)
    top = font.getbbox(text)[1]
    height, width = ascent + descent + max(2, pad // 2), mask.shape[1] + 2 * pad
    alpha = np.zeros((height, width, 1), np.float32)
    y = round(max(0, (height - ascent - descent) // 2 + top))
    alpha[y : y + mask.shape[0], pad : pad + mask.shape[1], 0] = mask[: height - y] / 255
    ground, ink = np.array(colour, np.float32), np.array(_ink(colour), np.float32)
    return np.rint(ground + (ink - ground) * alpha).astype(np.uint8)


def _ink(ground: Colour) -> Colour:
    """Black or white: the one with the higher contrast (WCAG's relative luminance)."""
    linear = (np.array(ground) / 255) ** 2.2
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return (0, 0, 0) if luminance > 0.18 else (255, 255, 255)


def _mask(text: str, font: FreeTypeFont | ImageFont) -> NDArray[np.uint8]:
    """(h, w) how much of each pixel the letters cover."""
    mask: Any = font.getmask(text, mode="L")
    w, h = mask.size
    return np.array(mask, np.uint8).reshape(h, w)


@cache
def _font(size: int) -> FreeTypeFont | ImageFont:
    """DejaVu Sans Bold, which comes with matplotlib; failing that, Pillow's own font."""
    from PIL import ImageFont

    matplotlib = find_spec("matplotlib")  # looked up, not imported
    for folder in (matplotlib.submodule_search_locations or ()) if matplotlib else ():
        path = Path(folder, "mpl-data", "fonts", "ttf", "DejaVuSans-Bold.ttf")
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


class OverlayWriter:
    """images/NAME for every picture, in its own format where that can be written, else JPEG or PNG."""

    needs_image = True

    def __init__(self, out: Path, categories: Categories, options: Options) -> None:
        self.place = out / "images"
        self._categories = categories

    def write(self, file: ImageFile, image: Picture | None, found: Detections) -> None:
        """Writes the annotated picture."""
        assert image is not None
        ending = ending_for(file.name.suffix, (image.shape[0], image.shape[1]))
        write_picture(self.place / f"{file.output}{ending}", draw(image, found, self._categories))
