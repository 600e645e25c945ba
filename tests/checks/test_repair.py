"""A repaired copy: checks clean but for what only people can decide; the original stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from detseg.annotations import load
from detseg.annotations.sample import write_sample
from detseg.checks import check
from detseg.checks.outline_repair import cut, turned, turned_boxes
from detseg.checks.repair import CHANGES, Wishes, repair
from detseg.errors import DetsegError
from detseg.images import read_image
from tests import planted_faults

FOR_PEOPLE = {"coco": {"outline-box", "similar-across-splits", "similar-names"}}  # what a program cannot decide


@pytest.mark.parametrize("name", ["coco", "voc", "yolo", "masks", "voc_masks"])
def test_the_copy_checks_clean(name: str, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    planted = getattr(planted_faults, f"plant_{name}")(data)
    before = {p: p.read_bytes() for p in data.rglob("*") if p.is_file()}
    done = repair(data, out, Wishes(workers=2))
    assert {p: p.read_bytes() for p in data.rglob("*") if p.is_file()} == before
    left = {f.kind for f in check(out, workers=2).findings if f.severity != "note"}
    assert left == FOR_PEOPLE.get(name, set())
    # every planted fault has its change, or is left
    assert {kind for kind, _, _ in planted} <= {change.kind for change in done.changes} | left
    written = [json.loads(line) for line in (out / CHANGES).read_text().splitlines()]
    assert [line["message"] for line in written] == [change.message for change in done.changes]


@pytest.mark.parametrize("format", ["coco", "voc", "yolo", "masks"])
def test_nothing_to_repair_changes_nothing(format: str, tmp_path: Path) -> None:
    data = write_sample(tmp_path / "data", format=format, images=10)  # type: ignore[arg-type]
    done = repair(data, tmp_path / "out")
    assert done.changes == ()
    assert done.pictures == 10
    if format == "masks":
        return
    for split in ("train", "val"):
        a, b = load(data, split), load(tmp_path / "out", split)
        assert [Path(f).name for f in a.image_files] == [Path(f).name for f in b.image_files]
        np.testing.assert_array_equal(a.boxes, b.boxes)
        assert a.categories == b.categories
        assert list(a.outlines.texts()) == list(b.outlines.texts())
    for file in (data / "Annotations").glob("*.xml"):
        assert (tmp_path / "out" / "Annotations" / file.name).read_bytes() == file.read_bytes()


def test_what_detseg_does_not_read_stays_in_repaired_files(tmp_path: Path) -> None:
    data = write_sample(tmp_path / "voc", format="voc", images=6)
    page = next(p for p in sorted((data / "Annotations").iterdir()) if "<object>" in p.read_text())
    text = page.read_text().replace("<annotation>", "<annotation><source><flickrid>7</flickrid></source>", 1)
    bad = (
        "<object><name>circle</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
    )
    page.write_text(text.replace("Unspecified", "Left", 1).replace("</annotation>", bad + "</annotation>"))
    repair(data, tmp_path / "out")
    mended = (tmp_path / "out" / "Annotations" / page.name).read_text()
    assert "<flickrid>7</flickrid>" in mended
    assert "Left" in mended
    assert mended.count("<object>") == text.count("<object>")


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_and_outlines_turn_as_pixels_do(orientation: int, tmp_path: Path) -> None:
    h, w = 40, 60
    stored = np.zeros((h, w), np.uint8)
    stored[5:12, 20:50] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    upright = read_image(tmp_path / "a.png")[..., 0] > 0
    ys, xs = np.flatnonzero(upright.any(axis=1)), np.flatnonzero(upright.any(axis=0))
    box = turned_boxes(np.array([[20.0, 5, 50, 12]]), (h, w), orientation)[0]
    assert box.tolist() == [xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]
    coded = coco_mask.encode(np.asfortranarray(stored > 0, np.uint8))
    moved = turned({"size": [h, w], "counts": coded["counts"]}, (h, w), orientation)
    assert (coco_mask.decode(moved) > 0).tolist() == upright.tolist()
    ring = turned([[20, 5, 50, 5, 50, 12, 20, 12]], (h, w), orientation)
    drawn = coco_mask.decode(coco_mask.frPyObjects(ring, w, h))[..., 0] > 0
    assert (drawn == upright).all()


def test_a_cut_polygon_covers_the_same_pixels_inside() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
        ring = np.stack([30 + rng.uniform(10, 60, 7) * np.cos(angles), 20 + 50 * np.sin(angles)], axis=1)
        inside = cut([ring.ravel().tolist()], (40, 60))
        points = np.concatenate([np.reshape(r, (-1, 2)) for r in inside])
        assert points.min() >= 0
        assert (points <= (60, 40)).all()
        # drawn on a picture with room on every side, then looked at through the window
        wide = coco_mask.decode(coco_mask.frPyObjects([(ring + 100).ravel().tolist()], 240, 260))[100:140, 100:160, 0]
        mine = coco_mask.decode(coco_mask.frPyObjects([(points + 100).ravel().tolist()], 240, 260))[100:140, 100:160, 0]
        assert np.mean(wide != mine) < 0.02  # rasterised borders round
    assert cut([[100, 100, 120, 100, 120, 120]], (40, 60)) == []


def test_the_picture_of_two_splits_stays_where_models_are_tested(tmp_path: Path) -> None:
    data = write_sample(tmp_path / "data", images=10)
    train, val = (data / "annotations" / f"instances_{s}.json" for s in ("train", "val"))
    shared = json.loads(train.read_text())["images"][0]
    content = json.loads(val.read_text())
    content["images"].append({**shared, "id": 999})
    val.write_text(json.dumps(content))
    done = repair(data, tmp_path / "out")
    assert [change.kind for change in done.changes] == ["picture-in-two-splits"]
    names = {s: [Path(f).name for f in load(tmp_path / "out", s).image_files] for s in ("train", "val")}
    assert shared["file_name"] in names["val"]
    assert shared["file_name"] not in names["train"]
    kept = repair(data, tmp_path / "kept", Wishes(keep_duplicates=True))
    assert kept.changes == ()


def test_classes_are_merged_only_when_asked_for(tmp_path: Path) -> None:
    data = write_sample(tmp_path / "data", images=10)
    for file in (data / "annotations").iterdir():
        content = json.loads(file.read_text())
        content["categories"].append({"id": 9, "name": "Circle"})
        for thing in content["annotations"][:1]:
            thing["category_id"] = 9
        file.write_text(json.dumps(content))
    repair(data, tmp_path / "kept")
    repair(data, tmp_path / "merged", Wishes(merge_names=True))
    assert load(tmp_path / "kept", "train").categories.names == ("circle", "square", "triangle", "Circle")
    assert load(tmp_path / "merged", "train").categories.names == ("circle", "square", "triangle")
    assert len(load(tmp_path / "merged").boxes) == len(load(data).boxes)


def test_the_copy_goes_nowhere_but_to_a_new_folder(tmp_path: Path) -> None:
    data = write_sample(tmp_path / "data", images=4)
    for out in (data, data / "inside", tmp_path):
        with pytest.raises(DetsegError):
            repair(data, out)
    assert not (data / "inside").exists()
