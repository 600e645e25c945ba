"""YOLO trees: lines with the box worked out by hand, and the layouts people have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.annotations import find_format, load, splits
from detseg.annotations.yolo import label_file, write_yolo
from detseg.errors import DataError


def picture(path: Path, labels: str | None = None, exif: Image.Exif | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (200, 100)).save(path, **({"exif": exif} if exif else {}))
    if labels is not None:
        file = Path(label_file(str(path)))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(labels)


def describe(root: Path, text: str) -> Path:
    (root / "data.yaml").write_text(text)
    return root / "data.yaml"


def test_a_line_is_centre_and_size_in_parts_of_the_picture(tmp_path: Path) -> None:
    picture(tmp_path / "images/train/a.jpg", "1 0.5 0.5 0.25 0.5\n\n0 0.1 0.2 0.2 0.4\n")
    picture(tmp_path / "images/train/sub/empty.jpg")
    picture(tmp_path / "images/val/b.png", "2 0.5 0.5 1 1\n")
    file = describe(tmp_path, "train: images/train\nval: images/val\nnames: [ant, bee, cat]\n")
    truth = load(file, "train")
    np.testing.assert_allclose(truth.boxes, [[75, 25, 125, 75], [0, 0, 40, 40]], atol=1e-9)
    assert truth.labels.tolist() == [1, 0]
    assert truth.categories.ids == (0, 1, 2)
    assert truth.image_files == ("images/train/a.jpg", "images/train/sub/empty.jpg")
    assert truth.image_hw.tolist() == [[100, 200], [100, 200]]
    assert truth.faults == ()
    assert splits(tmp_path) == ("train", "val")
    assert len(load(tmp_path)) == 3
    assert load(tmp_path, "validation").labels.tolist() == [2]
    with pytest.raises(DataError, match="no split 'test'; it has train, val"):
        load(tmp_path, "test")


def test_an_outline_gives_its_bounding_box(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.jpg", "0 0.5 0.1 0.75 0.5 0.25 0.9\n")
    describe(tmp_path, "train: images\nnames: {0: x}\n")
    np.testing.assert_allclose(load(tmp_path).boxes, [[50, 10, 150, 90]], atol=1e-9)


def test_boxes_belong_to_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "images/a.jpg", "0 0.5 0.5 0.5 0.5\n", exif)
    describe(tmp_path, "train: images\nnames: [x]\n")
    np.testing.assert_allclose(load(tmp_path).boxes, [[25, 50, 75, 150]], atol=1e-9)


def test_bad_lines_are_left_out_and_told(tmp_path: Path) -> None:
    lines = [
        "0 0.5 0.5 0.5 0.5",
        "0 0.95 0.5 0.2 0.5",  # 10 px outside: cut
        "0 0.5 0.5 0.001 0.5",  # less than a pixel
        "9 0.5 0.5 0.5 0.5",
        "0 100 50 20 20",
        "0 nan 0.5 0.5 0.5",
        "0 0.5 0.5 0.5",
        "0 0.5 0.5 0.5 0.5 0.9",
        "cat 0.5 0.5 0.5 0.5",
        "0.5 0.5 0.5 0.5 0.5",
        "-1 0.5 0.5 0.5 0.5",
    ]
    picture(tmp_path / "images/a.jpg", "\n".join(lines))
    picture(tmp_path / "images/b.jpg", "")
    (tmp_path / "images/b.jpg").write_bytes(b"no picture")
    describe(tmp_path, "train: images\nnames: [x]\n")
    truth = load(tmp_path)
    np.testing.assert_allclose(truth.boxes, [[50, 25, 150, 75], [170, 25, 200, 75]], atol=1e-9)
    told = sorted((f.annotation or 0, f.severity, f.kind) for f in truth.faults)
    assert told == [
        (0, "error", "unreadable-picture"),
        (2, "warning", "box-outside"),
        (3, "warning", "degenerate-box"),
        (4, "error", "unknown-category"),
        *((n, "error", "bad-line") for n in range(5, 12)),
    ]


def test_lists_of_pictures(tmp_path: Path) -> None:
    picture(tmp_path / "set/images/a b.jpg", "0 0.5 0.5 0.5 0.5\n")
    picture(tmp_path / "set/images/c.jpg", "0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "set/train.txt").write_text(f"./images/a b.jpg\nimages/gone.jpg\n{tmp_path}/set/images/c.jpg\n")
    file = describe(tmp_path, "path: set\ntrain: [train.txt, images]\nnames: [x]\n")
    truth = load(file, "train")
    assert truth.image_files == ("images/a b.jpg", "images/c.jpg")
    assert [f.kind for f in truth.faults] == ["missing-picture"]


@pytest.mark.parametrize("train", ["train/images", "../train/images", "./train/images/"])
def test_paths_count_from_the_description(tmp_path: Path, train: str) -> None:
    picture(tmp_path / "d/train/images/a.jpg", "5 0.5 0.5 0.5 0.5\n")
    describe(tmp_path / "d", f"path: /content/nowhere\ntrain: {train}\nnames: {{2: two, 5: five}}\n")
    truth = load(tmp_path / "d", "train")
    assert truth.categories.ids == (2, 5)
    assert truth.labels.tolist() == [1]


@pytest.mark.parametrize("layout", ["images/{}/", "{}/images/"])
def test_a_folder_without_a_description(tmp_path: Path, layout: str) -> None:
    picture(tmp_path / layout.format("train") / "a.jpg", "4 0.5 0.5 0.5 0.5\n")
    picture(tmp_path / layout.format("valid") / "b.jpg", "2 0.5 0.5 0.5 0.5\n")
    assert find_format(tmp_path) == "yolo"
    assert load(tmp_path, "val").categories == load(tmp_path, "train").categories
    assert load(tmp_path, "val").categories.ids == (2, 4)
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\ne\n")
    assert load(tmp_path, "train").categories.names == ("a", "b", "c", "d", "e")
    assert load(tmp_path, "train").faults == ()


def test_what_is_written_reads_the_same(tmp_path: Path) -> None:
    picture(tmp_path / "one/images/a.jpg", "0 0.333333 0.4 0.123456 0.4\n1 0.5 0.5 1 1\n")
    picture(tmp_path / "two/images/a.jpg")
    for folder in ("one", "two"):
        describe(tmp_path / folder, "train: images\nnames: [x, y]\n")
    write_yolo(load(tmp_path / "one"), tmp_path / "two")
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    np.testing.assert_allclose(two.boxes, one.boxes, atol=1e-6)
    assert two.labels.tolist() == one.labels.tolist()


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("train: [", "not YAML"),
        ("- a\n- b\n", "no keys"),
        ("names: [x]\n", "names no pictures"),
        ("train: nowhere\nnames: [x]\n", "neither a folder nor a .txt list"),
        ("train: 5\nnames: [x]\n", "must be a folder"),
        ("train: images\nnames: [x, x]\n", "more than once"),
        ("train: images\nnames: 3\n", "must be a list"),
        ("train: images\nnames: {a: b}\n", "cannot be used"),
        ("train: images\npath: [a]\nnames: [x]\n", "not a folder"),
        ("train: images\nnames: [x]\nwhen: 2001-99-99\n", "not YAML"),
        ("train: nolabels/images\nnames: [x]\n", "none of 1 pictures has a label file"),
    ],
)
def test_unusable_descriptions(tmp_path: Path, text: str, cause: str) -> None:
    picture(tmp_path / "images/a.jpg", "0 0.5 0.5 0.5 0.5\n")
    picture(tmp_path / "nolabels/images/a.jpg")
    with pytest.raises(DataError, match=cause):
        load(describe(tmp_path, text))


@pytest.mark.parametrize(
    ("picture_path", "labels"),
    [
        ("images/train/a.jpg", "labels/train/a.txt"),
        ("/x/images/set/images/a.b.png", "/x/images/set/labels/a.b.txt"),
        ("flat/a.jpg", "flat/a.txt"),
        ("images", "images.txt"),
    ],
)
def test_where_labels_lie(picture_path: str, labels: str) -> None:
    assert label_file(picture_path) == labels
