"""Oracles: scikit-learn for everything counted, a search through all pairs of pixels for edges, cases by hand."""

from __future__ import annotations

import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from detseg.annotations import Categories
from detseg.annotations.semantic import IGNORE, SemanticSet
from detseg.errors import DataError
from detseg.evaluation.label_maps import boundary_f, evaluate_label_maps
from detseg.evaluation.read_masks import MaskFolder

Map = NDArray[np.uint8]


@dataclass(frozen=True)
class Given:
    """Label maps that are there already."""

    maps: list[Map]

    def read(self, image: int) -> Map:
        return self.maps[image]

    def subset(self, images: NDArray[np.int64]) -> Given:
        return Given([self.maps[i] for i in images])


def semantic(maps: list[Map], classes: int, ids: tuple[int, ...] | None = None) -> SemanticSet:
    return SemanticSet(
        root=Path("made"),
        format="masks",
        categories=Categories(ids or tuple(range(classes)), tuple(f"class {i}" for i in range(classes))),
        image_files=tuple(f"images/{i}.png" for i in range(len(maps))),
        image_ids=np.arange(1, len(maps) + 1),
        image_hw=np.array([m.shape for m in maps], np.int32).reshape(-1, 2),
        source=Given(maps),
    )


def blocks(rng: np.random.Generator, classes: int, ignore: float) -> Map:
    """Patches of a few pixels, so that there are regions with edges."""
    coarse = rng.integers(0, classes, (4, 5)).astype(np.uint8)
    coarse[rng.random(coarse.shape) < ignore] = IGNORE
    return np.kron(coarse, np.ones((5, 4), np.uint8))


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), pictures=st.integers(1, 3), classes=st.integers(1, 4), void=st.booleans())
def test_random_maps(seed: int, pictures: int, classes: int, void: bool) -> None:
    from sklearn.metrics import confusion_matrix, f1_score, jaccard_score, recall_score

    rng = np.random.default_rng(seed)
    theirs = [blocks(rng, classes, 0.2) for _ in range(pictures)]
    ours = [blocks(rng, classes, 0.1 if void else 0) for _ in range(pictures)]
    metrics = evaluate_label_maps(semantic(theirs, classes), iter(ours))
    there, found = np.concatenate([t.ravel() for t in theirs]), np.concatenate([o.ravel() for o in ours])
    there, found = there[there != IGNORE].astype(int), found[there != IGNORE].astype(int)
    found[found == IGNORE] = classes  # no class: one more, that is never right
    if not len(there):
        assert (metrics.pixel_accuracy, metrics.miou, metrics.fwiou) == (-1, -1, -1)
        return
    labels = list(range(classes))
    assert metrics.pixels == len(there)
    assert np.array_equal(metrics.confusion, confusion_matrix(there, found, labels=[*labels, classes])[:-1])
    assert metrics.pixel_accuracy == pytest.approx(np.mean(there == found))
    how = {"labels": labels, "average": None, "zero_division": 0}
    iou, dice, recall = (score(there, found, **how) for score in (jaccard_score, f1_score, recall_score))
    shown, said = np.isin(labels, there), np.isin(labels, there) | np.isin(labels, found)
    assert metrics.miou == pytest.approx(iou[said].mean())
    assert metrics.dice == pytest.approx(dice[said].mean())
    assert metrics.mean_accuracy == pytest.approx(recall[shown].mean())
    assert metrics.fwiou == pytest.approx(np.average(iou, weights=np.bincount(there, minlength=classes)))
    for k, entry in enumerate(metrics.per_class):
        assert entry.iou == (pytest.approx(iou[k]) if said[k] else -1)
        assert entry.accuracy == (pytest.approx(recall[k]) if shown[k] else -1)
        assert entry.pixels == np.sum(there == k)
        assert entry.images == sum((t == k).any() for t in theirs)
    for alone, t, o in zip(metrics.per_picture, theirs, ours, strict=True):
        assert alone == evaluate_label_maps(semantic([t], classes), [o]).miou


def slow_edge(labels: Map, label: int) -> list[tuple[int, int]]:
    h, w = labels.shape
    edge = []
    for y, x in zip(*np.nonzero(labels == label), strict=True):
        beside = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        values = [labels[p] for p in beside if 0 <= p[0] < h and 0 <= p[1] < w]
        if any(v not in (label, IGNORE) for v in values):
            edge.append((int(y), int(x)))
    return edge


def slow_f(there: Map, found: Map, label: int, reach: float) -> float | None:
    ours, theirs = slow_edge(found, label), slow_edge(there, label)
    if not ours or not theirs:
        return 0.0 if ours or theirs else None

    def near(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> float:
        far = np.linalg.norm(np.array(one)[:, None] - np.array(other)[None], axis=2).min(axis=1)
        return float((far <= reach).mean())

    p, r = near(ours, theirs), near(theirs, ours)
    return 2 * p * r / (p + r) if p + r else 0.0


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), reach=st.sampled_from([0.2, 1.0, 1.5, 2.0, 3.7]))
def test_edges_against_all_pairs_of_pixels(seed: int, reach: float) -> None:
    rng = np.random.default_rng(seed)
    there, found = blocks(rng, 3, 0.1), blocks(rng, 3, 0)
    found = np.roll(np.where(rng.random(found.shape) < 0.05, 0, there), int(rng.integers(0, 3)), 0).astype(np.uint8)
    for label in range(3):
        expected = slow_f(there, found, label, reach)
        assert boundary_f(there, found, label, reach) == (None if expected is None else pytest.approx(expected))


