"""Readers of results: the same objects from every format, and one clear message for whatever cannot be used."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from detseg.annotations import AnnotationSet, Categories
from detseg.errors import DataError
from detseg.evaluation import Predictions, read_predictions
from detseg.images import ImageFile
from detseg.results import Detections
from detseg.writers import open_writers

HW = (60, 80)
NAMES = ("night heron", "cat", "dog")
# a large number makes the search as long as one likes
FUZZ = settings(max_examples=int(os.environ.get("DETSEG_FUZZ", "60")))


def truth_of(files: tuple[str, ...] = ("images/a.jpg", "images/b/a.jpg", "images/c.png")) -> AnnotationSet:
    return AnnotationSet.from_columns(
        root=Path("data"),
        format="made",
        categories=Categories((7, 1, 90), NAMES),
        image_files=files,
        image_hw=[HW] * len(files),
        image_ids=[5, 139, 8][: len(files)],
        image_index=[0],
        boxes=[[1, 2, 30, 40]],
        labels=[0],
    )


TRUTH = truth_of()
ROWS = np.array(
    [[0, 1.5, 2.25, 20, 30, 0.5, 0], [0, 4, 4, 9.5, 8, 0.25, 2], [2, 0, 0, 80, 60, 1, 1]]
)  # picture, x, y, w, h, score, class


def entries(rows: np.ndarray = ROWS) -> list[dict[str, Any]]:
    ids, classes = TRUTH.image_ids.tolist(), TRUTH.categories.ids
    return [
        {"image_id": ids[int(p)], "category_id": classes[int(label)], "bbox": box, "score": score}
        for p, *box, score, label in rows.tolist()
    ]


def read(path: Path, truth: AnnotationSet = TRUTH) -> Predictions:
    return read_predictions(path, truth)


# ---- COCO JSON ----


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e,
        lambda e: {**e, "image_id": float(e["image_id"]), "extra": {"a": [1]}},
        lambda e: {**e, "image_id": str(e["image_id"]), "category_id": str(e["category_id"])},
        lambda e: {**e, "image_id": {5: "images/a.jpg", 8: "c"}[e["image_id"]]},
        lambda e: {**e, "segmentation": []},
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_coco(tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], listed: bool) -> None:
    objects = [change(entry) for entry in entries()]
    (tmp_path / "p.json").write_text(json.dumps({"annotations": objects} if listed else objects))
    if not listed:
        found = read(tmp_path / "p.json")
        assert np.array_equal(found.rows, ROWS)
        assert found.outlines is None
    else:  # a listing without pictures and classes is none
        with pytest.raises(DataError, match="its list of pictures cannot be used"):
            read(tmp_path / "p.json")


def test_coco_with_its_own_numbers(tmp_path: Path) -> None:
    """Pictures by path and classes by name, whatever their ids; with a byte order mark and much space."""
    numbers = ({5: 1, 8: 2}, {7: 0, 1: 4, 90: 2})
    numbered = [
        {**e, **{key: of[e[key]] for key, of in zip(("image_id", "category_id"), numbers, strict=True)}}
        for e in entries()
    ]
    named = {1: "images/a.jpg", 2: "/elsewhere/c.png", 3: "z"}
    images = [{"id": id_, "file_name": name} for id_, name in named.items()]
    classes = [{"id": i, "name": n} for i, n in ((0, "Night Heron"), (4, "cat"), (2, "dog"))]
    content = {"categories": classes, "annotations": numbered, "images": images}
    (tmp_path / "one.json").write_bytes(b"\xef\xbb\xbf  \n" + json.dumps(content, indent=3).encode())
    assert np.array_equal(read(tmp_path / "one.json").rows, ROWS)
    (tmp_path / "p.json").write_text(json.dumps(numbered))
    (tmp_path / "images.json").write_text(json.dumps({"images": images, "categories": classes}))
    assert np.array_equal(read(tmp_path / "p.json").rows, ROWS)


def test_coco_with_huge_ids(tmp_path: Path) -> None:
    """Ids that a double does not hold exactly are not mixed up."""
    big = 2**53
    truth = truth_of(("a.jpg", "b.jpg"))
    truth = AnnotationSet(**{**vars(truth), "image_ids": np.array([big, big + 1])})
    objects = [{**entries()[0], "image_id": big + 1}, {**entries()[0], "image_id": big}]
    (tmp_path / "p.json").write_text(json.dumps(objects))
    assert read(tmp_path / "p.json", truth).rows[:, 0].tolist() == [1, 0]


def test_coco_masks(tmp_path: Path) -> None:
    """With boxes areas are the boxes'; without, box and area are the mask's."""
    mask = np.zeros(HW, np.uint8, order="F")
    mask[10:20, 5:9] = 1
    coded = coco_mask.encode(mask)
    rle = {"size": list(HW), "counts": coded["counts"].decode()}
    polygon = [[5.0, 10.0, 9.0, 10.0, 9.0, 20.0, 5.0, 20.0]]
    for outline in (rle, polygon):
        (tmp_path / "p.json").write_text(json.dumps([{**e, "segmentation": outline} for e in entries()]))
        found = read(tmp_path / "p.json")
        assert np.array_equal(found.rows, ROWS)
        assert found.areas is None
        assert found.outlines is not None
        assert all(np.array_equal(found.outlines.mask(i, HW), mask) for i in range(3))
        only = [{k: v for k, v in e.items() if k != "bbox"} | {"segmentation": outline} for e in entries()]
        (tmp_path / "p.json").write_text(json.dumps(only))
        found = read(tmp_path / "p.json")
        assert found.rows[:, 1:5].tolist() == [[5, 10, 4, 10]] * 3
        assert found.areas is not None
        assert found.areas.tolist() == [40] * 3


BAD_COCO = {
    "": "is not JSON",
    "{}": "holds no list of objects",
    "[1]": "object 1 .*it is 1, not an object",
    '[{"image_id": 5}]': "'category_id' is missing",
    '[{"image_id": true, "category_id": 7, "bbox": [1, 2, 3, 4], "score": 1}]': "True is no id",
    '[{"image_id": 5.5, "category_id": 7, "bbox": [1, 2, 3, 4], "score": 1}]': "5.5 is no id",
    '[{"image_id": [], "category_id": 7, "bbox": [1, 2, 3, 4], "score": 1}]': "is no id",
    '[{"image_id": 5, "category_id": 7, "bbox": ["1", 2, 3, 4], "score": 1}]': "bbox holds '1'",
    '[{"image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 1e999], "score": 1}]': "no finite number",
    '[{"image_id": 5, "category_id": 7, "bbox": {"x": 1}, "score": 1}]': "bbox is {'x': 1}",
    '[{"image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4], "score": "0.5"}]': "the score '0.5' is no number",
    '[{"image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4], "score": NaN}]': "no finite number",
    '[{"image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4], "score": null}]': "the score None is no number",
    '[{"image_id": 5, "category_id": 7, "segmentation": [[1, 2]], "score": 1}]': "less than three points",
    '[{"image_id": 5, "category_id": 7, "segmentation": {"size": [9, 9], "counts": [81]}, "score": 1}]': "of a mask",
    '[{"image_id": 5, "category_id": 7, "segmentation": {"size": [60, 80], "counts": "!"}, "score": 1}]': "run lengths",
    '[{"image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4], "segmentation": {"size": [60, 80], "counts": [9]}, '
    '"score": 1}]': "its run lengths cover 9 pixels",
    "[" * 100_000: "is not JSON",
    '{"annotations": [], "images": [{"id": 1}]}': "its list of pictures cannot be used",
    '{"annotations": [], "images": [], "categories": [{"id": 1}]}': "its list of classes cannot be used",
}


@pytest.mark.parametrize("content", BAD_COCO, ids=lambda c: c[:60])
def test_bad_coco(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(DataError, match=rf"p\.json: .*{BAD_COCO[content]}"):
        read(tmp_path / "p.json")


# ---- detseg's own outputs ----


@pytest.mark.parametrize(
    ("format", "place", "within"),
    [("coco", "predictions.json", 0), ("csv", "predictions.csv", 0.005), ("jsonl", "predictions.jsonl", 0.005),
     ("yolo", "labels", 1e-4), ("voc", "voc", 1)],
)  # fmt: skip
def test_what_detseg_writes(tmp_path: Path, format: str, place: str, within: float) -> None:
    """Every format read again, by its file and by the run's folder: the same objects within the format's rounding."""
    files = [ImageFile(Path(name), PurePosixPath(name).relative_to("images")) for name in TRUTH.image_files]
    with open_writers([format], tmp_path, TRUTH.categories, save_conf=True) as writers:
        for index, file in enumerate(files):
            mine = ROWS[ROWS[:, 0] == index]
            xyxy = np.concatenate([mine[:, 1:3], mine[:, 1:3] + mine[:, 3:5]], axis=1).astype(np.float32)
            writers.write(file, None, Detections(HW, xyxy, mine[:, 5].astype(np.float32), mine[:, 6].astype(np.int64)))
    for path in (tmp_path / place, tmp_path):
        found = read(path).rows
        order = np.lexsort((found[:, 1], found[:, 0]))
        assert found[order][:, [0, 6]].tolist() == ROWS[:, [0, 6]].tolist()
        assert found[order][:, 1:6] == pytest.approx(ROWS[:, 1:6], abs=2 * within + 1e-5)


# ---- YOLO ----


def test_yolo(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf0 0.5 0.5 0.25 0.5 0.75\r\n\r\n 2 0.5 0.5 1 1\r\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.txt").write_text("5 0.1 0.1 0.2 0.2 1")
    (tmp_path / "c.txt").write_text("")
    found = read(tmp_path, truth_of(("train/images/a.jpg", "train/images/b/a.jpg", "train/images/c.png")))
    assert found.rows.tolist() == [[0, 30, 15, 20, 30, 0.75, 0], [0, 0, 0, 80, 60, 1, 2]]
    assert any("1 of 3 objects have no score" in note for note in found.notes)
    assert any("1 objects of classes" in note for note in found.notes)
    (tmp_path / "classes.txt").write_text("dog\nunicorn\nCat\n")
    found = read(tmp_path, truth_of(("images/a.jpg", "images/b/a.jpg")))
    assert found.rows[:, 6].tolist() == [2, 1]


def test_yolo_polygons(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("1 0.25 0.5 0.5 0.5 0.5 1 0.9\n1 0.25 0.5 0.5 0.5 0.5 1\n1 0.5 0.5 0.5 0.5 0.3")
    found = read(tmp_path)
    assert found.rows[:, 1:6].tolist() == [[20, 30, 20, 30, 0.9], [20, 30, 20, 30, 1], [20, 15, 40, 30, 0.3]]
    assert found.outlines is not None
    assert found.outlines.has.tolist() == [True, True, False]
    assert found.outlines.segmentation(0) == [[20, 30, 40, 30, 40, 60]]


BAD_YOLO = {
    "0 0.5 0.5 0.1": "line 1: 4 numbers",
    "0": "line 1: 1 numbers",
    "0 0 0 1 1 9e9 0": "line 1: a point of it lies more than",  # would take all memory to draw
    "0 0.5 0.5 0.1 0.1 1\nx 0.5 0.5 0.1 0.1": "line 2: 'x' is no usable number",
    "0.5 0.5 0.5 0.1 0.1": "line 1: the class is '0.5'",
    "-1 0.5 0.5 0.1 0.1": "line 1: the class is '-1'",
    "0 nan 0.5 0.1 0.1": "line 1: 'nan' is no usable number",
    "0 0.5 0.5 0.1 inf": "line 1: 'inf' is no usable number",
}


@pytest.mark.parametrize("content", BAD_YOLO)
def test_bad_yolo(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.txt").write_text(content)
    with pytest.raises(DataError, match=rf"c\.txt, {BAD_YOLO[content]}"):
        read(tmp_path)


# ---- VOC ----


def test_voc_texts(tmp_path: Path) -> None:
    """The last pixel is included, the first is number 1; names may hold spaces; the longest class name counts."""
    (tmp_path / "comp4_det_test_night heron.txt").write_text("c 0.5 1 1 80 60\r\nb/a 0.25 11 21.5 12 22\n")
    (tmp_path / "comp4_det_test_cat.txt").write_text("zzz 0.5 1 1 2 2\n")
    (tmp_path / "comp4_det_test_unicorn.txt").write_text("c 0.5 1 1 2 2\n")
    found = read(tmp_path)
    assert found.rows.tolist() == [[2, 0, 0, 80, 60, 0.5, 0], [1, 10, 20.5, 2, 1.5, 0.25, 0]]
    assert any("comp4_det_test_unicorn.txt" in note for note in found.notes)
    assert any("1 objects of pictures" in note for note in found.notes)
    assert read(tmp_path / "comp4_det_test_night heron.txt").rows[:, 6].tolist() == [0, 0]


BAD_VOC = {
    "c 0.5 1 1 2": "line 1: 5 columns",
    "c 0.5 1 1 2 2\nc x 1 1 2 2": "line 2: 'x' is no usable number",
    "c 0.5 1 1 2 nan": "line 1: 'nan' is no usable number",
}


@pytest.mark.parametrize("content", BAD_VOC)
def test_bad_voc_texts(tmp_path: Path, content: str) -> None:
    (tmp_path / "comp4_det_val_cat.txt").write_text(content)
    with pytest.raises(DataError, match=rf"comp4_det_val_cat\.txt, {BAD_VOC[content]}"):
        read(tmp_path)


BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>"
BAD_PAGES = {
    "": "is not XML",
    "<annotation>": "is not XML",
    '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>': "is not XML that can be used",
    '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>': "is not XML that can be used",
    '<?xml version="1.0" encoding="nonsense"?><a/>': "is not XML",
    f"<annotation><object>{BOX}</object></annotation>": "object 1: it has no name",
    "<annotation><object><name>cat</name></object></annotation>": "object 1: it has no bndbox/xmin",
    f"<a><object><name>cat</name>{BOX.replace('3', 'NaN')}</object></a>": "object 1: 'NaN' is no usable number",
    f"<a><object><name>cat</name>{BOX}<confidence>high</confidence></object></a>": "'high' is no usable number",
}


@pytest.mark.parametrize("content", BAD_PAGES)
def test_bad_voc_pages(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.xml").write_text(content)
    with pytest.raises(DataError, match=rf"c\.xml.*{BAD_PAGES[content]}"):
        read(tmp_path)


# ---- tables ----

HEADER = "file,name,score,x1,y1,x2,y2\n"
BAD_TABLES = {
    ("p.csv", "a,b\n1,2\n"): "line 1: there is no column 'file'",
    ("p.csv", HEADER + "c.png,cat,high,1,2,3,4\n"): "line 2: 'high' is no usable number",
    ("p.csv", HEADER + "c.png,cat,1,1,2\n"): "line 2: it has less columns",
    ("p.csv", HEADER + f"c.png,{'x' * 200_000},1,1,2,3,4\n"): "line 2: is not CSV",
    ("p.csv", ""): "line 1: there is no column",
    ("p.jsonl", '{"file": "c.png", "objects": []}\n{"file": 1}'): "line 2: is not a line of predictions.jsonl",
    ("p.jsonl", "[]"): "line 1: is not a line",
    ("p.jsonl", '{"file": "c", "objects": [{"name": "cat", "score": "1", "box": [1, 2, 3, 4]}]}'): "line 1: is not",
    ("p.jsonl", '{"file": "c", "objects": [{"name": "cat", "score": 1, "box": [1, 2, 3]}]}'): "line 1: is not",
    ("p.jsonl", '{"file": "c", "objects": [{"name": "cat", "score": 1e999, "box": [1, 2, 3, 4]}]}'): "line 1",
}


@pytest.mark.parametrize(("file", "content"), BAD_TABLES, ids=lambda c: c[:40])
def test_bad_tables(tmp_path: Path, file: str, content: str) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=rf"{file}, {BAD_TABLES[file, content]}"):
        read(tmp_path / file)


# ---- what is what ----


def test_places_that_hold_no_results(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read(tmp_path / "nothing.json")
    with pytest.raises(DataError, match="holds no results of boxes"):
        read(tmp_path)
    (tmp_path / "weights.onnx").write_bytes(b"")
    with pytest.raises(DataError, match="is no kind of results"):
        read(tmp_path / "weights.onnx")
    (tmp_path / "latin.csv").write_bytes(HEADER.encode() + "gröer.png,cat,1,1,2,3,4\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.csv: is not UTF-8 text at byte"):
        read(tmp_path / "latin.csv")


def test_the_same_name_in_two_folders_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps([{**entries()[0], "image_id": "a"}, {**entries()[0], "image_id": "c"}]))
    truth = truth_of(("x/a.jpg", "y/a.jpg", "c.png"))
    found = read(tmp_path / "p.json", truth)
    assert found.rows[:, 0].tolist() == [2]
    assert any("1 objects of pictures" in note for note in found.notes)


# ---- whatever stands in the files: results or a DataError ----

JUNK = st.one_of(
    st.binary(max_size=8),
    st.sampled_from(
        [b"", b"\0", b"\xff", b"NaN", b"-1e999", b"\n", b'"', b"[", b"}", b",", b" ", b"99999999999999999999"]
    ),
)
CONTENTS: dict[str, bytes] = {
    "p.json": json.dumps(entries()).encode(),
    "m.json": json.dumps(
        [{**e, "segmentation": {"size": list(HW), "counts": [100, 20, 4680]}} for e in entries()]
        + [{**entries()[0], "segmentation": [[5, 5, 9, 5, 9, 20]]}]
    ).encode(),
    "l.json": json.dumps(
        {
            "images": [{"id": 5, "file_name": "c.png"}],
            "categories": [{"id": 7, "name": "cat"}],
            "annotations": entries(),
        }
    ).encode(),
    "p.csv": (HEADER + "c.png,cat,0.5,1,2,3,4\na.jpg,dog,0.5,1,2,3,4\n").encode(),
    "p.jsonl": b'{"file": "c.png", "objects": [{"name": "cat", "score": 1, "box": [1, 2, 3, 4]}]}\n' * 2,
    "yolo/c.txt": b"1 0.25 0.5 0.5 0.5 0.5 1 0.9\n0 0.5 0.5 0.1 0.1 0.5\n",
    "voc/comp4_det_test_cat.txt": b"c 0.5 1 1 80 60\nb/a 0.25 11 21.5 12 22\n",
    "pages/c.xml": f"<a><object><name>cat</name>{BOX}<confidence>1</confidence></object></a>".encode(),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_mutated_files(name: str) -> None:
    whole = CONTENTS[name]

    @FUZZ
    @given(
        cuts=st.lists(st.tuples(st.integers(0, len(whole)), st.integers(0, 12), JUNK), max_size=4),
        end=st.one_of(st.none(), st.integers(0, len(whole))),
    )
    def usable_or_refused(cuts: list[tuple[int, int, bytes]], end: int | None) -> None:
        content = whole[:end]
        for at, length, junk in cuts:
            content = content[:at] + junk + content[at + length :]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, name)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
            found, refused = None, ""
            try:
                found = read(file if "/" not in name else file.parent)
            except DataError as error:
                refused = str(error)
        if found is None:
            assert folder in refused
            assert len(refused) < 1500
            return
        assert found.rows.shape[1] == 7
        assert np.isfinite(found.rows).all()
        assert set(found.rows[:, 0]) <= set(range(len(TRUTH)))
        assert set(found.rows[:, 6]) <= set(range(len(NAMES)))
        assert found.outlines is None or len(found.outlines) == len(found.rows)
        if found.outlines is not None:
            assert all(found.outlines.mask(row, HW).shape == HW for row in range(len(found.rows)))

    usable_or_refused()
