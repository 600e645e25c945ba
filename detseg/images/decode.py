"""Pictures from files: always RGB, 8 bit, upright, whichever library decodes them.

JPEG goes through cv2 (fast, and it can shrink while it decodes); all else through Pillow, which is strict
about damaged files, and back to cv2 for the TIFFs that Pillow does not know. What is decided here, for every
format:

- the EXIF orientation is applied, once; colour profiles are not;
- transparent pixels are laid on white: what lies under them is arbitrary and was never meant to be seen;
- 16-bit values keep their high byte (the full range is 0..65535, also when a camera used 12 of the bits);
- other numbers (float, 32-bit): 0..1 becomes 0..255, 0..255 stays, any other range is stretched to 0..255;
- of several frames or pages the first one is taken;
- a picture of more than `MAX_PIXELS` is refused.
"""

from __future__ import annotations

import errno
import os
import stat
import warnings
from contextlib import suppress
from functools import cache
from importlib import import_module
from io import BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from detseg.errors import ImageError
from detseg.images.header import (
    Buffer,
    Header,
    exif_orientation,
    jpeg_is_complete,
    read_header,
    upright_tiff,
)

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

Picture = NDArray[np.uint8]  # (h, w, 3) RGB

_IMREAD_RGB: int = getattr(cv2, "IMREAD_COLOR_RGB", 0)  # older versions lack it
MAX_PIXELS = 400_000_000  # 1.2 GB of RGB
_LIMIT = f"at most {MAX_PIXELS // 1_000_000} million pixels are read; shrink it first"
# only formats that are decoded by plain code: Pillow would start other programs for some (EPS)
_PILLOW_PLUGINS = ("Jpeg", "Png", "Gif", "Bmp", "WebP", "Tiff", "Ppm", "Jpeg2K", "Avif")
_PILLOW_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
_UNREADABLE_KINDS = {b"ftyphei": "HEIC", b"ftypmif": "HEIC", b"ftypavi": "AVIF", b"ftyp": "video"}

if "OPENCV_LOG_LEVEL" not in os.environ:
    # every failure becomes an ImageError that names the file; cv2's own lines on stderr do not
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_image(path: str | Path, *, target_hw: tuple[int, int] | None = None) -> Picture:
    """The picture at `path`: (h, w, 3) uint8 RGB, upright.

    `target_hw` is the upright size it will be shrunk to anyway: a JPEG that is at least twice as large in
    both sides is then decoded at 1/2, 1/4 or 1/8 of its size, never below the target, which is several times
    faster. Raises ImageError, naming the path and the cause.
    """
    return read_image_and_hw(path, target_hw=target_hw)[0]


def read_image_and_hw(path: str | Path, *, target_hw: tuple[int, int] | None = None) -> tuple[Picture, tuple[int, int]]:
    """The picture as `read_image` gives it, and the upright (h, w) of the file, which may be larger."""
    try:
        with _open(path) as file:
            data = file.read()
    except OSError as error:
        raise ImageError(path, _file_cause(path, error)) from None
    try:
        return _decode(data, target_hw)
    except _Refused as refused:
        raise ImageError(path, str(refused)) from None
    except MemoryError:
        raise ImageError(path, "there is not enough memory for so large a picture") from None


def read_hw(path: str | Path) -> tuple[int, int]:
    """(h, w) of the picture at `path` once it is upright, from its header alone.

    Raises ImageError when there is no header to read; a file that is damaged further on is not noticed.
    """
    try:
        with _open(path) as file:
            if os.fstat(file.fileno()).st_size == 0:
                file.read()  # special files have no size, and say here that they cannot be read
                raise _Refused("the file is empty")
            with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
                return _size(data)
    except OSError as error:
        raise ImageError(path, _file_cause(path, error)) from None
    except _Refused as refused:
        raise ImageError(path, str(refused)) from None


class _Refused(Exception):
    """The content cannot become a picture; the text is the cause."""


