"""`detseg data`: what it prints is what the readers and pycocotools count."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from detseg.annotations import load
from detseg.cli.data import command
from detseg.errors import DataError, DetsegError


def run(*args: object) -> Result:
    return CliRunner().invoke(command, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    result = run("sample", folder, "--images", 20, "--seed", 5)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{folder}\n"
    return folder


def test_info_counts_what_is_in_the_file(sample: Path) -> None:
    content = json.loads((sample / "annotations" / "instances_train.json").read_text())
    told = json.loads(run("info", sample, "--split", "train", "--json").stdout)
    assert told["splits"] == ["train", "val"]
    assert told["images"] == len(content["images"]) == 16
    assert told["objects"] == len(content["annotations"])
    with_objects = {a["image_id"] for a in content["annotations"]}
    assert told["images_without_objects"] == 16 - len(with_objects) > 0
    for row in told["classes"]:
        of_class = [a for a in content["annotations"] if a["category_id"] == row["id"]]
        assert (row["objects"], row["images"]) == (len(of_class), len({a["image_id"] for a in of_class}))
    small = [a for a in content["annotations"] if a["area"] < 32**2]
    large = [a for a in content["annotations"] if a["area"] >= 96**2]
    assert (told["box_sizes"]["small"], told["box_sizes"]["large"]) == (len(small), len(large))
    assert told["image_sizes"] == [[240, 320, 16]]
    sides = [a["bbox"][2] for a in content["annotations"]]
    assert told["quantiles"]["width"] == pytest.approx(np.quantile(sides, (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)))
    in_picture = [
        {a["category_id"] for a in content["annotations"] if a["image_id"] == p["id"]} for p in content["images"]
    ]
    ids = [row["id"] for row in told["classes"]]
    assert told["together"] == [[sum({i, j} <= here for here in in_picture) for j in ids] for i in ids]


def test_info_sets_the_parts_side_by_side(sample: Path) -> None:
    told = json.loads(run("info", sample, "--json").stdout)
    assert {name: part["images"] for name, part in told["by_split"].items()} == {"train": 16, "val": 4}
    assert "by_split" not in json.loads(run("info", sample, "--split", "val", "--json").stdout)
    lines = run("info", sample).stdout.splitlines()
    assert next(line.split() for line in lines if line.startswith("pictures  ")) == ["pictures", "16", "4"]


def test_info_counts_the_pixels_of_label_maps(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "images" / split / "a.png")
        Image.fromarray(np.array([[0] * 8] * 3 + [[1] * 8] * 2 + [[255] * 8], np.uint8)).save(
            tmp_path / "masks" / split / "a.png"
        )
    (tmp_path / "classes.txt").write_text("ground\nhouse\n")
    told = json.loads(run("info", tmp_path, "--json").stdout)["label_maps"]
    assert [(c["name"], c["pixels"], c["images"]) for c in told["classes"]] == [("ground", 48, 2), ("house", 32, 2)]
    assert (told["images"], told["ignored"]) == (2, 16)
    assert "60.00%" in run("info", tmp_path).stdout


def test_info_for_people_names_the_first_fault_of_a_kind(sample: Path, tmp_path: Path) -> None:
    content = json.loads((sample / "annotations" / "instances_val.json").read_text())
    for picture in content["images"]:
        picture["file_name"] = str(sample / "images" / picture["file_name"])
    content["images"] += [{"id": 900 + i, "file_name": f"gone{i}.jpg"} for i in range(3)]
    file = tmp_path / "val.json"
    file.write_text(json.dumps(content))
    result = run("info", file)
    assert result.exit_code == 0
    assert "4 pictures" in result.stdout
    assert "error missing-picture: 3, the first:" in result.stdout
    assert "gone0.jpg" in result.stdout
    assert "gone1.jpg" not in result.stdout


def test_anchors_are_of_the_train_part(sample: Path) -> None:
    result = run("anchors", sample, "-k", 3, "--imgsz", "160x320", "--json")
    told = json.loads(result.stdout)
    assert told["split"] == "train"
    assert told["frame_hw"] == [160, 320]
    assert told["boxes"] == len(load(sample, "train").boxes)
    sides = np.array(told["anchors_wh"])
    assert sides.shape == (3, 2)
    assert (np.diff(sides.prod(axis=1)) > 0).all()
    assert sides.max() < 160 * 0.6  # no shape is larger than 0.56 of the shorter side, and the frame has 2/3 of it
    assert result.stdout == run("anchors", sample, "-k", 3, "--imgsz", "160x320", "--json").stdout


def test_faults_of_the_world_are_told_as_such(sample: Path, tmp_path: Path) -> None:
    def error(*args: object) -> BaseException | None:
        return run(*args).exception

    assert isinstance(error("info", tmp_path / "nowhere"), DataError)
    assert isinstance(error("info", sample, "--split", "test"), DataError)
    assert isinstance(error("anchors", sample, "--split", "val", "-k", 99), DataError)
    assert isinstance(error("sample", sample), DetsegError)
    assert run("sample", tmp_path / "x", "--images", 1).exit_code == 2
    mistyped = run("inof", sample)
    assert mistyped.exit_code == 2
    assert "did you mean 'info'" in mistyped.stderr


@pytest.mark.parametrize("sub", ["info", "anchors", "sample"])
def test_help_has_an_example(sub: str) -> None:
    assert f"detseg data {sub} " in run(sub, "--help").stdout


def test_torch_is_never_imported(sample: Path) -> None:
    code = (
        "import sys; from detseg.cli.data import command\n"
        f"command(['anchors', {str(sample)!r}, '-k', '2'], standalone_mode=False)\n"
        f"command(['info', {str(sample)!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'torchvision', 'albumentations', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


@pytest.mark.data
def test_info_of_animals(data_dir: Path) -> None:
    told = json.loads(run("info", data_dir / "voc-animals", "--json").stdout)
    assert (told["images"], told["ignored"], told["splits"]) == (3608, 852, ["train", "trainval", "val"])
    counts = {row["name"]: row["objects"] + row["ignored"] for row in told["classes"]}
    assert (counts["dog"], counts["person"], counts["tvmonitor"]) == (1589, 1236, 46)
    assert told["longest_side"] == 384