def test_by_hand() -> None:
    """Two classes in halves of 4x4; the right half is found one column too wide, one pixel is not counted."""
    there = np.array([[0, 0, 1, 1]] * 4, np.uint8)
    there[0, 0] = IGNORE
    found = np.array([[0, 1, 1, 1]] * 4, np.uint8)
    metrics = evaluate_label_maps(semantic([there], 2), [found])
    assert metrics.pixel_accuracy == pytest.approx(11 / 15)
    assert [c.iou for c in metrics.per_class] == pytest.approx([3 / 7, 8 / 12])
    assert [c.dice for c in metrics.per_class] == pytest.approx([6 / 10, 16 / 20])
    assert [c.precision for c in metrics.per_class] == pytest.approx([1, 8 / 12])
    assert metrics.mean_accuracy == pytest.approx((3 / 7 + 1) / 2)
    assert metrics.fwiou == pytest.approx((7 * 3 / 7 + 8 * 8 / 12) / 15)
    assert metrics.boundary_f == 0  # edges one pixel apart, 0.04 are allowed
    perfect = evaluate_label_maps(semantic([there], 2), [there])
    assert set(perfect.numbers().values()) == {1.0}


def test_maps_of_another_size_or_number_are_refused() -> None:
    truth = semantic([np.zeros((4, 6), np.uint8)] * 2, 1)
    with pytest.raises(DataError, match=r"images/0\.png: its label map is 4x6, the truth's 6x4"):
        evaluate_label_maps(truth, [np.zeros((6, 4), np.uint8)] * 2)
    with pytest.raises(ValueError, match="shorter"):
        evaluate_label_maps(truth, [np.zeros((4, 6), np.uint8)])
    with pytest.raises(ValueError, match="class 3"):
        evaluate_label_maps(truth, [np.full((4, 6), 3, np.uint8)] * 2)


def test_a_folder_of_masks(tmp_path: Path) -> None:
    """Values are the data set's own; a palette is looked through; a picture without mask counts as missed."""
    truth = semantic([np.array([[0, 1], [1, 2]], np.uint8)] * 4, 3, ids=(7, 0, 300))
    values = np.array([[7, 0], [0, 300]])
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "0.png")
    palette = Image.fromarray(np.array([[7, 0], [255, 7]], np.uint8), "P")
    palette.putpalette(list(range(256)) * 3)
    (tmp_path / "sub" / "masks").mkdir(parents=True)
    palette.save(tmp_path / "sub" / "masks" / "1.png")
    (tmp_path / "sub" / "masks" / "1.png").rename(tmp_path / "1.png")
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "2.tif")
    folder = MaskFolder(tmp_path, truth)
    assert folder.missing == 1
    maps = [m.tolist() for m in folder]
    assert maps == [[[0, 1], [1, 2]], [[0, 1], [IGNORE, 0]], [[0, 1], [1, 2]], [[IGNORE] * 2] * 2]
    metrics = evaluate_label_maps(truth, folder)
    assert metrics.pixel_accuracy == pytest.approx((4 + 2 + 4 + 0) / 16)


BAD = {
    "value": (lambda p: Image.fromarray(np.full((2, 2), 9, np.uint8)).save(p), "holds 9, which is no class"),
    "colours": (lambda p: Image.new("RGB", (2, 2)).save(p), "is a picture of colours"),
    "text": (lambda p: p.write_text("no picture"), "cannot be read as a picture"),
    "empty": (lambda p: p.write_bytes(b""), "cannot be read as a picture"),
}


@pytest.mark.parametrize("kind", BAD)
def test_masks_that_cannot_be_used(tmp_path: Path, kind: str) -> None:
    write, said = BAD[kind]
    write(tmp_path / "0.png")
    with pytest.raises(DataError, match=rf"0\.png: {said}"):
        list(MaskFolder(tmp_path, semantic([np.zeros((2, 2), np.uint8)], 2)))


def test_a_folder_of_other_pictures(tmp_path: Path) -> None:
    truth = semantic([np.zeros((2, 2), np.uint8)], 2)
    with pytest.raises(DataError, match="no label map in it"):
        MaskFolder(tmp_path, truth)
    for name in ("0.png", "0.bmp"):
        Image.new("L", (2, 2)).save(tmp_path / name)
    with pytest.raises(DataError, match="of the same picture"):
        MaskFolder(tmp_path, truth)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.eye(5, 4, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@settings(max_examples=int(os.environ.get("DETSEG_FUZZ", "60")))
@given(
    cuts=st.lists(st.tuples(st.integers(0, len(png())), st.integers(0, 6), st.binary(max_size=6)), max_size=3),
    end=st.one_of(st.none(), st.integers(0, len(png()))),
)
@pytest.mark.filterwarnings("ignore")
def test_mutated_masks(cuts: list[tuple[int, int, bytes]], end: int | None) -> None:
    """Whatever stands in the file: a label map or a DataError."""
    content = png()[:end]
    for at, length, junk in cuts:
        content = content[:at] + junk + content[at + length :]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "0.png").write_bytes(content)
        maps, refused = [], ""
        try:
            maps = list(MaskFolder(Path(folder), semantic([np.zeros((5, 4), np.uint8)], 2)))
        except DataError as error:
            refused = str(error)
    assert "0.png" in refused or set(np.unique(maps[0])) <= {0, 1, IGNORE}