def _open(path: str | Path) -> BinaryIO:
    try:
        mode = Path(path).stat().st_mode
    except ValueError:  # a zero byte or a letter that no file name can hold
        raise FileNotFoundError(errno.ENOENT, "no such file") from None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder")
    if not stat.S_ISREG(mode):  # reading a pipe or a device could wait for ever
        raise OSError(errno.EINVAL, "is not a regular file")
    return open(path, "rb")


def _file_cause(path: str | Path, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "a link loop: it leads back to itself"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        link = Path(path)
        return f"a dangling link: {link.readlink()} does not exist" if link.is_symlink() else "no such file"
    if error.errno == errno.EISDIR:
        return "a folder, not a picture"
    if error.errno == errno.EINVAL:
        return "not a regular file"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "cannot be read: no permission"
    return f"cannot be read: {error.strerror or error}"


def _decode(data: bytes, target_hw: tuple[int, int] | None) -> tuple[Picture, tuple[int, int]]:
    if not data:
        raise _Refused("the file is empty")
    header = read_header(data)
    if header is not None:
        _check_size(header.stored_hw)
        if not header.complete or (header.kind == "JPEG" and not jpeg_is_complete(data, header)):
            raise _Refused("truncated: the file ends before the picture does")
        if header.kind == "JPEG" and header.channels in (1, 3):
            image = _decode_jpeg(data, header, target_hw)
            if image is not None:
                return turn(image, header.orientation), header.upright_hw
    image = _decode_with_pillow(data, header)
    return image, (image.shape[0], image.shape[1])


def _decode_jpeg(data: bytes, header: Header, target_hw: tuple[int, int] | None) -> Picture | None:
    flags = _reduction(header.upright_hw, target_hw) | cv2.IMREAD_IGNORE_ORIENTATION
    file = np.frombuffer(data, np.uint8)
    image: Any
    if _IMREAD_RGB:
        image = cv2.imdecode(file, (flags & ~cv2.IMREAD_COLOR) | _IMREAD_RGB)
    else:
        image = cv2.imdecode(file, flags)
        image = None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return image


def _reduction(upright_hw: tuple[int, int], target_hw: tuple[int, int] | None) -> int:
    """cv2's flag for the smallest decoding that is still as large as the target in both sides."""
    if target_hw is not None:
        times = min(upright_hw[0] / max(target_hw[0], 1), upright_hw[1] / max(target_hw[1], 1))
        for factor, flag in (
            (8, cv2.IMREAD_REDUCED_COLOR_8),
            (4, cv2.IMREAD_REDUCED_COLOR_4),
            (2, cv2.IMREAD_REDUCED_COLOR_2),
        ):
            if times >= factor:
                return int(flag)
    return int(cv2.IMREAD_COLOR)


def turn(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(h, w, ...) as stored -> upright, for EXIF's orientation 1..8; contiguous."""
    if orientation == 1:
        return image
    turned = {
        2: lambda: image[:, ::-1],
        3: lambda: image[::-1, ::-1],
        4: lambda: image[::-1],
        5: lambda: image.swapaxes(0, 1),
        6: lambda: image[::-1].swapaxes(0, 1),
        7: lambda: image[::-1, ::-1].swapaxes(0, 1),
        8: lambda: image[:, ::-1].swapaxes(0, 1),
    }[orientation]()
    return np.ascontiguousarray(turned)


def _check_size(hw: tuple[int, int]) -> None:
    if hw[0] * hw[1] > MAX_PIXELS:
        limit = MAX_PIXELS // 1_000_000
        raise _Refused(f"too large: {hw[1]} x {hw[0]} pixels, at most {limit} million are read; shrink it first")


@cache
def _pillow() -> ModuleType:
    """Pillow's Image module, imported when the first picture needs it."""
    from PIL import Image

    for name in _PILLOW_PLUGINS:  # named one by one: asked for all it knows, Pillow takes a tenth of a second
        with suppress(ImportError):  # AVIF came late, WebP may be left out
            import_module(f"PIL.{name}ImagePlugin")
    # our own limit is checked before any pixel is read; Pillow's must not come before it
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, MAX_PIXELS)
    # what it warns of (odd tags, sizes) either does no harm or becomes an ImageError
    warnings.filterwarnings("ignore", module=r"PIL\..*")
    return Image


def _open_with_pillow(source: BinaryIO) -> PillowImage:
    pillow = _pillow()
    image: PillowImage = pillow.open(source, formats=[name for name in _PILLOW_FORMATS if name in pillow.OPEN])
    return image


def _decode_with_pillow(data: bytes, header: Header | None) -> Picture:
    content = upright_tiff(data, header) if header is not None else data
    try:
        with _open_with_pillow(BytesIO(content)) as opened:
            _check_size((opened.height, opened.width))
            orientation = header.orientation if header is not None else exif_orientation(_exif(opened))
            opened.load()
            return turn(_to_rgb(opened), orientation)
    except (_Refused, MemoryError):
        raise
    except Exception as error:  # Pillow raises anything from SyntaxError to zlib.error on damaged files
        if header is not None and header.kind == "TIFF":
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
            if image is not None:
                return turn(_array_to_rgb(_from_bgr(image)), header.orientation)
        raise _Refused(_content_cause(data, header, error)) from None


def _exif(image: PillowImage) -> bytes:
    found = image.info.get("exif", b"")
    return found if isinstance(found, bytes) else b""


def _size(data: Buffer) -> tuple[int, int]:
    header = read_header(data)
    if header is not None and min(header.stored_hw) > 0:
        return header.upright_hw
    try:
        with _open_with_pillow(BytesIO(data) if isinstance(data, bytes) else data) as opened:  # type: ignore[arg-type]
            h, w = opened.height, opened.width
            orientation = header.orientation if header is not None else exif_orientation(_exif(opened))
    except Exception as error:
        raise _Refused(_content_cause(data[:4096], header, error)) from None
    return (w, h) if orientation >= 5 else (h, w)


def _content_cause(data: bytes, header: Header | None, error: Exception) -> str:
    """Why the content is no picture, in words."""
    if header is not None and not header.complete:
        return "truncated: the file ends before the picture does"
    text = str(error)
    if "truncated" in text.lower():
        return "truncated: the file ends before the picture does"
    if type(error).__name__ == "DecompressionBombError":
        return f"too large: {_LIMIT}"
    unknown = type(error).__name__ == "UnidentifiedImageError"
    if header is not None or not unknown:
        return f"damaged: {'its header makes no sense' if unknown else text or type(error).__name__}"
    for magic, kind in _UNREADABLE_KINDS.items():
        if data[4:12].startswith(magic):
            return f"not a picture that can be read ({kind}); convert it to JPEG or PNG"
    if not any(byte < 9 for byte in data[:512]):
        return "not a picture: it holds text"
    return "not a picture of a known kind"


def _to_rgb(image: PillowImage) -> Picture:
    """Any Pillow picture -> (h, w, 3) uint8 RGB."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return _array_to_rgb(np.asarray(image).astype(np.uint16))
    if image.mode in ("I", "F"):
        return _array_to_rgb(np.asarray(image))
    if image.mode in ("LA", "PA", "La", "RGBa", "RGBA") or "transparency" in image.info:
        return _on_white(image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _on_white(image: PillowImage) -> Picture:
    clear = image.convert("RGBA")
    white = _pillow().new("RGB", image.size, (255, 255, 255))
    white.paste(clear, mask=clear.getchannel("A"))
    return np.array(white)


def _from_bgr(image: NDArray[Any]) -> NDArray[Any]:
    """cv2's order of channels -> RGB or RGBA; grey stays."""
    return image if image.ndim == 2 else image[..., [2, 1, 0, 3][: image.shape[2]]]


def _array_to_rgb(image: NDArray[Any]) -> Picture:
    """(h, w) grey, (h, w, 3) RGB or (h, w, 4) RGBA of any numbers -> (h, w, 3) uint8 RGB."""
    eight = _to_8_bit(image)
    if eight.ndim == 2:
        return np.repeat(eight[..., None], 3, axis=2)
    if eight.shape[2] == 3:
        return np.ascontiguousarray(eight)
    return _on_white(_pillow().fromarray(eight))


def _to_8_bit(image: NDArray[Any]) -> NDArray[np.uint8]:
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    values = np.nan_to_num(image.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    return np.rint((values - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
