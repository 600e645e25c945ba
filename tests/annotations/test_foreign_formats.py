"""CVAT, DOTA, Open Images: files as their tools write them, the answers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.annotations import find_format, load, splits
from detseg.errors import DataError

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><job><labels><label><name>dog &amp; bone</name></label><label><name>cat</name></label></labels></job></meta>
<image id="0" name="a.png" width="60" height="40">
<box label="cat" occluded="0" xtl="10.50" ytl="20.00" xbr="40.00" ybr="30.00" z_order="0"></box>
<polygon label="dog &amp; bone" points="1.00,2.00;11.00,2.00;11.00,12.00" z_order="0"></polygon>
<polyline label="cat" points="1,1;2,2"/></image>
<image id="1" name="sub/b.png" width="60" height="40"></image>
</annotations>"""


def pictures(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40)).save(root / name)


def test_cvat(tmp_path: Path) -> None:
    pictures(tmp_path, "images/a.png", "images/sub/b.png")
    (tmp_path / "annotations.xml").write_text(CVAT)
    assert find_format(tmp_path) == "cvat"
    for path in (tmp_path, tmp_path / "annotations.xml"):
        truth = load(path)
        assert truth.image_files == ("images/a.png", "images/sub/b.png")
        assert truth.categories.names == ("dog & bone", "cat")
        assert [truth.categories.names[i] for i in truth.labels] == ["cat", "dog & bone"]
        assert truth.boxes.tolist() == [[10.5, 20, 40, 30], [1, 2, 11, 12]]
        assert truth.outlines.segmentation(0) is None
        assert truth.outlines.segmentation(1) == [[1, 2, 11, 2, 11, 12]]
        assert [f.kind for f in truth.faults] == ["left-out-shapes"]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "not XML that can be read"),
        ("<annotations>", "not XML that can be read"),
        ("<other/>", "begins with <other>"),
        ("<annotations/>", "no <image>"),
        ('<!DOCTYPE a [<!ENTITY x "y">]>' + CVAT.partition("?>")[2], "declares entities"),
        (CVAT.replace('height="40"', 'height="x"'), "cannot be read: .*height"),
        (CVAT.replace('xtl="10.50"', ""), "cannot be read"),
        (CVAT.replace("a.png", "gone.png").replace("b.png", "gone2.png"), "no picture of it can be used"),
    ],
)
def test_cvat_that_cannot_be_used(tmp_path: Path, text: str, cause: str) -> None:
    pictures(tmp_path, "a.png", "sub/b.png")
    (tmp_path / "annotations.xml").write_text(text)
    with pytest.raises(DataError, match=cause) as error:
        load(tmp_path / "annotations.xml")
    assert "annotations.xml" in str(error.value)
    assert "plain.xml" not in str(error.value)


def test_cvat_with_numbers_that_are_none(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "sub/b.png")
    (tmp_path / "annotations.xml").write_text(CVAT.replace("10.50", "nan").replace("11.00,12.00", "inf,12"))
    truth = load(tmp_path / "annotations.xml")
    assert len(truth.boxes) == 0
    assert "bad-box" in {f.kind for f in truth.faults}


def test_a_turned_box_and_one_of_a_giant(tmp_path: Path) -> None:
    """A quarter turn by hand; points so far away that drawing them would fill the memory."""
    pictures(tmp_path, "a.png", "sub/b.png")
    turned = CVAT.replace('z_order="0"></box>', 'rotation="90.00"></box>')
    (tmp_path / "annotations.xml").write_text(turned.replace("11.00,12.00", "11.00,99999999999"))
    truth = load(tmp_path / "annotations.xml")
    # 29.5 x 10 about (25.25, 25) becomes 10 x 29.5
    np.testing.assert_allclose(truth.boxes, [[20.25, 10.25, 30.25, 39.75], [1, 2, 11, 40]], atol=1e-5)
    assert truth.outlines.has.tolist() == [True, False]
    assert "bad-outline" in {f.kind for f in truth.faults}


