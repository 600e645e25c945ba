"""`detseg data check` and `fix`: what they print, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detseg.annotations.sample import write_sample
from detseg.cli.main import main
from tests import planted_faults


def test_a_clean_set_ends_with_0_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_sample(tmp_path / "data", format="yolo", images=6)
    assert main(["data", "check", str(data), "--strict"]) == 0
    assert "nothing is wrong" in capsys.readouterr().out


def test_errors_end_with_3_and_warnings_only_when_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_sample(tmp_path / "data", images=10)
    file = data / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = [300, 200, 90, 90]
    content["annotations"][0]["segmentation"] = []
    file.write_text(json.dumps(content))
    assert main(["data", "check", str(data)]) == 0
    assert main(["data", "check", str(data), "--strict"]) == 3
    assert main(["data", "check", str(data), "--split", "val", "--strict"]) == 0
    content["annotations"][1]["category_id"] = 77
    file.write_text(json.dumps(content))
    capsys.readouterr()
    assert main(["data", "check", str(data)]) == 3
    out = capsys.readouterr().out
    assert f"annotation {content['annotations'][1]['id']}: there is no category 77" in out
    assert main(["data", "check", str(data), "--split", "nowhere"]) == 3
    assert main(["data", "check", str(tmp_path / "nowhere")]) == 3


def test_kinds_are_cut_short_in_text_and_whole_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    planted_faults.plant_yolo(data)
    assert main(["data", "check", str(data), "--max", "1", "--fast"]) == 3
    text = capsys.readouterr().out
    assert "... and 3 more" in text
    assert "what helps:" in text
    assert main(["data", "check", str(data), "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert len([f for f in told["findings"] if f["kind"] == "bad-line"]) == 4
    assert told["errors"] == sum(f["severity"] == "error" for f in told["findings"]) == 5
    assert all(f["remedy"] and f["message"] and Path(f["file"]).is_relative_to(data) for f in told["findings"])
    assert sum(kind["count"] for kind in told["by_kind"]) == len(told["findings"])


def test_fix_tells_what_it_did_and_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    planted_faults.plant_coco(data)
    assert main(["data", "fix", str(data), "--out", str(tmp_path / "out"), "-q"]) == 0
    text = capsys.readouterr().out
    assert "what is left" in text
    assert "similar-across-splits" in text
    assert main(["data", "fix", str(data), "--out", str(tmp_path / "out")]) == 1  # there already
    capsys.readouterr()
    assert main(["data", "fix", str(data), "--out", str(tmp_path / "new"), "--json", "-q"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["left"]["errors"] == 0
    assert len(told["changes"]) == len((tmp_path / "out" / "changes.jsonl").read_text().splitlines())


@pytest.mark.parametrize("sub", ["check", "fix", "split", "show", "info"])
def test_help_has_an_example(sub: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", sub, "--help"]) == 0
    assert f"detseg data {sub} " in capsys.readouterr().out


@pytest.mark.data
def test_findings_in_real_sets(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was looked at by hand: two slips of the mouse in bccd, four crowds of COCO with another area."""
    expected = {"bccd": {"degenerate-box": 2}, "coco-val": {"area": 4}, "camvid": {}}
    for name, kinds in expected.items():
        assert main(["data", "check", str(data_dir / name), "--json", "-q"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert {k["kind"]: k["count"] for k in told["by_kind"] if k["severity"] != "note"} == kinds
