"""Mask folders: layouts people have, files that name classes, and what pixels mean, each worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.annotations import find_format, load, load_label_maps, splits
from detseg.annotations.class_files import PixelClass, classes_text, read_classes
from detseg.annotations.masks import load_objects
from detseg.annotations.object_masks import components, objects_from_label_maps, objects_in
from detseg.annotations.sample import NAMES, draw, write_sample
from detseg.errors import DataError
from detseg.geometry import rle

MAP = np.array([[0, 0, 1, 1], [0, 2, 2, 255], [0, 0, 0, 1]], np.uint8)


def picture(file: Path, hw: tuple[int, int] = (3, 4)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", hw[::-1]).save(file)


def mask(file: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if mode == "P":
        image.putpalette([i for c in range(256) for i in (c, 255 - c, 7)])
    image.save(file)


LAYOUTS = [
    ("images/a.jpg", "masks/a.png", ()),
    ("images/train/a.jpg", "masks/train/a.png", ("train",)),
    ("images/training/a.jpg", "annotations/training/a.png", ("training",)),
    ("train/images/a.jpg", "train/masks/a.png", ("train",)),
    ("train/a.jpg", "trainannot/a.png", ("train",)),
    ("train/a.png", "train_labels/a_L.png", ("train",)),
    ("JPEGImages/a.jpg", "SegmentationClass/a.png", ()),
    ("leftImg8bit/train/x/x_1_leftImg8bit.png", "gtFine/train/x/x_1_gtFine_labelIds.png", ("train",)),
    ("images/a.jpg", "labels/a_mask.png", ()),
    ("images/b/a.jpg", "masks/a.png", ()),
]


@pytest.mark.parametrize(("image", "label", "parts"), LAYOUTS)
def test_layouts(tmp_path: Path, image: str, label: str, parts: tuple[str, ...]) -> None:
    picture(tmp_path / image)
    mask(tmp_path / label, MAP, "P")
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    assert find_format(tmp_path) == "masks"
    assert splits(tmp_path) == parts
    maps = load_label_maps(tmp_path, parts[0] if parts else None)
    assert maps.image_files == (image,)
    assert maps.categories.names == ("sky", "road", "car")
    np.testing.assert_array_equal(maps.label_map(0), MAP)
    assert maps.faults == ()


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("classes.txt", "sky\nstop sign\n", [("sky", 0, None), ("stop sign", 1, None)]),
        ("classes.txt", "\ufeff0 sky\r\n7 stop sign\r\n", [("sky", 0, None), ("stop sign", 7, None)]),
        ("classes.txt", "sky 1 2 3\nstop sign 4 5 6\n", [("sky", None, (1, 2, 3)), ("stop sign", None, (4, 5, 6))]),
        ("label_colors.txt", "64 128 64\tAnimal\n", [("Animal", None, (64, 128, 64))]),
        ("classes.txt", "3 stop sign 4 5 6\n", [("stop sign", 3, (4, 5, 6))]),
        ("classes.txt", "sky 3\nroad 5\n", [("sky", 3, None), ("road", 5, None)]),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nsky:1,2,3::\nbig car:4,5,6::\n",
         [("sky", None, (1, 2, 3)), ("big car", None, (4, 5, 6))]),
        ("class_dict.csv", "name,r,g,b\nstop sign,1,2,3\n", [("stop sign", None, (1, 2, 3))]),
        ("_classes.csv", "Pixel Value, Class\n0, background\n1, stop sign\n",
         [("background", 0, None), ("stop sign", 1, None)]),
        ("classes.json", '["sky", "road"]', [("sky", 0, None), ("road", 1, None)]),
        ("classes.json", '{"sky": 3, "road": 9}', [("sky", 3, None), ("road", 9, None)]),
        ("classes.json", '{"3": "sky"}', [("sky", 3, None)]),
        ("classes.json", '{"sky": [1, 2, 3]}', [("sky", None, (1, 2, 3))]),
        ("classes.json", '{"classes": [{"name": "sky", "id": 4, "color": [1, 2, 3]}]}', [("sky", 4, (1, 2, 3))]),
    ],
)  # fmt: skip
def test_class_files(tmp_path: Path, file: str, text: str, expected: list[tuple]) -> None:
    (tmp_path / file).write_text(text, "utf-8")
    assert [tuple(c)[:3] for c in read_classes(tmp_path / file)] == expected


@pytest.mark.parametrize(
    ("file", "text", "cause"),
    [
        ("classes.txt", "", "no class in it"),
        ("classes.txt", "void\n", "no class in it"),
        ("classes.txt", "0 a\n0 b\n", "value 0 is given more than once"),
        ("classes.txt", "a 1 2 300\n", "line 1: a colour is three numbers"),
        ("classes.txt", "a\na\n", "name a is given more than once"),
        ("classes.json", "{", "classes cannot be read"),
        ("classes.json", "3", "holds a int"),
        ("classes.json", '{"a": 1, "a": 2}', "'a' is given twice"),
        ("classes.json", '{"a": -1}', "no value, colour or name"),
        ("classes.json", '{"a": NaN}', "no value, colour or name"),
        ("classes.json", '[{"name": 3}]', "entry 1 has no name"),
        ("classes.json", "[" * 100_000, "classes cannot be read"),
        ("classes.txt", "a" * 5_000_000, "larger than 4 MB"),
    ],
)
def test_bad_class_files(tmp_path: Path, file: str, text: str, cause: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(DataError, match=cause) as error:
        read_classes(tmp_path / file)
    assert file in str(error.value)


@pytest.mark.parametrize("names", [("sky", "stop sign"), ("3 cars", "1 2 3"), ("a,b", "x 1 2 3"), ("#a", "b:c")])
def test_classes_are_read_as_they_were_written(tmp_path: Path, names: tuple[str, ...]) -> None:
    classes = [PixelClass(name, value, None) for value, name in zip((2, 5), names, strict=True)]
    file, text = classes_text(classes)
    (tmp_path / file).write_text(text)
    assert read_classes(tmp_path / file) == classes


def one(root: Path, pixels: np.ndarray, classes: str | None, mode: str | None = None, name: str = "a.png") -> Path:
    picture(root / "images/a.jpg", pixels.shape[:2])
    mask(root / "masks" / name, pixels, mode)
    if classes is not None:
        (root / "classes.txt").write_text(classes)
    return root


def test_values_colours_and_what_does_not_count(tmp_path: Path) -> None:
    """(what the mask holds, the class file, the label map by hand)."""
    colours = np.array([[(1, 2, 3), (4, 5, 6)], [(9, 9, 9), (4, 5, 6)]], np.uint8)
    cases = [
        (np.array([[0, 7], [255, 30]], np.uint8), "0 a\n7 b\n30 void\n", [[0, 1], [255, 255]], (0, 7)),
        (np.array([[0, 700], [255, 30]], np.uint16), "0 a\n700 b\n30 void\n", [[0, 1], [255, 255]], (0, 700)),
        (colours, "a 1 2 3\nb 4 5 6\nVoid 9 9 9\n", [[0, 1], [255, 1]], (0, 1)),
        (np.array([[(0, 0, 0), (128, 0, 0)]], np.uint8), "a\nb\n", [[0, 1]], (0, 1)),  # VOC's colours
        (np.array([[(1, 1, 1), (0, 0, 0)]], np.uint8), "a\nb\n", [[1, 0]], (0, 1)),  # greys as colours
        (np.array([[0, 255]], np.uint8), "a\nb\n", [[0, 1]], (0, 255)),  # black and white
        (np.array([[0, 255]], np.uint8), "b\n", [[0, 1]], (0, 255)),
        (np.array([[0, 255]], np.uint8), "a\nb\nc\n", [[0, 255]], (0, 1, 2)),
        (np.array([[0, 1, 2]], np.uint8), "a\nb\n", [[0, 1, 255]], (0, 1)),  # the void of CamVid
        (np.array([[0, 1, 255]], np.uint8), None, [[0, 1, 255]], (0, 1)),
        (np.array([[0, 255]], np.uint8), None, [[0, 1]], (0, 255)),
        (np.array([[(0, 0, 0), (3, 4, 5)]], np.uint8), None, [[0, 1]], (0, 1)),
    ]
    for number, (pixels, classes, expected, ids) in enumerate(cases):
        maps = load_label_maps(one(tmp_path / str(number), pixels, classes))
        np.testing.assert_array_equal(maps.label_map(0), expected, err_msg=str(number))
        assert maps.categories.ids == ids, number


def test_a_palette_counts_where_only_colours_are_named(tmp_path: Path) -> None:
    root = one(tmp_path, np.array([[0, 3]], np.uint8), "b 3 252 7\na 0 255 7\n", "P")
    np.testing.assert_array_equal(load_label_maps(root).label_map(0), [[1, 0]])


def test_unknown_values_are_named_with_file_and_count(tmp_path: Path) -> None:
    maps = load_label_maps(one(tmp_path, np.array([[0, 9, 9], [1, 8, 9]], np.uint8), "0 a\n1 b\n"))
    with pytest.raises(DataError, match=r"a\.png: 4 pixels .* 9 in 3 pixels, 8 in 1 pixels; name them"):
        maps.label_map(0)
    colours = np.array([[(1, 2, 3), (7, 8, 9)]], np.uint8)
    maps = load_label_maps(one(tmp_path / "b", colours, "a 1 2 3\n"))
    with pytest.raises(DataError, match=r"\(7, 8, 9\) in 1 pixels"):
        maps.label_map(0)


def test_faults(tmp_path: Path) -> None:
    one(tmp_path, MAP, "a\nb\nc\n")
    picture(tmp_path / "images/bare.jpg")
    mask(tmp_path / "masks/stray.png", MAP)
    for name in ("large", "broken", "nopicture"):
        picture(tmp_path / f"images/{name}.jpg")
        mask(tmp_path / f"masks/{name}.png", np.zeros((5, 4), np.uint8))
    (tmp_path / "masks/broken.png").write_bytes(b"no")
    (tmp_path / "images/nopicture.jpg").write_bytes(b"no")
    maps = load_label_maps(tmp_path)
    assert maps.image_files == ("images/a.jpg",)
    told = {(f.severity, f.kind, Path(f.file).name) for f in maps.faults}
    assert told == {
        ("error", "missing-mask", "bare.jpg"),
        ("warning", "stray-mask", "stray.png"),
        ("error", "mask-size", "large.png"),
        ("error", "unreadable-mask", "broken.png"),
        ("error", "unreadable-picture", "nopicture.jpg"),
    }


def test_masks_that_are_nothing(tmp_path: Path) -> None:
    one(tmp_path / "f", MAP, None)
    Image.fromarray(MAP.astype(np.float32)).save(tmp_path / "f/masks/a.tiff")
    (tmp_path / "f/masks/a.png").unlink()
    with pytest.raises(DataError, match="fractions"):
        load_label_maps(tmp_path / "f")
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    with pytest.raises(DataError, match="more than 255 values"):
        load_label_maps(one(tmp_path / "n", noise, None))
    one(tmp_path / "s", MAP, "a\nb\nc\n")
    with pytest.raises(DataError, match="there is no split 'val'"):
        load_label_maps(tmp_path / "s", "val")
    with pytest.raises(DataError, match=r"label maps.*--objects parts"):
        load(tmp_path / "s")


def test_objects_of_numbers_are_those_pycocotools_encodes() -> None:
    numbers = np.random.default_rng(3).integers(0, 5, (13, 17))
    found = list(objects_in(numbers))
    assert [f.number for f in found] == [1, 2, 3, 4]
    for one_object in found:
        expected = rle.encode(numbers == one_object.number)
        assert one_object.rle["counts"] == expected["counts"]
        assert one_object.area == (numbers == one_object.number).sum()
        ys, xs = np.nonzero(numbers == one_object.number)
        assert one_object.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert list(objects_in(np.zeros((4, 4), int))) == []


def test_parts_touch_at_corners_too() -> None:
    drawn = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1]], bool)
    parts = components(drawn)
    assert parts[0, 0] == parts[1, 1] > 0
    assert len({parts[0, 0], parts[0, 3], parts[2, 3]}) == 3


def test_objects_of_a_label_map(tmp_path: Path) -> None:
    drawn = np.array([[0, 1, 1, 0, 2], [0, 1, 0, 0, 2], [0, 0, 0, 1, 255]], np.uint8)
    truth = objects_from_label_maps(load_label_maps(one(tmp_path, drawn, "background\nx\ny\n")))
    assert truth.categories.names == ("x", "y")
    assert truth.boxes.tolist() == [[1, 0, 3, 2], [3, 2, 4, 3], [4, 0, 5, 2]]
    assert truth.labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(truth.outlines.mask(0, (3, 5)), (drawn == 1) & (np.arange(5) < 3))


def test_masks_whose_values_are_objects(tmp_path: Path) -> None:
    numbers = np.array([[0, 300, 300], [5, 5, 0]], np.uint16)
    picture(tmp_path / "images/a.png", (2, 3))
    mask(tmp_path / "instances/a.png", numbers)
    truth = load(tmp_path)
    assert truth.boxes.tolist() == [[0, 1, 2, 2], [1, 0, 3, 1]]
    np.testing.assert_array_equal(truth.outlines.mask(1, (2, 3)), numbers == 300)
    (tmp_path / "instances").rename(tmp_path / "masks")
    assert load_objects(tmp_path, any_masks=True).boxes.tolist() == truth.boxes.tolist()


def test_a_mask_file_an_object(tmp_path: Path) -> None:
    first, second = np.zeros((2, 6, 8), np.uint8)
    first[1:4, 2:5] = 255
    second[5, 7] = 1
    picture(tmp_path / "train/p1/images/p1.png", (6, 8))
    mask(tmp_path / "train/p1/masks/x.png", first)
    mask(tmp_path / "train/p1/masks/y.png", second)
    truth = load(tmp_path, "train")
    assert truth.boxes.tolist() == [[2, 1, 5, 4], [7, 5, 8, 6]]
    assert truth.areas.tolist() == [9, 1]
    assert truth.image_files == ("train/p1/images/p1.png",)


def test_the_sample_is_its_drawing(tmp_path: Path) -> None:
    root = write_sample(tmp_path / "m", format="masks", images=8, seed=2)
    maps = load_label_maps(root, "train")
    assert maps.categories.names == ("background", *NAMES)
    for image, file in enumerate(maps.image_files):
        drawing = draw(int(Path(file).stem[-5:]), 2, (240, 320))
        expected = np.zeros((240, 320), np.uint8)
        for outline, label in zip(drawing.outlines, drawing.labels, strict=True):
            expected[rle.decode(outline)] = label + 1
        np.testing.assert_array_equal(maps.label_map(image), expected)


@pytest.mark.data
def test_camvid(data_dir: Path) -> None:
    """Eleven classes named in order, 11 the void that no line names."""
    for split, count in (("train", 367), ("val", 101), ("test", 233)):
        maps = load_label_maps(data_dir / "camvid", split)
        assert len(maps) == count
        assert maps.categories.names[0] == "sky"
        assert len(maps.categories) == 11
        assert [f.kind for f in maps.faults] == ["assumed-void"]
        stored = np.asarray(Image.open(data_dir / "camvid/masks" / split / f"{Path(maps.image_files[5]).stem}.png"))
        np.testing.assert_array_equal(maps.label_map(5), np.where(stored == 11, 255, stored))


def test_painting_by_hand(tmp_path: Path) -> None:
    """A large object, a small one upon it, a crowd below both, one without outline that fills its box."""
    square = [[0, 0, 6, 0, 6, 6, 0, 6]]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 10, "height": 8}],
        "categories": [{"id": 3, "name": "x"}, {"id": 9, "name": "background"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 9, "bbox": [2, 2, 2, 2], "area": 4,
             "segmentation": [[2, 2, 4, 2, 4, 4, 2, 4]]},
            {"id": 2, "image_id": 1, "category_id": 3, "bbox": [0, 0, 6, 6], "area": 36, "segmentation": square},
            {"id": 3, "image_id": 1, "category_id": 3, "bbox": [0, 0, 10, 4], "area": 40, "iscrowd": 1,
             "segmentation": [[0, 0, 10, 0, 10, 4, 0, 4]]},
            {"id": 4, "image_id": 1, "category_id": 3, "bbox": [7, 5, 2, 3], "area": 6},
        ],
    }  # fmt: skip
    picture(tmp_path / "a.png", (8, 10))
    (tmp_path / "x.json").write_text(json.dumps(content))
    expected = np.zeros((8, 10), np.uint8)
    expected[:4] = 255
    expected[:6, :6] = 1
    expected[2:4, 2:4] = 2
    expected[5:8, 7:9] = 1
    maps = load_label_maps(tmp_path / "x.json")
    assert maps.categories.names == ("background_", "x", "background")
    np.testing.assert_array_equal(maps.label_map(0), expected)
