"""The masks of VOC trees: hand-drawn ones, and the sample set, whose drawing is the answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detseg.annotations import AnnotationSet, Categories, load, load_label_maps
from detseg.annotations.mask_files import voc_palette
from detseg.annotations.outlines import Outlines
from detseg.annotations.sample import draw, write_sample
from detseg.annotations.voc import write_voc
from detseg.annotations.xml_files import ForbiddenXml, parse_xml
from detseg.errors import DataError
from detseg.geometry import rle

# The first colours of PASCAL VOC's palette, as its documentation lists them
VOC_COLOURS = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]


def test_the_palette_is_that_of_pascal_voc() -> None:
    assert [tuple(c) for c in voc_palette()[:7].tolist()] == VOC_COLOURS
    assert tuple(voc_palette()[255].tolist()) == (224, 224, 192)


def tree(root: Path, numbers: np.ndarray, boxes: list[tuple[int, int, int, int]]) -> Path:
    """A tree of one picture; boxes 1-based, the last pixel included."""
    for folder in ("Annotations", "JPEGImages", "SegmentationObject"):
        (root / folder).mkdir(parents=True)
    h, w = numbers.shape
    Image.new("RGB", (w, h)).save(root / "JPEGImages/a.jpg")
    Image.fromarray(numbers).save(root / "SegmentationObject/a.png")
    objects = "".join(
        f"<object><name>cat</name><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}</ymax>"
        "</bndbox></object>"
        for b in boxes
    )
    size = f"<size><width>{w}</width><height>{h}</height></size>"
    (root / "Annotations/a.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    return root


def test_masks_go_to_the_boxes_they_lie_on(tmp_path: Path) -> None:
    """Numbers in another order than the XML's objects, void between, a mask on no box, a box without mask."""
    numbers = np.zeros((20, 30), np.uint8)
    numbers[2:8, 2:10] = 2
    numbers[2:8, 10] = 255
    numbers[2:8, 11:20] = 1
    numbers[15:18, 25:28] = 9
    truth = load(tree(tmp_path, numbers, [(3, 3, 10, 8), (12, 3, 20, 8), (1, 11, 5, 15)]))
    assert truth.outlines.has.tolist() == [True, True, False]
    np.testing.assert_array_equal(truth.outlines.mask(0, (20, 30)), numbers == 2)
    np.testing.assert_array_equal(truth.outlines.mask(1, (20, 30)), numbers == 1)
    assert truth.areas.tolist() == [48, 54, 25]
    assert [(f.severity, f.kind) for f in truth.faults] == [("warning", "unmatched-mask")]
    assert "the first 9" in truth.faults[0].message


def test_a_covered_object_keeps_its_number(tmp_path: Path) -> None:
    """Object 2 shows one corner only, a thirtieth of its box: its number tells whose it is."""
    numbers = np.zeros((40, 40), np.uint8)
    numbers[0:30, 0:30] = 1
    numbers[30:36, 30:36] = 2
    numbers[36:40, 20:36] = 3
    boxes = [(1, 1, 30, 30), (5, 5, 36, 36), (21, 35, 36, 40)]
    truth = load(tree(tmp_path, numbers, boxes))
    for row in range(3):
        np.testing.assert_array_equal(truth.outlines.mask(row, (40, 40)), numbers == row + 1)


def test_a_mask_of_another_size_is_not_used(tmp_path: Path) -> None:
    root = tree(tmp_path, np.ones((20, 30), np.uint8), [(1, 1, 30, 20)])
    Image.fromarray(np.ones((10, 30), np.uint8)).save(root / "SegmentationObject/a.png")
    truth = load(root)
    assert not truth.outlines.any
    assert [f.kind for f in truth.faults] == ["mask-size"]
    (root / "SegmentationObject/a.png").write_bytes(b"no picture")
    assert [f.kind for f in load(root).faults] == ["unreadable-mask"]


def test_the_sample_comes_back_as_it_was_drawn(tmp_path: Path) -> None:
    root = write_sample(tmp_path / "voc", format="voc", images=8, seed=3)
    truth, maps = load(root), load_label_maps(root)
    assert maps.categories.names == ("background", "circle", "square", "triangle")
    for image, file in enumerate(truth.image_files):
        drawing = draw(int(Path(file).stem[-5:]), 3, (240, 320))
        rows = truth.rows(image)
        expected = np.zeros((240, 320), np.uint8)
        for row, outline, label in zip(range(rows.start, rows.stop), drawing.outlines, drawing.labels, strict=True):
            np.testing.assert_array_equal(truth.outlines.mask(row, (240, 320)), rle.decode(outline))
            expected[rle.decode(outline)] = label + 1
        if file in maps.image_files:
            np.testing.assert_array_equal(maps.label_map(maps.image_files.index(file)), expected)
        else:
            assert len(drawing.labels) == 0


