"""Good data sets of every format, bytes of them mutated: a usable set or a DataError, never another exception.

DETSEG_FUZZ is how many mutated files each reader gets; a hundred in the suite, thousands when it is run by hand.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.annotations import AnnotationSet, load, load_label_maps
from detseg.annotations.convert import Plan, convert
from detseg.annotations.sample import write_sample
from detseg.errors import DataError

COUNT = int(os.environ.get("DETSEG_FUZZ", "60"))

# What mutations put in: numbers that are none, syntax, encodings, control characters
SPLINTERS = [
    *(b"nan", b"inf", b"-1", b"1e999", b"99999999999999999999", b"0", b"null", b"[]", b"{}", b'"', b"'", b"<", b">"),
    *(b"&", b"&x;", b"<!DOCTYPE a [<!ENTITY x 'y'>]>", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\n", b":"),
    *(
        b",",
        b" ",
        b"../",
        b"/etc/passwd",
        b"\xe9",
        b"- ",
        b"&a [*a]",
        b"<a>" * 300,
        b"[" * 300,
        b"9" * 400,
        b"%",
        b"\t",
    ),
]


def mutated(rng: random.Random, data: bytes) -> bytes:
    """One to four cuts, doublings, splinters or single bytes."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(content))
        until = min(len(content), at + rng.choice((1, 1, 2, 5, 20, 100)))
        how = rng.randrange(5)
        if how == 0:
            del content[at:until]
        elif how == 1:
            content[at:at] = content[at:until] * rng.choice((1, 1, 3))
        elif how == 2 and at < until:
            content[at] = rng.randrange(256)
        elif how == 3:
            content[at:until] = rng.choice(SPLINTERS)
        else:
            content[at:at] = rng.choice(SPLINTERS)
    return bytes(content)


def labels(root: Path) -> list[Path]:
    """The files that speak of the pictures, and masks."""
    return [p for p in sorted(root.rglob("*")) if p.is_file() and p.suffix != ".jpg"]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A small data set of a format, made once."""
    base = tmp_path_factory.mktemp("fuzz")
    shapes = write_sample(base / "shapes", images=3, hw=(32, 40))

    def of(format: str) -> Path:
        root = base / format
        if not root.exists():
            convert(shapes, root, Plan(format))  # type: ignore[arg-type]
            if format == "masks":  # each way of naming classes has its turn
                (root / "classes.txt").write_text("background 0 0 0\ncircle 128 0 0\n2 square\n3 triangle 4 5 6\n")
        return root

    return of


@pytest.mark.parametrize("format", ["coco", "voc", "yolo", "masks", "cvat", "dota", "openimages"])
def test_mutated_files(good: Callable[[str], Path], tmp_path: Path, format: str) -> None:
    rng = random.Random(f"{format} {COUNT}")
    root = tmp_path / "set"
    shutil.copytree(good(format), root)
    files = labels(root)
    outcomes = {"used": 0, "refused": 0}
    for _ in range(COUNT):
        file = rng.choice(files)
        whole = file.read_bytes()
        file.write_bytes(mutated(rng, whole))
        try:
            outcomes["used" if _reads(root, format) else "refused"] += 1
        finally:
            file.write_bytes(whole)
    assert outcomes["used"] >= COUNT // 50, outcomes


def _reads(root: Path, format: str) -> bool:
    try:
        if format in ("masks", "voc"):
            maps = load_label_maps(root)
            for image in range(len(maps)):
                label_map = maps.label_map(image)
                assert label_map.shape == tuple(maps.image_hw[image])
                assert ((label_map < len(maps.categories)) | (label_map == 255)).all()
        if format != "masks":
            _check(load(root))
    except DataError as error:
        cause = str(error)
    else:
        return True
    assert 10 < len(cause) < 3000
    return False


def _check(truth: AnnotationSet) -> None:
    """What every set promises."""
    assert len(truth) > 0
    hw = truth.image_hw[truth.image_index]
    assert (truth.image_hw > 0).all()
    assert (truth.boxes >= 0).all()
    assert (truth.boxes[:, 2:] <= hw[:, ::-1]).all()
    assert (truth.boxes[:, 2:] - truth.boxes[:, :2] >= 1).all()
    assert np.isfinite(truth.areas).all()
    assert ((truth.labels >= 0) & (truth.labels < len(truth.categories))).all()
    assert len(set(truth.ids.tolist())) == len(truth.ids)
    for row in np.flatnonzero(truth.outlines.has).tolist():
        truth.outlines.rle(row, tuple(hw[row].tolist()))  # it can be drawn
    root = truth.root.resolve()
    assert all(truth.image_path(i).resolve().is_relative_to(root) for i in range(len(truth)))


def test_mutated_pictures_in_mask_folders(good: Callable[[str], Path], tmp_path: Path) -> None:
    """Arrays of any kind where masks are expected."""
    rng = np.random.default_rng(5)
    root = tmp_path / "set"
    shutil.copytree(good("masks"), root)
    mask = next(p for p in labels(root) if p.suffix == ".png")
    kinds = [(np.uint8, ()), (np.uint8, (3,)), (np.uint8, (4,)), (np.uint8, (2,)), (np.uint16, ()),
             (np.bool_, ())]  # fmt: skip
    for kind, channels in kinds:
        for high in (2, 256):
            pixels = rng.integers(0, high, (32, 40, *channels)).astype(kind)
            Image.fromarray(pixels).save(mask)
            _reads(root, "masks")
