"""COCO JSON: pycocotools reads the same files; faults are worked out by hand."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detseg.annotations import AnnotationSet, find_format, load, splits
from detseg.annotations.coco import to_coco, write_coco
from detseg.annotations.sample import write_sample
from detseg.errors import DataError
from detseg.geometry.boxes import xyxy_to_xywh

CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "ant"}]


def picture(path: Path, wh: tuple[int, int] = (100, 80)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", wh).save(path)


def entry(id: Any, name: str = "a.jpg", **more: Any) -> dict[str, Any]:
    return {"id": id, "file_name": name, "width": 100, "height": 80} | more


def ann(id: Any, box: Any, image: Any = 1, category: Any = 7, **more: Any) -> dict[str, Any]:
    return {"id": id, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0} | more


def write(file: Path, images: list[Any], annotations: list[Any], categories: list[Any] = CATEGORIES) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


def as_pycocotools_reads(truth: AnnotationSet, file: Path) -> None:
    """Asserts that pycocotools finds the same pictures, categories and annotations in the file."""
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(file))
    assert sorted(truth.image_ids.tolist()) == sorted(coco.getImgIds())
    assert truth.categories.to_json() == [{"id": c["id"], "name": c["name"]} for c in coco.loadCats(coco.getCatIds())]
    for i, image_id in enumerate(truth.image_ids.tolist()):
        info = coco.imgs[image_id]
        assert Path(truth.image_files[i]).name == Path(info["file_name"]).name
        assert truth.image_hw[i].tolist() == [info["height"], info["width"]]
        rows, theirs = truth.rows(i), coco.loadAnns(coco.getAnnIds(image_id))
        assert truth.ids[rows].tolist() == [a["id"] for a in theirs]
        assert [truth.categories.ids[k] for k in truth.labels[rows]] == [a["category_id"] for a in theirs]
        assert truth.crowd[rows].tolist() == [bool(a["iscrowd"]) for a in theirs]
        assert truth.areas[rows].tolist() == [a["area"] for a in theirs]
        boxes = np.array([a["bbox"] for a in theirs]).reshape(-1, 4)
        np.testing.assert_allclose(xyxy_to_xywh(truth.boxes[rows]), boxes, rtol=0, atol=1e-9)


@pytest.mark.data
def test_coco_val_as_pycocotools_reads_it(data_dir: Path) -> None:
    truth = load(data_dir / "coco-val", "val")
    assert len(truth) == 188
    assert len(truth.categories) == 80
    assert truth.crowd.sum() == 20
    as_pycocotools_reads(truth, data_dir / "coco-val" / "instances_val2017.json")
    assert all(truth.image_path(i).is_file() for i in range(len(truth)))


@pytest.mark.data
def test_several_files_together(data_dir: Path) -> None:
    whole = load(data_dir / "nuclei")
    assert (len(whole), len(whole.boxes)) == (664, 28986)
    assert {s: len(load(data_dir / "nuclei", s)) for s in splits(data_dir / "nuclei")} == {
        "train": 531, "val": 66, "test": 67,
    }  # fmt: skip
    assert len(set(whole.image_ids.tolist())) == 664
    assert all(whole.image_path(i).is_file() for i in range(len(whole)))


def test_what_is_written_reads_the_same(tmp_path: Path) -> None:
    truth = load(write_sample(tmp_path / "sample", images=6), "train")
    difficult = np.arange(len(truth.ids)) % 3 == 0
    changed = AnnotationSet(**{**truth.__dict__, "difficult": difficult, "crowd": ~difficult})
    file = truth.root / "again.json"
    write_coco(changed, file)
    again = load(file)
    assert again.fingerprint() == changed.fingerprint()
    as_pycocotools_reads(load(tmp_path / "sample", "val"), tmp_path / "sample/annotations/instances_val.json")
    assert [a["iscrowd"] for a in to_coco(changed)["annotations"]] == [1] * len(truth.ids)


def test_ids_are_the_files_own_and_classes_in_their_order(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg")
    file = write(
        tmp_path / "x.json",
        [entry(90, "b.jpg"), entry(0, "a.jpg")],
        [ann(50, [1, 2, 3, 4], image=0), ann(40, [5, 6, 7, 8], image=90, category=3, area=9)],
    )
    truth = load(file)
    assert truth.image_ids.tolist() == [90, 0]
    assert truth.categories.ids == (3, 7)
    assert truth.ids.tolist() == [40, 50]
    assert truth.labels.tolist() == [0, 1]
    assert truth.boxes.tolist() == [[5, 6, 12, 14], [1, 2, 4, 6]]
    assert truth.areas.tolist() == [9, 12]


def test_what_is_wrong_is_left_out_and_told(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg")
    (tmp_path / "text.jpg").write_text("no picture")
    images = [
        entry(1),
        entry(1, "b.jpg"),
        entry(2, "gone.jpg"),
        entry(3, "text.jpg", width=None),
        entry("x", "b.jpg"),
        "picture",
        entry(4, "b.jpg", width=0),
    ]
    annotations = [
        ann(1, [10, 10, 20, 20]),
        ann(1, [10, 10, 20, 20]),  # twice
        ann(1, [40, 40, 20, 20]),  # another of the same id
        ann(3, [90, 70, 30, 30]),  # cut
        ann(4, [10, 10, 0.5, 20]),
        ann(5, [10, 10, -5, 20]),
        ann(6, [10, 10, float("nan"), 20]),
        ann(7, [10, 10, 20]),
        ann(8, "10 10 20 20"),
        ann(9, None, segmentation=[[1, 2, 3, 4]]),
        ann(20, None, segmentation=[[1, 2, 3, 4, 5, 6]]),
        ann(21, [1, 2, 4, 4], segmentation=[[1, 2, 3, 4, 5]]),
        ann(22, [1, 2, 4, 4], category=3, segmentation={"size": [81, 100], "counts": [8100]}),
        ann(10, [1, 1, 5, 5], image=77),
        ann(11, [1, 1, 5, 5], category=77),
        ann(12, [1, 1, 5, 5], iscrowd=[1]),
        ann(13, [10**400, 1, 5, 5]),
        ["annotation"],
        ann(14, [1, 1, 5, 5], image=2),  # its picture is gone, which was said already
        ann(True, [1, 1, 5, 5], category=3),
    ]
    truth = load(write(tmp_path / "x.json", images, annotations))
    assert truth.image_ids.tolist() == [1, 4]
    assert truth.boxes.tolist() == [
        [10, 10, 30, 30], [40, 40, 60, 60], [90, 70, 100, 80],
        [1, 2, 5, 6], [1, 2, 5, 6], [1, 2, 5, 6], [1, 1, 6, 6],
    ]  # fmt: skip
    assert truth.ids.tolist() == [1, 23, 3, 20, 21, 22, 24]
    assert truth.outlines.has.tolist() == [False, False, False, True, False, False, False]
    told = [(f.severity, f.kind, f.annotation) for f in truth.faults]
    assert told == [
        ("error", "duplicate-id", None),
        ("error", "missing-picture", None),
        ("error", "unreadable-picture", None),
        ("error", "bad-picture", None),
        ("error", "bad-picture", None),
        ("error", "duplicate-id", 1),
        ("warning", "duplicate-id", 1),
        ("error", "bad-box", 6),
        ("error", "bad-box", 7),
        ("error", "bad-box", 8),
        ("error", "missing-box", 9),
        ("warning", "missing-box", 20),
        ("error", "bad-outline", 21),
        ("error", "bad-outline", 22),
        ("error", "unknown-picture", 10),
        ("error", "unknown-category", 11),
        ("error", "bad-value", 12),
        ("error", "bad-box", 13),
        ("error", "bad-annotation", 18),
        ("warning", "box-outside", 3),
        ("warning", "degenerate-box", 4),
        ("warning", "degenerate-box", 5),
    ]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "not JSON"),
        (b'{"images": [', "is it complete"),
        (b"\xff\xfe\x00\x01", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[{}]", "a list of results is no truth"),
        (b'{"images": []}', "no list 'annotations'"),
        (b'{"images": [], "annotations": [], "categories": []}', "no usable category"),
        (b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "'images' is empty"),
    ],
)
def test_unusable_files(tmp_path: Path, content: bytes, cause: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=cause):
        load(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("file", "pictures"),
    [
        ("annotations/instances_val2017.json", "val2017/"),
        ("annotations/instances_val2017.json", "images/val2017/"),
        ("annotations/val.json", "images/"),
        ("annotations/val.json", "val/"),
        ("valid/_annotations.coco.json", "valid/"),
        ("val.json", ""),
        ("instances_val.json", "images/"),
    ],
)
def test_layouts(tmp_path: Path, file: str, pictures: str) -> None:
    picture(tmp_path / pictures / "a.jpg")
    write(tmp_path / file, [entry(1)], [ann(1, [1, 1, 5, 5])])
    write(tmp_path / "annotations" / "captions_val2017.json", [entry(1)], [])
    assert find_format(tmp_path) == "coco"
    for split in ("val", "valid", None):
        assert load(tmp_path, split).image_path(0).samefile(tmp_path / pictures / "a.jpg")
    with pytest.raises(DataError, match="no split 'test'; it has val"):
        load(tmp_path, "test")
    with pytest.raises(DataError, match="name does not say 'train'"):
        load(tmp_path / file, "train")


def test_names_written_on_another_machine(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg")
    for id_, name in enumerate(["C:\\photos\\a.jpg", "/home/someone/a.jpg", "images/a.jpg", "images\\a.jpg"]):
        truth = load(write(tmp_path / "x.json", [entry(id_, name)], []))
        assert truth.image_path(0).samefile(tmp_path / "images" / "a.jpg")


def test_files_that_disagree_are_not_read_together(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    write(tmp_path / "train.json", [entry(1)], [])
    write(tmp_path / "val.json", [entry(1)], [])
    together = load(tmp_path)
    assert together.image_ids.tolist() == [1, 2]  # both files call theirs 1
    write(tmp_path / "val.json", [entry(1)], [], [{"id": 1, "name": "dog"}])
    with pytest.raises(DataError, match="different categories"):
        load(tmp_path)
    assert load(tmp_path, "val").categories.names == ("dog",)


def test_the_quick_and_the_lenient_way_give_the_same(tmp_path: Path) -> None:
    """A NaN anywhere in a file makes Python's own parser read it; what annotations come out must not depend on it."""
    for id_ in range(1, 4):
        picture(tmp_path / f"{id_}.jpg")
    ring = [[1.5, 2, 30, 4, 5, 60]]
    annotations = [
        ann(5, [1.25, 2, 3, 4], image=3, segmentation=ring, area=7.5),
        ann("6", [1, 2, 3, 4.5], iscrowd=True, segmentation={"size": [80, 100], "counts": [10, 20, 7970]}),
        ann(7.0, [1, 2, 30, 4], area=None, segmentation=[]),
        ann(8, [1, 2, 30, 5], area="big", segmentation=[[1, 2, 3]]),
        ann(9, [1, 2, 30, 6], image=2, iscrowd=1, difficult=1, extra={"bbox": 1}),
        ann(2**70, [1, 2, 30, 7]),
        ann(5, [1, 2, 30, 8]),
        ann(-3, [1, 2, 30, 9], category=3, iscrowd=None),
        {k: v for k, v in ann(0, [1, 2, 30, 10]).items() if k != "id"},
    ]
    content = {
        "images": [entry(i, f"{i}.jpg") for i in (3, 1, 2)],
        "annotations": annotations,
        "categories": CATEGORIES,
    }
    quick, lenient = tmp_path / "quick.json", tmp_path / "lenient.json"
    quick.write_text(json.dumps(content))
    lenient.write_text(json.dumps({"info": float("nan"), **content}))
    ours, theirs = load(quick), load(lenient)
    assert ours.fingerprint() == theirs.fingerprint()
    assert len(ours.boxes) == 8
    tell = [[(f.severity, f.kind, f.message, f.annotation) for f in truth.faults] for truth in (ours, theirs)]
    assert tell[0] == tell[1]
    assert ours.image_ids.tolist() == [3, 1, 2]
    assert ours.outlines.segmentation(0) == ring
    assert ours.areas[0] == 7.5