def test_the_size_is_the_picture_s(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "sub/b.png")
    (tmp_path / "annotations.xml").write_text(CVAT.replace('width="60"', 'width="2000000000"'))
    assert load(tmp_path / "annotations.xml").image_hw.tolist() == [[40, 60], [40, 60]]


def test_names_of_pictures_cannot_lead_out(tmp_path: Path) -> None:
    pictures(tmp_path, "set/a.png", "b.png")
    (tmp_path / "set/annotations.xml").write_text(CVAT.replace("sub/b.png", "../b.png"))
    truth = load(tmp_path / "set")
    assert truth.image_files == ("a.png",)


def test_dota(tmp_path: Path) -> None:
    """An upright box is a box; a turned one has its corners as outline, its hull as box."""
    for split in ("train", "val"):
        pictures(tmp_path, f"images/{split}/p.png")
        (tmp_path / "labelTxt" / split).mkdir(parents=True)
    text = (
        "imagesource:GoogleEarth\ngsd:0.1\n10 20 40 20 40 30 10 30 small-vehicle 1\n20 10 30 20 20 30 10 20 plane 0\n"
    )
    (tmp_path / "labelTxt/train/p.txt").write_text(text + "1 2 3\n1 2 nan 4 5 6 7 8 plane 0\n")
    (tmp_path / "labelTxt/val/p.txt").write_text("1 1 5 1 5 5 1 5 ship 0\n")
    assert find_format(tmp_path) == "dota"
    assert splits(tmp_path) == ("train", "val")
    truth = load(tmp_path, "train")
    assert truth.image_files == ("images/train/p.png",)
    assert truth.categories.names == ("plane", "ship", "small-vehicle")
    assert truth.difficult.tolist() == [True, False]
    assert not truth.crowd.any()
    np.testing.assert_allclose(truth.boxes, [[10, 20, 40, 30], [10, 10, 30, 30]], atol=1e-6)
    assert truth.outlines.has.tolist() == [False, True]
    corners = np.reshape(truth.outlines.segmentation(1), (4, 2))
    np.testing.assert_allclose(sorted(corners.tolist()), [[10, 20], [20, 10], [20, 30], [30, 20]], atol=1e-5)
    assert [(f.kind, f.annotation) for f in truth.faults] == [("bad-line", 5), ("bad-line", 6)]
    assert load(tmp_path, "val").categories == truth.categories


OID = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"


def test_open_images(tmp_path: Path) -> None:
    pictures(tmp_path, "train/p.png", "validation/q.png")
    (tmp_path / "train-annotations-bbox.csv").write_text(
        OID + "p,x,/m/01,1,0.25,0.5,0.5,1,0,0,0,0,0\np,x,/m/02,1,0,1,0,1,0,0,1,0,0\ngone,x,/m/01,1,0,1,0,1,0,0,1,0,0\n"
    )
    (tmp_path / "validation-annotations-bbox.csv").write_text(OID + "q,x,/m/02,1,0,0.5,0,0.5,0,0,0,0,0\n")
    (tmp_path / "class-descriptions-boxable.csv").write_text("/m/01,Cat\n/m/02,Dog\n")
    assert find_format(tmp_path) == "openimages"
    truth = load(tmp_path, "train")
    assert truth.boxes.tolist() == [[15, 20, 30, 40], [0, 0, 60, 40]]
    assert [truth.categories.names[i] for i in truth.labels] == ["Cat", "Dog"]
    assert truth.crowd.tolist() == [False, True]
    assert [f.kind for f in truth.faults] == ["missing-picture"]
    assert load(tmp_path, "val").categories == truth.categories
    assert len(load(tmp_path)) == 2


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "not Open Images' CSV"),
        ("a,b\n1,2\n", "not Open Images' CSV"),
        (OID + "p,x,/m/01,1,q,1,0,1,0,0,0,0,0\n", "line 2: invalid XMin"),
        (OID, "no class in it"),
        ("\0" * 50, "not Open Images' CSV"),
    ],
)
def test_open_images_that_cannot_be_used(tmp_path: Path, text: str, cause: str) -> None:
    pictures(tmp_path, "p.png")
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=cause):
        load(tmp_path / "x.csv")
