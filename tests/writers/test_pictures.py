"""Annotated pictures and crops: where the pixels are, at every size and format."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from numpy.typing import NDArray

from detseg.annotations import Categories
from detseg.images import ImageFile, find_images, read_image
from detseg.results import Detections
from detseg.writers import draw, open_writers
from detseg.writers.overlay import Style, _ink, class_colour
from detseg.writers.text import folder_names
from tests.bad_inputs import sample_picture

CATEGORIES = Categories.from_names(["cat", "dog", "größe 写真", "a name as long as a sentence that never ends"])


def found(hw: tuple[int, int], *boxes: tuple[float, ...], labels: list[int] | None = None) -> Detections:
    n = len(boxes)
    scores = np.linspace(0.9, 0.5, n, dtype=np.float32)
    return Detections(hw, np.array(boxes, np.float32).reshape(n, 4), scores, np.array(labels or [0] * n, np.int64))


def grey(h: int, w: int) -> NDArray[np.uint8]:
    return np.full((h, w, 3), 128, np.uint8)


def changed(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (before != after).any(axis=2)


def test_a_box_is_drawn_on_its_own_edge_pixels() -> None:
    image = grey(400, 400)
    drawn = draw(image, found((400, 400), (100, 150, 300, 350)), CATEGORIES)
    marked = changed(image, drawn)
    rows, columns = np.flatnonzero(marked[:, 200]), np.flatnonzero(marked[250])
    assert (rows.min(), rows.max()) == (150, 349)  # column 200 lies right of the label
    assert (columns.min(), columns.max()) == (100, 299)
    assert not marked[200:300, 150:250].any()  # what is inside stays visible
    assert (drawn[250, 100] == class_colour(0)).all()
    assert marked[130:150, 100:150].any()  # the label stands on the box
    assert not changed(image, grey(400, 400)).any()  # the picture given is left alone


@pytest.mark.parametrize("hw", [(1, 1), (2, 90), (20, 2000), (60, 60), (300, 40), (480, 640), (3000, 4000)])
def test_any_size_and_any_box_can_be_drawn(hw: tuple[int, int]) -> None:
    h, w = hw
    boxes = [(0, 0, w, h), (0, 0, 1, 1), (w - 0.5, h - 0.5, w, h), (w / 3, h / 3, w / 2, h / 2)]
    drawn = draw(grey(h, w), found(hw, *boxes, labels=[0, 1, 2, 3]), CATEGORIES)
    assert drawn.shape == (h, w, 3)
    assert (drawn[0, 0] == class_colour(0)).all()


def test_labels_lie_inside_the_picture_and_apart_from_each_other() -> None:
    """Three equal boxes at the top edge: three labels, none of which hides another."""
    box = (150.0, 0.0, 250.0, 120.0)
    drawn = draw(grey(300, 300), found((300, 300), box, box, box, labels=[0, 1, 2]), CATEGORIES)
    for label in range(3):
        colour = class_colour(label)
        assert (drawn == colour).all(axis=2).sum() > 300, f"the label of class {label} is hidden"


def test_the_best_object_lies_on_top() -> None:
    one = found((200, 200), (50, 50, 150, 150), (50, 50, 150, 150), labels=[0, 1])
    flipped = Detections(one.image_hw, one.boxes[::-1].copy(), one.scores[::-1].copy(), one.labels[::-1].copy())
    for detections in (one, flipped):
        assert (draw(grey(200, 200), detections, CATEGORIES)[149, 100] == class_colour(0)).all()


def test_class_colours_are_stable_and_apart() -> None:
    colours = np.array([class_colour(label) for label in range(20)], float)
    distance = np.linalg.norm(colours[:, None] - colours[None], axis=2) + np.eye(20) * 1e3
    assert distance.min() > 25
    assert class_colour(3) == class_colour(3)
    assert class_colour(10_000)


def test_text_has_contrast_on_every_class_colour() -> None:
    """WCAG 2.1: contrast ratio of at least 4.5 to 1 for text."""

    def luminance(colour: tuple[int, int, int]) -> float:
        channels = np.array(colour) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    for label in range(100):
        light, dark = sorted((luminance(class_colour(label)), luminance(_ink(class_colour(label)))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, label


def test_sizes_grow_with_the_picture() -> None:
    styles = [Style.for_picture(hw) for hw in ((60, 80), (480, 640), (1080, 1920), (4000, 6000))]
    assert [style.line for style in styles] == sorted({style.line for style in styles})
    assert [style.font for style in styles] == sorted({style.font for style in styles})
    assert styles[0] == Style(1, 8)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("a.jpg", "a.jpg"),
        ("a.JPEG", "a.JPEG"),
        ("a.png", "a.png"),
        ("a.webp", "a.webp"),
        ("a.bmp", "a.bmp"),
        ("a.tif", "a.tif"),
        ("a.gif", "a.png"),
        ("a.heic", "a.jpg"),
        ("sub/no_ending", "sub/no_ending.jpg"),
    ],
)
def test_the_format_of_the_picture_is_kept_where_it_can_be(tmp_path: Path, name: str, written: str) -> None:
    image = np.asarray(sample_picture(120, 160))
    with open_writers(["image"], tmp_path, CATEGORIES) as writers:
        writers.write(ImageFile(Path(name), PurePosixPath(name)), image, Detections((120, 160)))
    back = read_image(tmp_path / "images" / written).astype(int)
    assert np.abs(back - image).mean() < 4


def test_pictures_too_long_for_their_format_become_png(tmp_path: Path) -> None:
    for name, w in (("a.webp", 17_000), ("b.jpg", 66_000)):
        with open_writers(["image"], tmp_path, CATEGORIES) as writers:
            writers.write(ImageFile(Path(name), PurePosixPath(name)), grey(2, w), Detections((2, w)))
        assert read_image(tmp_path / "images" / f"{name[0]}.png").shape == (2, w, 3)


def test_crops_are_the_pixels_the_box_touches(tmp_path: Path) -> None:
    image = np.asarray(sample_picture(100, 200))
    boxes = [(10.2, 20.7, 50.1, 60.0), (199.5, 99.5, 200, 100), (0, 0, 200, 100)]
    names = Categories.from_names(["a/b", "A:B", "..", "con"])
    with open_writers(["crops"], tmp_path, names) as writers:
        writers.write(
            ImageFile(Path("x.png"), PurePosixPath("s/x.png")), image, found((100, 200), *boxes, labels=[0, 1, 2])
        )
    expected = {"a_b/s/x_1.jpg": (40, 41), "A_B_2/s/x_2.jpg": (1, 1), "_/s/x_3.jpg": (100, 200)}
    written = {str(path.relative_to(tmp_path / "crops")): path for path in (tmp_path / "crops").rglob("*.jpg")}
    assert {name: read_image(path).shape[:2] for name, path in written.items()} == expected
    first = read_image(written["a_b/s/x_1.jpg"]).astype(int)
    assert np.abs(first - image[20:60, 10:51]).mean() < 6


def test_class_names_become_different_safe_folders() -> None:
    names = ["cat", "Cat", "a/b", "a\\b", "..", "", "nul", "写真", "x" * 300, " dot. ", "caf\udce9"]
    folders = folder_names(names)
    assert len({folder.casefold() for folder in folders}) == len(names)
    assert folders[:4] == ["cat", "Cat_2", "a_b", "a_b_2"]
    assert all(folder.strip(" .") == folder and folder and "/" not in folder for folder in folders)
    assert max(len(folder.encode()) for folder in folders) < 120


def test_twins_are_written_apart(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "A.JPG", "a.gif"):
        (tmp_path / "in").mkdir(exist_ok=True)
        sample_picture().save(tmp_path / "in" / name)
    with open_writers(["image", "yolo", "voc", "crops"], tmp_path / "out", CATEGORIES) as writers:
        for file in find_images(tmp_path / "in"):
            writers.write(file, read_image(file.path), found((48, 64), (5, 5, 40, 40)))
    for folder in ("images", "labels", "voc", "crops/cat"):
        written = {path.name.casefold() for path in (tmp_path / "out" / folder).iterdir()}
        assert len(written) == 4, folder
