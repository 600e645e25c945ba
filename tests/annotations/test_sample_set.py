"""The synthetic set: its boxes are those of the pixels, and every format tells the same truth."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from detseg.annotations import load
from detseg.annotations.sample import NAMES, draw, write_sample
from detseg.errors import DetsegError


def content(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_every_format_tells_the_same(tmp_path: Path) -> None:
    sets = {}
    for format in ("coco", "voc", "yolo"):
        root = write_sample(tmp_path / format, format=format, images=15, seed=4)
        for split, count in (("train", 12), ("val", 3)):
            truth = load(root, split)
            assert truth.format == format
            assert truth.faults == ()
            assert len(truth) == count
            assert truth.categories.names == NAMES
            sets[format, split] = truth
    for split in ("train", "val"):
        one = sets["coco", split]
        for format in ("voc", "yolo"):
            other = sets[format, split]
            assert [Path(f).name for f in other.image_files] == [Path(f).name for f in one.image_files]
            np.testing.assert_array_equal(other.starts, one.starts)
            np.testing.assert_array_equal(other.labels, one.labels)
            np.testing.assert_allclose(other.boxes, one.boxes, atol=1e-5)
        assert (one.areas <= (one.boxes[:, 2:] - one.boxes[:, :2]).prod(axis=1)).all()


def test_the_seed_is_the_set(tmp_path: Path) -> None:
    first = content(write_sample(tmp_path / "a", images=4, seed=1))
    assert content(write_sample(tmp_path / "b", images=4, seed=1)) == first
    other = content(write_sample(tmp_path / "c", images=4, seed=2))
    assert other.keys() == first.keys()
    assert all(other[name] != first[name] for name in first)


def test_boxes_hold_the_shapes_and_nothing_else() -> None:
    """Seen from the pixels: a shape is flat, fills its share of the box and touches all four sides."""
    seen = set()
    for index in range(12):
        drawing = draw(index, 0, (120, 160))
        assert drawing.image.shape == (120, 160, 3)
        assert len(drawing.boxes) <= 5
        assert (len(drawing.boxes) == 0) == (index % 7 == 6)
        for box, label, area in zip(drawing.boxes.astype(int), drawing.labels, drawing.areas, strict=True):
            x1, y1, x2, y2 = box
            side = (x2 - x1) * (y2 - y1)
            seen.add(NAMES[label])
            if label == 0:
                assert area / side == pytest.approx(np.pi / 4, abs=0.05)
            if label == 2:
                assert area / side < 0.62
            shape = drawing.image[y1:y2, x1:x2].astype(float)
            middle = shape[shape.shape[0] // 2, shape.shape[1] // 2]
            alike = np.abs(shape - middle).max(axis=2) < 40
            assert alike.sum() >= 0.9 * area
            # a shape touches all four sides of its box
            assert all(edge.any() for edge in (alike[:2], alike[-2:], alike[:, :2], alike[:, -2:]))
    assert seen == set(NAMES)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.txt").write_text("mine")
    with pytest.raises(DetsegError, match="not an empty folder"):
        write_sample(tmp_path / "here", images=4)
    with pytest.raises(DetsegError, match="not an empty folder"):
        write_sample(tmp_path / "here" / "mine.txt", images=4)
    with pytest.raises(ValueError, match="2 pictures"):
        write_sample(tmp_path / "new", images=1)
    assert not (tmp_path / "new").exists()
