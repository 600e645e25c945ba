"""`detseg data proposals`: what it tells is what is in its files; what goes wrong is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from detseg.annotations import load
from detseg.cli.data import command
from detseg.cli.exits import Exit
from detseg.errors import DataError, DetsegError
from detseg.geometry import boxes as box_geometry
from detseg.proposals import read


def run(*args: object) -> Result:
    return CliRunner().invoke(command, [str(arg) for arg in args], standalone_mode=False)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    assert run("sample", folder, "--images", 6).exception is None
    return folder


def test_it_tells_what_its_file_holds(shapes, tmp_path):
    out, cache = tmp_path / "p.npz", tmp_path / "cache"
    arguments = ("proposals", shapes, "--split", "train", "--limit", 3, "--workers", 1, "--cache", cache, "--max", 300)
    told = json.loads(run(*arguments, "--out", out, "--json").stdout)
    truth = load(shapes, "train").subset(range(3))
    found = read(out, truth)
    best = [
        box_geometry.iou(truth.boxes[truth.rows(i)], p.boxes.astype(float)).max(axis=1, initial=0)
        for i, p in enumerate(found.proposals)
    ]
    assert told["pictures"] == 3
    assert told["known_before"] == 0
    assert told["seconds_per_picture"] > 0
    assert told["boxes_per_picture"] == pytest.approx(np.mean([len(p) for p in found.proposals]))
    assert told["best_overlap"] == pytest.approx(np.concatenate(best).mean(), abs=1e-6)
    assert told["recall_50"] == pytest.approx((np.concatenate(best) >= 0.5).mean())
    assert max(map(len, found.proposals)) <= 300

    again = json.loads(run(*arguments, "--json").stdout)
    assert (again["known_before"], again["seconds_per_picture"]) == (3, None)
    from_file = json.loads(
        run("proposals", shapes, "--split", "train", "--limit", 3, "--proposals", out, "--json").stdout
    )
    for key in ("objects", "recall_50", "recall_70", "best_overlap", "best_overlap_over_classes", "classes"):
        assert again[key] == told[key]
        assert from_file[key] == told[key]
    lines = run(*arguments).stdout.splitlines()
    assert lines[0].startswith("3 pictures, ")
    assert f"{told['best_overlap']:.3f}" in lines[-3]


def test_a_damaged_picture_is_named_and_its_objects_are_not_covered(shapes, tmp_path):
    copied = tmp_path / "shapes"
    shutil.copytree(shapes, copied)
    truth = load(copied, "train").subset(range(2))
    with_objects = next(i for i in range(2) if len(truth.boxes[truth.rows(i)]))
    truth.image_path(with_objects).write_bytes(b"\xff\xd8\xff\xe0 cut")
    result = run("proposals", copied, "--split", "train", "--limit", 2, "--no-cache", "--workers", 1, "--json")
    assert result.return_value == Exit.SOME_FAILED
    told = json.loads(result.stdout)
    assert [Path(fault["path"]) for fault in told["failed"]] == [truth.image_path(with_objects)]
    assert told["objects"] == len(truth.boxes)
    assert str(truth.image_path(with_objects)) in result.stderr


def test_what_goes_wrong(shapes, tmp_path):
    assert isinstance(run("proposals", tmp_path / "absent").exception, DataError)
    assert isinstance(run("proposals", shapes, "--out", tmp_path / "p.csv").exception, DetsegError)
    assert isinstance(run("proposals", shapes, "--proposals", tmp_path / "absent.npz").exception, DataError)
    assert "fast" in str(run("proposals", shapes, "--mode", "slow").exception)


def test_a_set_without_objects(tmp_path):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.png")
    images = [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    arguments = ("proposals", tmp_path / "truth.json", "--no-cache", "--workers", 1)
    assert "no objects" in run(*arguments).stdout
    assert json.loads(run(*arguments, "--json").stdout)["recall_50"] is None