@pytest.mark.parametrize("nan", [False, True])
def test_keys_given_twice(tmp_path: Path, nan: bool) -> None:
    picture(tmp_path / "a.jpg")
    file = write(tmp_path / "x.json", [entry(1)], [ann(1, [1, 2, 30, 40]), ann(2, [1, 2, 30, 41])])
    text = file.read_text().replace('"images"', '"info": NaN, "images"' if nan else '"images"')
    file.write_text(text.replace('"bbox": [1, 2, 30, 41]', '"bbox": [1, 2, 30, 41], "bbox": [1, 2, 30, 42]'))
    truth = load(file)
    assert truth.boxes[:, 3].tolist() == [42, 44]
    assert [(f.kind, f.annotation) for f in truth.faults] == [("duplicate-key", 2)]
    file.write_text(text.replace('"images"', '"images": [], "images"'))
    with pytest.raises(DataError, match="'images' is given more than once"):
        load(file)


@pytest.mark.parametrize("name", ["../../secret.jpg", "/etc/secret.jpg", "a/../../../secret.jpg", "C:\\..\\secret.jpg"])
def test_names_do_not_lead_out_of_the_data_set(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "secret.jpg")
    home = tmp_path / "home" / "set"
    picture(home / "a" / "b.jpg")
    picture(home / "a.jpg")
    name = name.replace("/etc", str(tmp_path))
    truth = load(write(home / "x.json", [entry(1, "a/../a.jpg"), entry(2, name)], []))
    assert truth.image_ids.tolist() == [1]
    assert [f.kind for f in truth.faults] in (["outside-root"], ["missing-picture"])
    for i, place in enumerate(load(home / "x.json", need_images=False).image_files):
        assert (home / place).resolve().is_relative_to(home), i