def test_what_masks_cannot_hold_is_counted(tmp_path: Path) -> None:
    big, small = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    big[2:12, 2:12], small[8:14, 8:14] = True, True
    truth = AnnotationSet.from_columns(
        root=tmp_path, format="x", categories=Categories((5, 9), ("a", "b & <c>")), image_files=["sub/a.png"],
        image_hw=[(20, 30)], image_index=[0, 0], boxes=[[2.4, 2, 12, 12], [8, 8, 14, 14]], labels=[0, 1],
        crowd=[False, True], ids=[4, 2], image_ids=[77], outlines=Outlines.of([rle.encode(big), rle.encode(small)]),
    )  # fmt: skip
    told = {loss.kind: (loss.count, loss.worst_px) for loss in write_voc(truth, tmp_path, "val", outlines=True)}
    worst = told.pop("rounding")
    assert worst[0] == 1
    assert worst[1] == pytest.approx(0.4)
    # the crowd lies below, so it is the crowd that is covered
    expected = {"crowd": 1, "ids": 1, "image-ids": 1, "category-ids": 2, "hidden": 1}
    assert {kind: count for kind, (count, _) in told.items()} == expected
    objects = np.asarray(Image.open(tmp_path / "SegmentationObject/a.png"))
    classes = np.asarray(Image.open(tmp_path / "SegmentationClass/a.png"))
    np.testing.assert_array_equal(objects, np.where(big, 1, np.where(small, 2, 0)))
    np.testing.assert_array_equal(classes, np.where(big, 1, np.where(small, 255, 0)))
    Path(tmp_path, "JPEGImages").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "JPEGImages/a.png")
    again = load(tmp_path, "val")
    assert again.categories.names == ("a", "b & <c>")
    assert again.difficult.tolist() == [False, True]


def test_boxes_that_rounding_would_lose_are_kept(tmp_path: Path) -> None:
    boxes = [[0.2, 0.2, 1.3, 1.3], [29.1, 19.2, 30, 20], [5.5, 5.5, 6.5, 9.0]]
    truth = AnnotationSet.from_columns(
        root=tmp_path, format="x", categories=Categories((1,), ("a",)), image_files=["a.png"], image_hw=[(20, 30)],
        image_index=[0, 0, 0], boxes=boxes, labels=[0, 0, 0],
    )  # fmt: skip
    write_voc(truth, tmp_path, None)
    (tmp_path / "JPEGImages").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "JPEGImages/a.png")
    again = load(tmp_path)
    assert again.faults == ()
    assert len(again.boxes) == 3


@pytest.mark.parametrize(
    "data",
    [
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'.encode("utf-16"),
        b'<?xml version="1.0" encoding="cp037"?>' + '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'.encode("cp037"),
    ],
)
def test_no_entity_is_ever_declared(data: bytes) -> None:
    with pytest.raises((ForbiddenXml, SyntaxError, ValueError, LookupError)):
        parse_xml(data)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "iso-8859-1", "utf-16", "windows-1252"])
def test_texts_of_all_encodings(encoding: str) -> None:
    named = encoding.removesuffix("-sig")
    text = f'<?xml version="1.0" encoding="{named}"?><!-- c --><a><b>café</b></a>'
    assert parse_xml(text.encode(encoding)).findtext("b") == "café"
    assert parse_xml(text.replace("<!-- c -->", "").encode(encoding)).findtext("b") == "café"


@pytest.mark.data
def test_voc_animals_has_the_classes_of_pascal_voc(data_dir: Path) -> None:
    maps = load_label_maps(data_dir / "voc-animals", "val")
    assert len(maps.categories) == 21
    assert maps.categories.names[12] == "dog"
    truth = load(data_dir / "voc-animals", "val")
    assert not truth.outlines.any
    by_name = {file: image for image, file in enumerate(truth.image_files)}
    for image in range(0, len(maps), 60):
        seen = {maps.categories.names[v] for v in np.unique(maps.label_map(image)) if v not in (0, 255)}
        boxed = {truth.categories.names[v] for v in truth.labels[truth.rows(by_name[maps.image_files[image]])]}
        assert boxed <= seen | boxed
        assert seen & boxed


def test_a_tree_without_masks_has_no_label_maps(tmp_path: Path) -> None:
    root = tree(tmp_path, np.zeros((20, 30), np.uint8), [(1, 1, 30, 20)])
    with pytest.raises(DataError, match="no outlines"):
        load_label_maps(root)
