"""A folder with all that real folders of pictures hold: odd but good pictures, bad ones, odd names, links."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

GOOD = "good"
ODD_NAMES = (
    "with space.jpg",
    'quote\'s "and" comma,semi;colon.jpg',
    "line\nbreak.jpg",
    "größe 写真 снимок.jpg",
    os.fsdecode(b"latin1-caf\xe9.jpg"),  # not UTF-8: reaches Python as a surrogate
    "100%[a]*{b}.jpg",
    "-dash.jpg",
    "two.dots.jpg",
)


def sample_picture(h: int = 48, w: int = 64) -> Image.Image:
    """Different in every orientation: red grows to the right, green downwards, one corner is blue."""
    pixels = np.zeros((h, w, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, w)[None, :]
    pixels[..., 1] = np.linspace(0, 255, h)[:, None]
    pixels[: h // 3, : w // 3, 2] = 255
    return Image.fromarray(pixels)


def make_bad_inputs(folder: Path) -> dict[str, str]:
    """Fills `folder`; gives for each picture, by its path inside, "good" or a word of the cause.

    What is not in the answer (hidden files, notes, other endings) is to be passed over in silence.
    """
    folder.mkdir(parents=True, exist_ok=True)
    expected = dict.fromkeys(_write_good(folder), GOOD)
    expected |= _write_bad(folder) | _write_links(folder)
    (folder / ".hidden.jpg").write_bytes(b"not looked at")
    (folder / "notes.md").write_text("not a picture, and not named like one")
    return expected


def jpeg_bytes(picture: Image.Image | None = None, **options: object) -> bytes:
    """The sample picture as a JPEG file."""
    buffer = io.BytesIO()
    (picture or sample_picture()).save(buffer, "JPEG", **{"quality": 95, **options})
    return buffer.getvalue()


def _write_good(folder: Path) -> list[str]:
    rgb = sample_picture()
    grey16 = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    frames = [rgb, rgb.rotate(90), rgb.rotate(180)]
    clear = rgb.convert("RGBA")
    clear.putalpha(rgb.convert("L"))
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    pictures: dict[str, tuple[Image.Image, dict[str, object]]] = {
        "plain.jpg": (rgb, {"quality": 95}),
        "UPPER.JPEG": (rgb, {"quality": 95}),
        "progressive.jpg": (rgb, {"progressive": True}),
        "cmyk.jpg": (rgb.convert("CMYK"), {"quality": 95}),
        "grey.jpg": (rgb.convert("L"), {}),
        "grey16.png": (grey16, {}),
        "grey16.tif": (grey16, {}),
        "float.tiff": (Image.fromarray(np.asarray(rgb.convert("L")).astype(np.float32) / 255), {}),
        "cmyk.tif": (rgb.convert("CMYK"), {}),
        "alpha.png": (clear, {}),
        "alpha.webp": (clear, {"lossless": True}),
        "grey_alpha.png": (clear.convert("LA"), {}),
        "palette.png": (palette, {}),
        "palette_clear.png": (palette, {"transparency": 0}),
        "one_bit.png": (rgb.convert("1"), {}),
        "one_bit.bmp": (rgb.convert("1"), {}),
        "animated.gif": (frames[0], {"save_all": True, "append_images": frames[1:]}),
        "animated.webp": (frames[0], {"save_all": True, "append_images": frames[1:]}),
        "animated.png": (frames[0], {"save_all": True, "append_images": frames[1:]}),
        "pages.tiff": (frames[0], {"save_all": True, "append_images": frames[1:]}),
        "one_pixel.png": (rgb.resize((1, 1)), {}),
        "wide.png": (rgb.resize((20000, 20)), {}),
        "tall.jpg": (rgb.resize((20, 20000)), {}),
        "twins/a.jpg": (rgb, {}),
        "twins/a.png": (rgb, {}),
        "twins/A.JPG": (rgb, {}),
        "others/a.jpg": (rgb, {}),
        "folder.jpg/inside.jpg": (rgb, {}),
        **{f"names/{name}": (rgb, {}) for name in ODD_NAMES},
        **{f"orientation/{tag}.jpg": (rgb, {"quality": 95, "exif": exif(tag)}) for tag in range(1, 9)},
    }
    for name, (picture, options) in pictures.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, **options)
    (folder / "trailing.jpg").write_bytes(jpeg_bytes() + b"\0" * 100 + b"appended by some camera")
    (folder / "png_inside.jpg").write_bytes((folder / "alpha.png").read_bytes())
    return [*pictures, "trailing.jpg", "png_inside.jpg"]


def _write_bad(folder: Path) -> dict[str, str]:
    whole = jpeg_bytes(sample_picture(200, 300))
    png = (folder / "alpha.png").read_bytes()
    contents = {
        "truncated.jpg": (whole[: len(whole) // 2], "truncated"),
        "truncated_thumbnail.jpg": (with_thumbnail(whole)[: -len(whole) // 3], "truncated"),
        "truncated.png": (png[: len(png) // 2], "truncated"),
        "only_header.jpg": (whole[:20], "truncated"),
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"I am not a picture, I am a text.\n" * 20, "not a picture"),
        "binary.png": (bytes(range(256)) * 8, "not a picture"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.jpg")  # reading it would wait for ever
    # a file that can be opened but not read, for every user, root too
    (folder / "unreadable.jpg").symlink_to("/proc/self/mem")
    causes = {name: cause for name, (_, cause) in contents.items()}
    return causes | {"pipe.jpg": "regular file", "unreadable.jpg": "cannot be read"}


def _write_links(folder: Path) -> dict[str, str]:
    (folder / "links").mkdir()
    (folder / "links" / "good.jpg").symlink_to("../plain.jpg")
    (folder / "links" / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "links" / "self.jpg").symlink_to("self.jpg")
    (folder / "links" / "up").symlink_to("..")
    return {
        "links/good.jpg": GOOD,
        "links/dangling.jpg": "dangling link",
        "links/self.jpg": "link loop",
        "links/up": "link loop",
    }


def exif(orientation: int) -> bytes:
    """An EXIF block that holds only the orientation."""
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def with_thumbnail(jpeg: bytes) -> bytes:
    """The JPEG file with a whole small JPEG in its first segment, as cameras write it."""
    inner = b"Exif\0\0" + jpeg_bytes(sample_picture(12, 16))
    return jpeg[:2] + b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner + jpeg[2:]