@pytest.mark.data
@pytest.mark.parametrize("file", ["coco-val/instances_val2017.json", "nuclei/instances_test.json"])
def test_outlines_as_pycocotools_reads_them(data_dir: Path, file: str) -> None:
    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO

    path = next((data_dir / Path(file).parent).rglob(Path(file).name), None)
    assert path is not None
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    truth = load(path)
    image_of = truth.image_index
    assert truth.outlines.has.all()
    for row, id_ in enumerate(truth.ids.tolist()):
        h, w = truth.image_hw[image_of[row]].tolist()
        theirs = coco.annToRLE(coco.anns[id_])
        counts = theirs["counts"] if isinstance(theirs["counts"], bytes) else theirs["counts"].encode()
        assert truth.outlines.rle(row, (h, w)) == {"size": theirs["size"], "counts": counts}
        if row % 50 == 0:
            assert (truth.outlines.mask(row, (h, w)) == np.asarray(coco_mask.decode([theirs])[..., 0])).all()


@pytest.mark.parametrize("far", ["1234567.5", "1e11", "-1E9", "0.12345678"])
def test_outlines_that_reach_far_away(tmp_path: Path, far: str) -> None:
    """What draws polygons writes beyond its memory when they are that large."""
    picture(tmp_path / "a.jpg")
    file = write(tmp_path / "x.json", [entry(1)], [ann(1, [1, 2, 30, 40], segmentation=[[1, 2, 3, 4, 5, 777]])])
    file.write_text(file.read_text().replace("777", far))
    truth = load(file)
    assert truth.outlines.has.tolist() == [far.startswith("0")]
    assert [f.kind for f in truth.faults] == ["bad-outline"] * (not far.startswith("0"))


def test_a_byte_that_is_no_text(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    outline = {"size": [80, 100], "counts": "byte"}
    file = write(tmp_path / "x.json", [entry(1)], [ann(1, [1, 2, 3, 4]), ann(2, [1, 2, 3, 5], segmentation=outline)])
    file.write_bytes(file.read_bytes().replace(b'"byte"', b'"\xff\xfe"'))
    truth = load(file)
    assert truth.ids.tolist() == [1]
    assert [f.kind for f in truth.faults] == ["bad-annotation"]
