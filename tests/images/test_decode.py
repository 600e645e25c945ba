"""Decoding: every kind of file gives the same upright RGB picture, or says why not."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from detseg.errors import ImageError
from detseg.images import decode, read_hw, read_image, read_image_and_hw
from detseg.images.header import jpeg_is_complete, read_header
from tests.bad_inputs import GOOD, exif, jpeg_bytes, make_bad_inputs, sample_picture, with_thumbnail

REFERENCE = np.asarray(sample_picture()).astype(int)
Make = Callable[[Path, int], None]


@pytest.fixture(scope="module")
def bad_inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("bad")
    return folder, make_bad_inputs(folder)


def test_good_pictures_are_read_and_bad_ones_named(bad_inputs: tuple[Path, dict[str, str]]) -> None:
    folder, expected = bad_inputs
    for name, cause in expected.items():
        if cause == GOOD:
            image = read_image(folder / name)
            assert image.dtype == np.uint8, name
            assert image.flags.c_contiguous, name
            assert image.shape == (*read_hw(folder / name), 3), name
        elif (folder / name).is_file() or not (folder / name).is_dir():
            with pytest.raises(ImageError, match=cause) as caught:
                read_image(folder / name)
            assert caught.value.path == folder / name


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("plain.jpg", 3),
        ("cmyk.jpg", 3),
        ("cmyk.tif", 0),
        ("pages.tiff", 0),
        ("animated.png", 0),
        ("animated.webp", 4),
        ("animated.gif", 6),
        ("palette.png", 6),
        ("trailing.jpg", 3),
    ],
)
def test_colours_survive(bad_inputs: tuple[Path, dict[str, str]], name: str, tolerance: float) -> None:
    image = read_image(bad_inputs[0] / name).astype(int)
    assert np.abs(image - REFERENCE).mean() <= tolerance


@pytest.mark.parametrize("name", ["grey16.png", "grey16.tif", "float.tiff"])
def test_deep_grey_becomes_8_bit(bad_inputs: tuple[Path, dict[str, str]], name: str) -> None:
    grey = np.asarray(sample_picture().convert("L"))
    assert np.array_equal(read_image(bad_inputs[0] / name), np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("ending", [".png", ".tiff"])
def test_16_bit_colour_keeps_its_high_byte(tmp_path: Path, ending: str) -> None:
    deep = REFERENCE.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / f"a{ending}"), deep[..., ::-1])
    assert np.array_equal(read_image(tmp_path / f"a{ending}"), REFERENCE)


@pytest.mark.parametrize(("scale", "offset"), [(1 / 255, 0), (1, 0), (100, -7000)])
def test_float_colour_is_brought_to_8_bit(tmp_path: Path, scale: float, offset: float) -> None:
    pixels = (REFERENCE * scale + offset).astype(np.float32)
    pixels[0, 0] = np.float32(offset)
    cv2.imwrite(str(tmp_path / "a.tiff"), pixels[..., ::-1])
    assert np.abs(read_image(tmp_path / "a.tiff")[1:].astype(int) - REFERENCE[1:]).max() <= 1


@pytest.mark.parametrize("name", ["alpha.png", "alpha.webp", "png_inside.jpg"])
def test_transparency_is_laid_on_white(bad_inputs: tuple[Path, dict[str, str]], name: str) -> None:
    alpha = np.asarray(sample_picture().convert("L"))[..., None] / 255
    expected = REFERENCE * alpha + 255 * (1 - alpha)
    visible = alpha[..., 0] > 0  # WebP may drop the colour of what cannot be seen at all
    assert np.abs(read_image(bad_inputs[0] / name) - expected)[visible].max() <= 1


def _save_jpeg(path: Path, tag: int) -> None:
    sample_picture().save(path, "JPEG", quality=95, exif=exif(tag))


def _save_cmyk(path: Path, tag: int) -> None:
    sample_picture().convert("CMYK").save(path, "JPEG", quality=95, exif=exif(tag))


def _save_png(path: Path, tag: int) -> None:
    sample_picture().save(path, "PNG", exif=exif(tag))


def _save_webp(path: Path, tag: int) -> None:
    sample_picture().save(path, "WEBP", lossless=True, exif=exif(tag))


def _save_tiff(path: Path, tag: int) -> None:
    sample_picture().save(path, "TIFF", tiffinfo={0x0112: tag})


def _save_float_tiff(path: Path, tag: int) -> None:
    """Through cv2, which alone reads it; a tag that may be left out makes room for the orientation."""
    pixels = (REFERENCE[..., ::-1] / 255).astype(np.float32)
    data = bytearray(cv2.imencode(".tiff", pixels)[1].tobytes())
    planar = bytes((0x1C, 0x01, 3, 0, 1, 0, 0, 0))  # tag 284, one short
    at = data.index(planar, int.from_bytes(data[4:8], "little"))
    data[at : at + 10] = bytes((0x12, 0x01, 3, 0, 1, 0, 0, 0, tag, 0))
    path.write_bytes(data)


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("save", [_save_jpeg, _save_cmyk, _save_png, _save_webp, _save_tiff])
def test_orientation_is_applied_once(tmp_path: Path, save: Make, tag: int) -> None:
    save(tmp_path / "a", tag)
    plain = sample_picture()
    plain.getexif()[0x0112] = tag
    upright = np.asarray(ImageOps.exif_transpose(plain)).astype(int)
    assert read_hw(tmp_path / "a") == upright.shape[:2]
    image = read_image(tmp_path / "a")
    assert image.shape == upright.shape
    assert np.abs(image - upright).mean() < 3  # the wrong way round is above 60


@pytest.mark.parametrize("tag", [1, 3, 6])
def test_orientation_is_applied_where_only_cv2_reads_the_file(tmp_path: Path, tag: int) -> None:
    _save_float_tiff(tmp_path / "a.tif", tag)
    turned = np.rot90(REFERENCE, {1: 0, 3: 2, 6: -1}[tag])
    assert np.abs(read_image(tmp_path / "a.tif") - turned).max() <= 1
    assert read_hw(tmp_path / "a.tif") == turned.shape[:2]


def test_target_size_shrinks_while_decoding_but_never_below_it(tmp_path: Path) -> None:
    sample_picture(800, 1200).save(tmp_path / "a.jpg", quality=95, exif=exif(6))  # upright: 1200 x 800
    shapes = {}
    for target in [(1200, 800), (601, 400), (600, 400), (300, 200), (299, 201), (90, 60)]:
        image, hw = read_image_and_hw(tmp_path / "a.jpg", target_hw=target)
        assert hw == (1200, 800)
        shapes[target] = image.shape[:2]
    assert shapes == {
        (1200, 800): (1200, 800),
        (601, 400): (1200, 800),
        (600, 400): (600, 400),
        (300, 200): (300, 200),
        (299, 201): (600, 400),
        (90, 60): (150, 100),
    }
    whole = read_image(tmp_path / "a.jpg")
    small = cv2.resize(whole, (200, 300), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(read_image(tmp_path / "a.jpg", target_hw=(300, 200)) - small).mean() < 2


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "progressive"])
def test_a_file_cut_anywhere_is_named_never_half_a_picture(tmp_path: Path, kind: str, kept: float) -> None:
    buffer = io.BytesIO()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8))
    options = {"progressive": True} if kind == "progressive" else {}
    noise.save(buffer, "JPEG" if kind == "progressive" else kind, **options)
    (tmp_path / "a").write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * kept)])
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "a")
    assert len(caught.value.cause) > 5


def test_a_picture_beyond_the_limit_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    for name in ("a.jpg", "a.png", "a.gif", "a.bmp", "a.webp", "a.tif"):
        sample_picture().save(tmp_path / name)
        with pytest.raises(ImageError, match="too large: 64 x 48 pixels"):
            read_image(tmp_path / name)


def test_a_real_bomb_is_refused(tmp_path: Path) -> None:
    data = bytearray(jpeg_bytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = b"\xff\xff\xff\xff"  # 65,535 x 65,535
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(ImageError, match="too large"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("name", "cause"),
    [("nothing.jpg", "no such file"), ("zero\0byte.jpg", "no such file"), (".", "a folder")],
)
def test_paths_that_are_no_file(tmp_path: Path, name: str, cause: str) -> None:
    for read in (read_image, read_hw):
        with pytest.raises(ImageError, match=cause):
            read(tmp_path / name)


def test_no_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg_bytes())

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(decode, "open", refuse, raising=False)
    with pytest.raises(ImageError, match="no permission"):
        read_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bad_headers_never_escape(tmp_path: Path) -> None:
    """Whatever single byte of the header is wrong: a picture or an ImageError, nothing else."""
    rng = np.random.default_rng(1)
    path = tmp_path / "a"
    for save in (_save_jpeg, _save_png, _save_webp, _save_tiff):
        save(path, 6)
        whole = path.read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            data[rng.integers(0, min(len(data), 200))] = rng.integers(0, 256)
            path.write_bytes(data)
            for read in (read_image, read_hw):
                with suppress(ImageError):
                    read(path)


def test_plain_jpegs_cost_little_more_than_bare_cv2(tmp_path: Path) -> None:
    """Structure rather than time: Pillow is not even imported for them."""
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes())
    code = (
        "import sys; from detseg.images import read_image, read_hw; "
        f"p = {os.fspath(tmp_path / 'a.jpg')!r}; read_hw(p); read_image(p); sys.exit('PIL' in sys.modules)"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0


def test_a_jpeg_is_known_to_be_cut_without_decoding_it() -> None:
    """Some versions of cv2 fill the rest with grey in silence; a thumbnail has an end marker of its own."""
    whole = with_thumbnail(jpeg_bytes(sample_picture(200, 300)))
    header = read_header(whole)
    assert header is not None
    assert jpeg_is_complete(whole, header)
    assert jpeg_is_complete(whole + b"\0appended\xff", header)
    for cut in (len(whole) // 2, len(whole) - 300, len(whole) - 1):
        assert not jpeg_is_complete(whole[:cut], header)


def test_a_cut_jpeg_is_named_even_if_cv2_would_make_something_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = jpeg_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.full((48, 64, 3), 128, np.uint8))
    with pytest.raises(ImageError, match="truncated"):
        read_image(tmp_path / "a.jpg")
