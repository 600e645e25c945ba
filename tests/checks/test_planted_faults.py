"""Clean sets have no error and no warning; into copies of them faults are planted: all are found, none is invented."""

from __future__ import annotations

from pathlib import Path

import pytest

from detseg.annotations.sample import write_sample
from detseg.checks import KINDS, check
from tests import planted_faults
from tests.planted_faults import Planted


def found_in(folder: Path, notes: bool = False) -> Planted:
    """What the check says: errors and warnings, or notes."""
    return {
        (f.kind, Path(f.file).name, f.annotation)
        for f in check(folder, workers=2).findings
        if (f.severity == "note") is notes
    }


@pytest.mark.parametrize("format", ["coco", "voc", "yolo", "masks"])
def test_a_clean_set_has_no_error_and_no_warning(format: str, tmp_path: Path) -> None:
    folder = write_sample(tmp_path / "s", format=format, images=60)  # type: ignore[arg-type]
    assert found_in(folder) == set()


NOTES = {
    "coco": {"stray-picture", "class-without-objects", "empty-picture"},
    "voc": {"stray-picture", "unlisted-picture", "empty-picture"},
    "yolo": {"no-label-file"},
    "masks": set[str](),
    "voc_masks": set[str](),
}


@pytest.mark.parametrize(("name", "count"), [("coco", 30), ("voc", 10), ("yolo", 9), ("masks", 5), ("voc_masks", 1)])
def test_all_that_is_planted_is_found_and_nothing_else(name: str, count: int, tmp_path: Path) -> None:
    root = tmp_path / "data"
    planted = getattr(planted_faults, f"plant_{name}")(root)
    assert len(planted) == count
    assert {kind for kind, _, _ in planted} <= KINDS.keys()
    assert found_in(root) == planted
    assert {kind for kind, _, _ in found_in(root, notes=True)} >= NOTES[name]
