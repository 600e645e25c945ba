"""Pictures inside a report: small, each embedded once, with what is drawn on them as vectors over it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg.errors import ImageError
from detseg.images import read_image
from detseg.reports.markup import Html, tag

Box = tuple[float, float, float, float]  # xyxy in the picture's pixels
Image = NDArray[np.uint8]  # (h, w, 3) RGB

MAX_BYTES = 5_000_000  # of a report; pictures get what other parts leave
SIDE, CROP_SIDE = 640, 240  # of an embedded picture and of a crop, in pixels
_QUALITY = 78
_CAPTIONS = 12  # more words than that in one picture hide it; the tips of the boxes have them too


@dataclass(frozen=True, eq=False)
class Drawn:
    """Something drawn on a picture: a box, in a style (truth, missed, right, false, ignored), and its caption.

    `mask` is what is drawn instead of the box: (h, w) of the whole picture.
    """

    box: Box
    style: str
    caption: str
    mask: NDArray[np.bool_] | None = None


@dataclass
class Album:
    """The embedded pictures of a report. `left` bytes may still be spent; what does not fit is left out and counted."""

    left: int
    left_out: int = 0
    _numbers: count[int] = field(default_factory=count)

    def spend(self, content: Html) -> Html | None:
        """The content, if there is room for it."""
        size = len(content.encode())
        if size > self.left:
            self.left_out += 1
            return None
        self.left -= size
        return content

    def number(self) -> str:
        """A name for an embedded picture that no other has."""
        return f"p{next(self._numbers)}"


def embedded(image: Image, side: int = SIDE) -> tuple[str, float]:
    """A data URI of the picture as JPEG, its longer side at most `side`, and how far it was shrunk (<= 1)."""
    h, w = image.shape[:2]
    scale = min(1.0, side / max(h, w))
    if scale < 1:
        size = (max(1, round(w * scale)), max(1, round(h * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    _, coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(coded.tobytes()).decode()}", scale


def embedded_map(colours: NDArray[np.uint8], side: int = SIDE) -> str:
    """A data URI of (h, w, 3 or 4) flat colours as PNG, shrunk without mixing them."""
    h, w = colours.shape[:2]
    scale = min(1.0, side / max(h, w))
    if scale < 1:
        size = (max(1, round(w * scale)), max(1, round(h * scale)))
        colours = np.asarray(cv2.resize(colours, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    swapped = colours[..., [2, 1, 0, 3][: colours.shape[2]]]
    _, coded = cv2.imencode(".png", np.ascontiguousarray(swapped), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return f"data:image/png;base64,{base64.b64encode(coded.tobytes()).decode()}"


def opened(read: Callable[[], Image]) -> tuple[Image | None, str]:
    """The picture, or None and why there is none."""
    try:
        return read(), ""
    except ImageError as error:
        return None, error.cause


def side_by_side(
    album: Album, image: Image | None, cause: str, hw: tuple[int, int], panels: Sequence[tuple[Html, Sequence[Drawn]]]
) -> Html:
    """The same picture for each (caption, things drawn on it); embedded once, as the panels share it."""
    number, (h, w) = album.number(), hw
    figures = []
    for position, (caption, drawn) in enumerate(panels):
        ground = _ground(image, cause, hw, number) if position == 0 else tag("use", href=f"#{number}")
        scale = max(h, w) / SIDE
        things = [_thing(d, scale, len(drawn) <= _CAPTIONS) for d in drawn]
        svg = tag("svg", ground, *things, viewBox=f"0 0 {w} {h}", class_="photo", role="img")
        figures.append(tag("figure", svg, tag("figcaption", caption)))
    return tag("div", *figures, class_="sides")


def crop(image: Image | None, cause: str, hw: tuple[int, int], drawn: Sequence[Drawn], caption: Html) -> Html:
    """The surroundings of what is drawn, as a figure."""
    x1, y1, x2, y2 = _window([d.box for d in drawn], hw)
    h, w = y2 - y1, x2 - x1
    scale = max(h, w) / CROP_SIDE
    if image is not None:
        uri, _ = embedded(image[y1:y2, x1:x2], CROP_SIDE)
        ground = tag("image", href=uri, x=x1, y=y1, width=w, height=h, preserveAspectRatio="none")
    else:
        ground = _blank(x1, y1, w, h, cause)
    things = [_thing(d, scale, False) for d in drawn]
    svg = tag("svg", ground, *things, viewBox=f"{x1} {y1} {w} {h}", class_="photo", role="img")
    return tag("figure", svg, tag("figcaption", caption))


def reader(path: object) -> Callable[[], Image]:
    """Reads a picture at its full size, upright."""
    return lambda: np.asarray(read_image(str(path)), np.uint8)


def _ground(image: Image | None, cause: str, hw: tuple[int, int], number: str) -> Html:
    h, w = hw
    if image is None:
        return tag("g", _blank(0, 0, w, h, cause), id=number)
    uri, _ = embedded(image)
    return tag("image", href=uri, width=w, height=h, preserveAspectRatio="none", id=number)


def _blank(x: int, y: int, w: int, h: int, cause: str) -> Html:
    """What stands for a picture that cannot be read."""
    size = max(w, h) / 24
    words = tag("text", f"no picture: {cause}", x=x + w / 2, y=y + h / 2, text_anchor="middle", font_size=size)
    return tag("g", tag("rect", x=x, y=y, width=w, height=h, class_="blank"), words)


def _thing(drawn: Drawn, scale: float, captioned: bool) -> Html:
    """One box or mask; a dark line under a bright one can be seen on any picture. `scale`: picture's pixels per
    embedded one."""
    x1, y1, x2, y2 = drawn.box
    tip = tag("title", drawn.caption)
    words = None
    if captioned and drawn.caption:
        size = 13.0 * scale
        y = y1 - 4 * scale if y1 > size + 4 * scale else y1 + size
        words = tag("text", drawn.caption, x=x1 + 2 * scale, y=y, font_size=size, stroke_width=3 * scale)
    path = None if drawn.mask is None else _path(drawn.mask, scale)
    if path:
        shapes = [tag("path", d=path, class_="under"), tag("path", d=path, class_=f"mask {drawn.style}")]
    else:
        box = {"x": x1, "y": y1, "width": max(x2 - x1, 0.0), "height": max(y2 - y1, 0.0)}
        shapes = [tag("rect", **box, class_="under"), tag("rect", **box, class_=drawn.style)]
    return tag("g", tip, *shapes, words)


def _path(mask: NDArray[np.bool_], scale: float) -> str:
    """The outline of a mask, as fine as the embedded picture shows it."""
    rings, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    simple = [cv2.approxPolyDP(ring, max(0.5, 0.6 * scale), True)[:, 0].tolist() for ring in rings]
    # a contour runs through the middle of the outermost pixels
    return "".join(
        "M" + "L".join(f"{x + 0.5:g},{y + 0.5:g}" for x, y in ring) + "Z" for ring in simple if len(ring) > 2
    )


def _window(boxes: Sequence[Box], hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """Around all boxes, with half their size on every side and at least a thirtieth of the picture, whole pixels."""
    h, w = hw
    sides = np.array(boxes, np.float64)
    low, high = sides[:, :2].min(axis=0), sides[:, 2:].max(axis=0)
    middle, reach = (low + high) / 2, max(float((high - low).max()), max(h, w) / 15, 24.0)
    x1, y1 = np.floor(np.clip(middle - reach, 0, [max(w - 1, 0), max(h - 1, 0)])).astype(int).tolist()
    x2, y2 = np.ceil(np.clip(middle + reach, [x1 + 1, y1 + 1], [max(w, x1 + 1), max(h, y1 + 1)])).astype(int).tolist()
    return x1, y1, x2, y2
