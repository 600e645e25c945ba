"""Outlines as YOLO lines: pycocotools draws what was written and what was read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask

from detseg.annotations import AnnotationSet, Categories, load
from detseg.annotations.outlines import Outlines
from detseg.annotations.rings import joined, one_ring, rings_of_mask
from detseg.annotations.yolo_labels import write_yolo
from detseg.errors import DataError

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def drawn(ring: np.ndarray, h: int, w: int) -> np.ndarray:
    return coco_mask.decode(coco_mask.frPyObjects([ring.ravel().tolist()], h, w))[..., 0].astype(bool)


@settings(max_examples=300)
@given(mask=MASKS)
def test_the_ring_of_any_mask_draws_the_mask(mask: np.ndarray) -> None:
    """Holes, parts that touch at corners, single pixels: pycocotools fills the one ring and gives the mask back."""
    rings = rings_of_mask(mask)
    if not mask.any():
        assert rings == []
        return
    np.testing.assert_array_equal(drawn(joined(rings), *mask.shape), mask)
    xs, ys = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    points = np.concatenate(rings)
    assert [*points.min(axis=0), *points.max(axis=0)] == [xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]


def test_a_pixel_and_a_frame_by_hand() -> None:
    corners = {(2.0, 1.0), (3.0, 1.0), (3.0, 2.0), (2.0, 2.0)}
    pixel = np.zeros((4, 5), bool)
    pixel[1, 2] = True
    (ring,) = rings_of_mask(pixel)
    assert {tuple(point) for point in ring.tolist()} == corners
    frame = np.ones((3, 3), bool)
    frame[1, 1] = False
    assert sorted(len(ring) for ring in rings_of_mask(frame)) == [4, 4]
    # 4 corners, the bridge's foot and head twice, 4 corners of the hole
    assert len(joined(rings_of_mask(frame))) == 4 + 1 + 4 + 1


def test_polygons_that_overlap_are_one_region() -> None:
    """Joined as they are, what lies in both would be outside: the union is traced instead."""
    two = [[0, 0, 8, 0, 8, 8, 0, 8], [4, 0, 12, 0, 12, 8, 4, 8]]
    mask = np.zeros((10, 14), bool)
    mask[:8, :12] = True
    np.testing.assert_array_equal(drawn(one_ring(two, (10, 14)), 10, 14), mask)


def a_set(root: Path, segmentations: list, **columns: object) -> AnnotationSet:
    n = len(segmentations)
    return AnnotationSet.from_columns(
        root=root,
        format="by hand",
        categories=Categories((0, 7), ("x", "y")),
        image_files=["images/a.png"],
        image_hw=[(40, 60)],
        image_index=[0] * n,
        boxes=[[10, 10, 30, 30]] * n,
        labels=[1] * n,
        outlines=Outlines.of(segmentations),
        **columns,
    )


def test_lines_of_a_triangle_a_box_and_ignored_ones(tmp_path: Path) -> None:
    triangle = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0]]
    truth = a_set(tmp_path, [triangle, None, triangle, triangle], crowd=[0, 0, 1, 0], difficult=[0, 0, 0, 1])
    told = {loss.kind: loss.count for loss in write_yolo(truth, tmp_path)}
    lines = [
        "7 0.166666667 0.25 0.5 0.25 0.5 0.75",
        "7 0.333333333 0.5 0.333333333 0.5",
    ]
    assert (tmp_path / "labels/a.txt").read_text().splitlines() == lines
    assert told == {"crowd": 1, "difficult": 1, "mixed": 1}
    assert {loss.kind: loss.count for loss in write_yolo(truth, tmp_path, outlines=False)}["outlines"] == 1
    assert (tmp_path / "labels/a.txt").read_text().splitlines() == [lines[1]] * 2


def test_an_outline_that_misses_its_box_is_told_with_the_distance(tmp_path: Path) -> None:
    truth = a_set(tmp_path, [[[10.0, 10.0, 33.0, 10.0, 30.0, 30.0]]])
    (loss,) = write_yolo(truth, tmp_path)
    assert (loss.kind, loss.count, loss.worst_px) == ("boxes", 1, 3.0)


def test_a_negative_class_cannot_be_written(tmp_path: Path) -> None:
    truth = AnnotationSet.from_columns(
        root=tmp_path, format="x", categories=Categories((-1,), ("x",)), image_files=["a.png"], image_hw=[(4, 4)],
        image_index=[], boxes=[], labels=[],
    )  # fmt: skip
    with pytest.raises(DataError, match="-1 cannot be a YOLO class"):
        write_yolo(truth, tmp_path)


def test_an_outline_is_read_to_the_pixel(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "images/a.png")
    (tmp_path / "labels/a.txt").write_text("0 0.166666667 0.25 0.5 0.25 0.5 0.75\n1 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [x, y]\n")
    truth = load(tmp_path)
    assert truth.outlines.segmentation(0) == [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0]]
    assert truth.outlines.segmentation(1) is None
    np.testing.assert_allclose(truth.boxes, [[10, 10, 30, 30], [15, 10, 45, 30]], atol=1e-6)
    oracle = coco_mask.area(coco_mask.frPyObjects([[10.0, 10, 30, 10, 30, 30]], 40, 60))[0]
    assert truth.areas.tolist() == [oracle, 600.0]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("train: images\ntrain: other\nnames: [x]\n", "key 'train' is given twice"),
        ("train: images\nnames: {0: x, 0: y}\n", "key '0' is given twice"),
        ("names: [x]\npath: " + "a" * 5_000_000, "larger than 4 MB"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\npath: *c\nnames: [x]\ntrain: images\n", "not a folder"),
    ],
)
def test_descriptions_that_lie_or_swell(tmp_path: Path, text: str, cause: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=cause) as error:
        load(tmp_path)
    assert len(str(error.value)) < 400 + len(str(tmp_path))


def test_a_list_cannot_lead_out_of_the_data(tmp_path: Path) -> None:
    for place in ("set/images/a.png", "secret/images/b.png"):
        file = tmp_path / place
        file.parent.mkdir(parents=True)
        Image.new("RGB", (60, 40)).save(file)
    (tmp_path / "set/labels").mkdir()
    (tmp_path / "set/labels/a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    listed = f"images/a.png\n../secret/images/b.png\n{tmp_path}/secret/images/b.png\n"
    (tmp_path / "set/train.txt").write_text(listed)
    (tmp_path / "set/data.yaml").write_text("train: train.txt\nnames: [x]\n")
    truth = load(tmp_path / "set")
    assert truth.image_files == ("images/a.png",)
    assert [f.kind for f in truth.faults] == ["outside-picture"] * 2


def test_a_line_of_ten_megabytes_is_an_outline_or_a_fault(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "images/a.png")
    (tmp_path / "labels/a.txt").write_bytes(b"\xef\xbb\xbf0 0.5 0.5 0.5 0.5\r\n" + b"0 " + b"0.25 " * 2_000_001)
    (tmp_path / "data.yaml").write_text("train: images\nnames: [x]\n")
    truth = load(tmp_path)
    assert truth.boxes.tolist() == [[15, 10, 45, 30]]
    assert [f.kind for f in truth.faults] == ["bad-line"]
