"""`detseg data split`: a data set of the same format, every picture in one part, nothing lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from detseg.annotations import load, load_label_maps
from detseg.annotations.sample import write_sample
from detseg.checks import check
from detseg.cli.data import command
from detseg.errors import DataError, DetsegError


def run(*args: object) -> Result:
    return CliRunner().invoke(command, [str(arg) for arg in args])


def truth_of(folder: Path, split: str | None = None) -> dict[str, list[list[float]]]:
    """Picture -> its boxes and classes."""
    truth = load(folder, split)
    return {
        Path(name).name: np.column_stack([truth.labels[truth.rows(i)], truth.boxes[truth.rows(i)]]).round(3).tolist()
        for i, name in enumerate(truth.image_files)
    }


@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_parts_hold_every_picture_once(format: str, tmp_path: Path) -> None:
    data = write_sample(tmp_path / "data", format=format, images=40)  # type: ignore[arg-type]
    before = {p: p.read_bytes() for p in data.rglob("*") if p.is_file()}
    out = tmp_path / "out"
    result = run("split", data, "--out", out, "--fractions", "0.6,0.2,0.2", "--seed", 4, "--json")
    assert result.exit_code == 0, result.output
    told = {part["name"]: part["pictures"] for part in json.loads(result.stdout)["parts"]}
    parts = {name: truth_of(out, name) for name in ("train", "val", "test")}
    assert {name: len(part) for name, part in parts.items()} == told
    assert 22 <= told["train"] <= 26
    together = {name: boxes for part in parts.values() for name, boxes in part.items()}
    assert sum(told.values()) == len(together) == 40
    assert together == truth_of(data)
    assert {p: p.read_bytes() for p in data.rglob("*") if p.is_file()} == before
    assert not [f for f in check(out).findings if f.severity != "note"]
    again = run("split", data, "--out", tmp_path / "again", "--fractions", "60,20,20", "--seed", 4)
    assert again.exit_code == 0
    assert truth_of(tmp_path / "again", "val") == parts["val"]


def test_what_belongs_together_stays_so(tmp_path: Path) -> None:
    data = write_sample(tmp_path / "data", format="yolo", images=20)
    pictures = sorted((data / "images" / "train").iterdir())
    for i, picture in enumerate(pictures[:8]):  # a copy, and one of another size
        copy = picture.with_name(f"copy{i}.jpg")
        if i % 2:
            shutil.copy(picture, copy)
        else:
            Image.open(picture).resize((200, 150), Image.Resampling.LANCZOS).save(copy, quality=80)
    out = tmp_path / "out"
    run("split", data, "--out", out, "--fractions", "0.5,0.5", "--group-by", r"(shapes_000[01])\d\.jpg")
    where = {name: part for part in ("train", "val") for name in truth_of(out, part)}
    for i, picture in enumerate(pictures[:8]):
        assert where[f"copy{i}.jpg"] == where[picture.name]
    for tens in ("0000", "0001"):
        assert len({part for name, part in where.items() if name.startswith(f"shapes_{tens}")}) == 1


def test_fields_that_detseg_does_not_know_stay(tmp_path: Path) -> None:
    data = write_sample(tmp_path / "data", images=10)
    for file in (data / "annotations").iterdir():
        content = json.loads(file.read_text())
        content["licenses"] = [{"id": 1, "name": "CC0"}]
        for thing in content["annotations"]:
            thing["attributes"] = {"id": thing["id"], "of": thing["image_id"]}
        for picture in content["images"]:
            picture["coco_url"] = f"of {picture['file_name']}"
        file.write_text(json.dumps(content))
    run("split", data, "--out", tmp_path / "out", "--fractions", "0.5,0.5")
    for file in (tmp_path / "out" / "annotations").iterdir():
        content = json.loads(file.read_text())
        assert content["licenses"] == [{"id": 1, "name": "CC0"}]
        assert all(p["coco_url"] == f"of {p['file_name']}" for p in content["images"])
        assert content["annotations"]
        assert all("attributes" in thing for thing in content["annotations"])


@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_lists_leave_pictures_where_they_are(format: str, tmp_path: Path) -> None:
    data = write_sample(tmp_path / "data", format=format, images=20)  # type: ignore[arg-type]
    out = tmp_path / "out"
    assert run("split", data, "--out", out, "--lists", "--fractions", "0.5,0.5").exit_code == 0
    assert not list(out.rglob("*.jpg"))
    if format == "yolo":
        assert {**truth_of(out / "data.yaml", "train"), **truth_of(out / "data.yaml", "val")} == truth_of(data)
    elif format == "voc":
        stems = (out / "ImageSets" / "Main" / "val.txt").read_text().split()
        assert all((data / "Annotations" / f"{stem}.xml").is_file() for stem in stems)
        assert len(stems) == 10
    else:
        names = [p["file_name"] for p in json.loads((out / "instances_val.json").read_text())["images"]]
        assert len(names) == 10


def test_label_maps_are_divided_too(tmp_path: Path) -> None:
    data, rng = tmp_path / "data", np.random.default_rng(0)
    for i in range(12):
        for kind in ("images", "masks"):
            (data / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8)).save(data / "images" / f"{i}.png")
        mask = np.full((30, 40), i % 2, np.uint8)
        Image.fromarray(mask).save(data / "masks" / f"{i}.png")
    (data / "classes.txt").write_text("ground\nhouse\n")
    out = tmp_path / "out"
    assert run("split", data, "--out", out, "--fractions", "0.5,0.5").exit_code == 0
    for part in ("train", "val"):
        maps = load_label_maps(out, part)
        assert sorted(int(maps.label_map(i).max()) for i in range(len(maps))) == [0, 0, 0, 1, 1, 1]


def test_what_cannot_be(tmp_path: Path) -> None:
    data = write_sample(tmp_path / "data", images=4)
    assert run("split", data, "--out", tmp_path / "o", "--fractions", "0.5,0.6").exit_code == 2
    assert run("split", data, "--out", tmp_path / "o", "--fractions", "0.5,-0.5").exit_code == 2
    assert run("split", data, "--out", tmp_path / "o", "--group-by", "(").exit_code == 2
    assert run("split", data, "--out", tmp_path / "o", "--names", "a,a,b").exit_code == 2
    assert run("split", data, "--out", tmp_path / "o", "--names", "../a,b,c").exit_code == 2
    assert isinstance(run("split", data, "--out", tmp_path).exception, DetsegError)
    assert isinstance(run("split", data, "--out", data / "inside").exception, DetsegError)
    assert isinstance(run("split", data, "--out", tmp_path / "o", "--group-by", "shapes").exception, DataError)
    assert not (tmp_path / "o").exists()
