"""From format to format and back: what comes back is what was there, or the loss was told."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from pycocotools import mask as coco_mask

from detseg.annotations import AnnotationSet, load, load_label_maps, splits
from detseg.annotations.convert import TARGETS, Plan, convert
from detseg.annotations.sample import write_sample
from detseg.cli.data_convert import command
from detseg.errors import DataError, DetsegError

# How far, in pixels, a box may be from where it was: each format's own digits
STATED = {"coco": 0.0, "voc": 0.5, "yolo": 1e-3, "cvat": 5.001e-3, "dota": 0.05001, "openimages": 1e-3}


def tree(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def run(*args: object) -> Result:
    return CliRunner().invoke(command, [str(arg) for arg in args])


def by_name(truth: AnnotationSet) -> AnnotationSet:
    return truth.subset(np.argsort([Path(name).name for name in truth.image_files], kind="stable"))


def compare(one: AnnotationSet, other: AnnotationSet, stated: float, *, least_iou: float | None) -> None:
    """Pictures, classes, boxes within `stated`, masks within `least_iou` where `one` has them."""
    one, other = by_name(one), by_name(other)
    assert [Path(f).name for f in one.image_files] == [Path(f).name for f in other.image_files]
    np.testing.assert_array_equal(one.image_hw, other.image_hw)
    np.testing.assert_array_equal(one.starts, other.starts)
    assert [one.categories.names[i] for i in one.labels] == [other.categories.names[i] for i in other.labels]
    np.testing.assert_allclose(other.boxes, one.boxes, rtol=0, atol=stated)
    if least_iou is None:
        return
    sizes = one.image_hw[one.image_index].tolist()
    for row, hw in enumerate(sizes):
        pair = [truth.outlines.rle(row, tuple(hw)) for truth in (one, other)]
        assert coco_mask.iou([pair[0]], [pair[1]], [0])[0, 0] >= least_iou


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("convert") / "shapes", images=12, seed=6, hw=(96, 128))


@pytest.mark.parametrize("to", [t for t in TARGETS if t != "masks"])
@pytest.mark.parametrize("pictures", ["copy", "link"])
def test_there_and_back(sample: Path, tmp_path: Path, to: str, pictures: str) -> None:
    before = tree(sample)
    there = convert(sample, tmp_path / "there", Plan(to, pictures=pictures))
    assert [(p.name, p.images) for p in there.parts] == [("train", 10), ("val", 2)]
    convert(tmp_path / "there", tmp_path / "back", Plan("coco", pictures=pictures))
    assert tree(sample) == before
    keeps_outlines = to in ("coco", "voc", "yolo", "cvat")
    for split in ("train", "val"):
        one, other = load(sample, split), load(tmp_path / "back", split)
        if to == "openimages":  # a CSV names no picture without objects
            one = one.subset(np.flatnonzero(np.diff(one.starts)))
        # whole pixels: exact in every format but those that divide by the size
        compare(one, other, 1e-3, least_iou=1.0 if keeps_outlines else None)
    empty = {loss.kind for loss in there.not_kept} - {"rounding"}
    expected = {"dota": {"outlines"}, "openimages": {"outlines", "empty-pictures"}}
    assert empty == expected.get(to, set())


@pytest.mark.parametrize("pictures", ["copy", "link", "none"])
def test_pictures(sample: Path, tmp_path: Path, pictures: str) -> None:
    convert(sample, tmp_path / "out", Plan("voc", pictures=pictures))
    copies = sorted((tmp_path / "out").rglob("*.jpg"))
    assert len(copies) == (0 if pictures == "none" else 12)
    for copy in copies:
        original = sample / "images" / copy.name
        assert copy.read_bytes() == original.read_bytes()
        assert copy.samefile(original) == (pictures == "link")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".part")]


def test_label_maps_are_painted_and_made_objects_again(sample: Path, tmp_path: Path) -> None:
    convert(sample, tmp_path / "maps", Plan("masks"))
    for split in ("train", "val"):
        one, other = load_label_maps(sample, split), load_label_maps(tmp_path / "maps", split)
        assert one.categories == other.categories
        names = [Path(f).name for f in other.image_files]
        for image, file in enumerate(one.image_files):
            np.testing.assert_array_equal(one.label_map(image), other.label_map(names.index(Path(file).name)))
    with pytest.raises(DataError, match="--objects parts"):
        convert(tmp_path / "maps", tmp_path / "objects", Plan("coco"))
    assert not (tmp_path / "objects").exists()
    convert(tmp_path / "maps", tmp_path / "objects", Plan("coco", objects="parts"))
    one, other = load(sample, "train"), load(tmp_path / "objects", "train")
    # the shapes lie apart, so each part is a shape
    assert len(one.boxes) == len(other.boxes)
    assert sorted(map(tuple, one.boxes.tolist())) == sorted(map(tuple, other.boxes.tolist()))


def test_crowds_and_difficult_ones_are_kept_or_counted(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "data/a.png")
    flags = [{}, {"iscrowd": 1}, {"iscrowd": 1, "difficult": 1}]
    content = {
        "images": [{"id": 9, "file_name": "a.png", "width": 60, "height": 40}],
        "categories": [{"id": 4, "name": "stop sign"}],
        "annotations": [
            {"id": 20 + i, "image_id": 9, "category_id": 4, "bbox": [5.25 + i, 6, 20, 20], "area": 400, **flag}
            for i, flag in enumerate(flags)
        ],
    }
    (tmp_path / "data/instances_val.json").write_text(json.dumps(content))
    kept = {
        "coco": ([0, 1, 0], [0, 0, 1], set()),
        "voc": ([0, 0, 0], [0, 1, 1], {"crowd", "rounding"}),
        "yolo": ([0], [0], {"crowd", "difficult"}),
        "cvat": ([0], [0], {"crowd", "difficult", "rounding"}),
        "dota": ([0, 0, 0], [0, 1, 1], {"crowd", "rounding", "names"}),
        "openimages": ([0, 1, 1], [0, 0, 0], {"difficult", "rounding"}),
    }
    for to, (crowd, difficult, losses) in kept.items():
        done = convert(tmp_path / "data", tmp_path / to, Plan(to))
        again = load(tmp_path / to)
        assert again.crowd.tolist() == crowd, to
        assert again.difficult.tolist() == difficult, to
        told = {loss.kind for loss in done.not_kept} - {"ids", "image-ids", "category-ids"}
        assert told - ({"difficult"} if to == "coco" else set()) == losses, to
        assert np.abs(again.boxes[0] - [5.25, 6, 25.25, 26]).max() <= STATED[to], to
        ids = {"ids", "image-ids"} <= {loss.kind for loss in done.not_kept}
        assert ids == (to != "coco"), to


def test_names_that_clash_or_climb_stay_apart_and_inside(tmp_path: Path) -> None:
    data = tmp_path / "deep/data"
    for name in ("x/a.png", "y/a.png", "y/a.jpg"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40)).save(data / name)
    Image.new("RGB", (60, 40)).save(tmp_path / "deep/outside.png")
    names = ["x/a.png", "y/a.png", "y/a.jpg", "../outside.png", f"{tmp_path}/deep/outside.png", "x/../x/a.png"]
    content = {
        "images": [{"id": i, "file_name": name, "width": 60, "height": 40} for i, name in enumerate(names)],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [i, i, 20, 20]} for i in range(len(names))],
    }
    (data / "a.json").write_text(json.dumps(content))
    before = tree(tmp_path / "deep")
    for to in ("voc", "yolo", "coco"):
        done = convert(data / "a.json", tmp_path / "out" / to, Plan(to, pictures="copy"))
        again = load(tmp_path / "out" / to)
        assert len(set(again.image_files)) == len(again) == done.parts[0].images
        assert sorted(again.boxes[:, 0].round(3)) == sorted(load(data / "a.json").boxes[:, 0])
        for path in (again.image_path(i) for i in range(len(again))):
            assert path.resolve().is_relative_to((tmp_path / "out" / to).resolve())
    # written without pictures, names that lead out must not be followed either
    convert(data / "a.json", tmp_path / "out/bare", Plan("voc", pictures="none"))
    assert tree(tmp_path / "deep") == before
    assert {p.name for p in tmp_path.iterdir()} == {"deep", "out"}


def test_out_must_be_new_and_elsewhere(sample: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    for out, cause in ((tmp_path / "full", "not empty"), (tmp_path / "full/mine.txt", "no folder"),
                       (sample / "yolo", "lies inside")):  # fmt: skip
        with pytest.raises(DetsegError, match=cause):
            convert(sample, out, Plan("yolo"))
    convert(sample, tmp_path / "full", Plan("yolo", exist_ok=True))
    assert (tmp_path / "full/mine.txt").read_text() == "mine"
    assert splits(tmp_path / "full") == ("train", "val")


def test_nothing_is_left_when_it_fails(sample: Path, tmp_path: Path) -> None:
    def stop(pictures: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(sample, tmp_path / "out", Plan("coco"), stop)
    assert list(tmp_path.iterdir()) == []


def test_the_command_tells_people_and_programs(sample: Path, tmp_path: Path) -> None:
    result = run(sample, tmp_path / "a", "--to", "dota", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["splits"][0] == {"name": "train", "images": 10, "objects": len(load(sample, "train").boxes)}
    assert {loss["kind"] for loss in told["not_kept"]} == {"outlines", "rounding"}
    assert "warning: " in result.stderr
    assert "outlines are left out" in result.stderr
    shutil.copytree(sample, tmp_path / "data")
    file = tmp_path / "data/annotations/instances_val.json"
    content = json.loads(file.read_text())
    content["images"].append({"id": 999, "file_name": "gone.jpg", "width": 4, "height": 4})
    file.write_text(json.dumps(content))
    result = run(file, tmp_path / "b", "--to", "coco", "--quiet")
    assert "missing-picture" in result.stderr
    assert result.exit_code == 6


def test_renumber_counts_classes_from_zero(sample: Path, tmp_path: Path) -> None:
    assert load(sample).categories.ids == (1, 2, 3)
    convert(sample, tmp_path / "kept", Plan("yolo"))
    convert(sample, tmp_path / "new", Plan("yolo", renumber=True))
    assert load(tmp_path / "kept").categories.ids == (1, 2, 3)
    assert load(tmp_path / "new").categories.ids == (0, 1, 2)
    assert load(tmp_path / "new").categories.names == load(sample).categories.names


@pytest.mark.data
@pytest.mark.parametrize("to", ["voc", "yolo"])
@pytest.mark.parametrize(("name", "split"), [("coco-val", "val"), ("bccd", "val"), ("nuclei", "test")])
def test_real_data_comes_back(data_dir: Path, tmp_path: Path, name: str, split: str, to: str) -> None:
    """Boxes within the stated rounding; masks of YOLO at least 0.99 alike; ids, crowds, difficult ones kept or told."""
    truth = load(data_dir / name, split)
    there = convert(data_dir / name, tmp_path / "there", Plan(to, split=split, pictures="link"))
    convert(tmp_path / "there", tmp_path / "back", Plan("coco", pictures="link"))
    back = load(tmp_path / "back")
    told = {loss.kind: loss for loss in there.not_kept}
    assert ("ids" in told) == (truth.ids.tolist() != list(range(1, len(truth.ids) + 1)))
    assert ("crowd" in told) == bool(truth.crowd.any())
    if to == "voc":
        compare(truth, replace(back, labels=back.labels), 0.5, least_iou=None)
        np.testing.assert_array_equal(by_name(truth).ignored, by_name(back).ignored)
        if np.abs(truth.boxes - np.rint(truth.boxes)).max() > 0:
            assert told["rounding"].worst_px == pytest.approx(0.5, abs=0.01)
        return
    assert back.categories == truth.categories
    rows = ~truth.ignored
    written = AnnotationSet.from_columns(
        root=truth.root, format=truth.format, categories=truth.categories, image_files=truth.image_files,
        image_hw=truth.image_hw, image_index=truth.image_index[rows], boxes=truth.boxes[rows],
        labels=truth.labels[rows], outlines=truth.outlines[rows],
    )  # fmt: skip
    worst = told["boxes"].worst_px if "boxes" in told else None
    compare(written, back, (worst or 0) + 1e-3, least_iou=0.99 if truth.outlines.any else None)
