"""VOC trees: hand-written ones with the answer worked out, and the real ones with their published counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.annotations import load, splits
from detseg.errors import DataError

OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{0}</xmin><ymin>{1}</ymin>"
    "<xmax>{2}</xmax><ymax>{3}</ymax></bndbox>{extra}</object>"
)


def obj(name: str, *box: object, difficult: int = 0, extra: str = "") -> str:
    return OBJECT.format(*box, name=name, difficult=difficult, extra=extra)


def page(root: Path, stem: str, body: str, wh: tuple[int, int] = (100, 80), picture: bool = True) -> None:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    size = f"<size><width>{wh[0]}</width><height>{wh[1]}</height><depth>3</depth></size>"
    (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{size}{body}</annotation>")
    if picture:
        Image.new("RGB", (100, 80)).save(root / "JPEGImages" / f"{stem}.jpg")


def kinds(annotations) -> list[tuple[str, str]]:
    return [(f.severity, f.kind) for f in annotations.faults]


def test_boxes_count_from_one_and_include_the_last_pixel(tmp_path: Path) -> None:
    page(tmp_path, "a", obj("dog", 1, 1, 100, 80) + obj("cat", 11, 21, 20, 60, difficult=1))
    truth = load(tmp_path)
    np.testing.assert_array_equal(truth.boxes, [[0, 0, 100, 80], [10, 20, 20, 60]])
    assert truth.categories.names == ("cat", "dog")
    assert truth.categories.ids == (1, 2)
    assert truth.labels.tolist() == [1, 0]
    assert truth.difficult.tolist() == [False, True]
    assert truth.areas.tolist() == [8000, 400]
    assert truth.image_hw.tolist() == [[80, 100]]
    assert truth.image_path(0).is_file()
    assert truth.faults == ()


def test_a_body_part_is_not_an_object(tmp_path: Path) -> None:
    part = obj("head", 1, 1, 9, 9).replace("object>", "part>")
    page(tmp_path, "a", obj("person", 5, 6, 50, 60).replace("<object>", f"<object>{part}"))
    truth = load(tmp_path)
    assert truth.categories.names == ("person",)
    assert truth.boxes.tolist() == [[4, 5, 50, 60]]


def test_every_split_has_the_classes_of_the_tree(tmp_path: Path) -> None:
    page(tmp_path, "a", obj("zebra", 1, 1, 9, 9))
    page(tmp_path, "b", obj("ant", 1, 1, 9, 9))
    lists = tmp_path / "ImageSets" / "Main"
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("b\n")
    assert load(tmp_path, "train").categories == load(tmp_path, "val").categories
    assert load(tmp_path, "train").labels.tolist() == [1]
    (tmp_path / "classes.txt").write_text("zebra\nant\n")
    assert load(tmp_path, "train").categories.names == ("zebra", "ant")
    (tmp_path / "classes.txt").write_text("ant\n")
    assert kinds(load(tmp_path)) == [("error", "unknown-category")]


def test_lists(tmp_path: Path) -> None:
    for stem in ("a", "b", "c d"):
        page(tmp_path, stem, obj("cat", 1, 1, 9, 9))
    lists = tmp_path / "ImageSets" / "Main"
    (lists / "val.txt").write_text("c d\r\n\nb.jpg\nb\n")
    (lists / "cat_val.txt").write_text("a  1\nb -1\nc d  0\ngone  1\n")
    assert splits(tmp_path) == ("val",)
    assert [Path(f).stem for f in load(tmp_path, "validation").image_files] == ["c d", "b"]
    of_class = load(tmp_path, "cat_val")
    assert [Path(f).stem for f in of_class.image_files] == ["a", "c d"]
    assert kinds(of_class) == [("error", "missing-annotation")]
    with pytest.raises(DataError, match=r"no split 'train'; it has val$"):
        load(tmp_path, "train")


def test_what_is_wrong_is_left_out_and_told(tmp_path: Path) -> None:
    page(
        tmp_path,
        "a",
        obj("cat", 10, 10, 30, 30)
        + obj("cat", 90, 70, 130, 95)  # cut to the picture
        + obj("cat", 0, 0, 100, 80)  # counted from 0: no word
        + obj("cat", 7, 7, 7, 7)  # a click
        + obj("cat", 30, 30, 20, 40)  # inside out
        + obj("cat", 120, 10, 140, 20)  # beyond the picture
        + obj("cat", "nan", 1, 2, 3)
        + obj("cat", "left", 1, 2, 3)
        + obj("", 1, 1, 9, 9)
        + "<object><name>cat</name></object>",
    )
    page(tmp_path, "b", "", picture=False)
    page(tmp_path, "c", "<object>")
    page(tmp_path, "d", "")
    truth = load(tmp_path)
    assert truth.boxes.tolist() == [[9, 9, 30, 30], [89, 69, 100, 80], [0, 0, 100, 80]]
    assert [Path(f).stem for f in truth.image_files] == ["a", "d"]
    told = {(Path(f.file).stem, f.annotation): f.kind for f in truth.faults}
    assert told == {
        ("a", 2): "box-outside",
        ("a", 4): "degenerate-box",
        ("a", 5): "degenerate-box",
        ("a", 6): "degenerate-box",
        ("a", 7): "bad-object",
        ("a", 8): "bad-object",
        ("a", 9): "bad-object",
        ("a", 10): "bad-object",
        ("b", None): "missing-picture",
        ("c", None): "unreadable-xml",
    }
    assert len(load(tmp_path, need_images=False)) == 3


def test_entities_are_refused(tmp_path: Path) -> None:
    page(tmp_path, "a", obj("cat", 1, 1, 9, 9))
    bomb = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;&x;">]><annotation>&y;</annotation>'
    (tmp_path / "Annotations" / "b.xml").write_text(bomb)
    truth = load(tmp_path)
    assert kinds(truth) == [("error", "unreadable-xml")]
    assert "entities" in truth.faults[0].message


@pytest.mark.parametrize(("orientation", "hw"), [(1, (80, 100)), (3, (80, 100)), (6, (100, 80)), (8, (100, 80))])
def test_a_missing_size_is_that_of_the_upright_picture(tmp_path: Path, orientation: int, hw: tuple[int, int]) -> None:
    page(tmp_path, "a", obj("cat", 1, 1, 9, 9), wh=(0, 0))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (100, 80)).save(tmp_path / "JPEGImages" / "a.jpg", exif=exif)
    assert tuple(load(tmp_path).image_hw[0]) == hw


def test_no_picture_at_all(tmp_path: Path) -> None:
    page(tmp_path, "a", obj("cat", 1, 1, 9, 9), picture=False)
    with pytest.raises(DataError, match="no picture of the tree can be used"):
        load(tmp_path)


@pytest.mark.data
def test_blood_cells(data_dir: Path) -> None:
    sets = {split: load(data_dir / "bccd", split) for split in ("train", "val", "test")}
    assert {split: len(truth) for split, truth in sets.items()} == {"train": 205, "val": 87, "test": 72}
    faults = {split: kinds(truth) for split, truth in sets.items()}
    assert faults == {
        "train": [("warning", "degenerate-box")],
        "val": [("warning", "degenerate-box")],
        "test": [],
    }
    red = sets["train"].categories.index_of_name["RBC"]
    without = {
        split: len(truth) - len(np.unique(truth.image_index[truth.labels == red])) for split, truth in sets.items()
    }
    assert without == {"train": 8, "val": 4, "test": 3}


@pytest.mark.data
def test_animals(data_dir: Path) -> None:
    whole = load(data_dir / "voc-animals")
    count = dict(zip(whole.categories.names, np.bincount(whole.labels).tolist(), strict=True))
    told = {"dog": 1589, "cat": 1273, "person": 1236, "sheep": 1084, "horse": 802, "cow": 760, "chair": 228}
    assert {name: count[name] for name in told} == told
    assert len(whole) == 3608
    assert whole.difficult.sum() == 852
    train, val = (load(data_dir / "voc-animals", split) for split in ("train", "val"))
    assert (len(train), len(val)) == (1697, 1729)
    assert train.categories == whole.categories
    assert not set(train.image_files) & set(val.image_files)
