"""Anchors by k-means: clusters made by hand come back, and nothing random does better."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detseg.annotations import AnnotationSet, Categories
from detseg.annotations.anchors import fit_of, kmeans_anchors, shape_iou, sizes_in_frame
from detseg.preprocess.placement import Placement

RNG = np.random.default_rng(0)


def test_clusters_come_back() -> None:
    middles = np.array([[12.0, 10.0], [30.0, 80.0], [90.0, 35.0], [200.0, 180.0]])
    sizes = np.concatenate([m * RNG.normal(1, 0.02, (200, 2)) for m in middles])
    found = kmeans_anchors(RNG.permutation(sizes), 4, seed=1)
    np.testing.assert_allclose(found.wh, middles, rtol=0.01)
    assert found.mean_iou > 0.96
    assert found.best_possible_recall == 1.0


def test_iou_of_shapes_by_hand() -> None:
    overlap = shape_iou(np.array([[2.0, 4.0]]), np.array([[2.0, 4.0], [4.0, 2.0], [1.0, 1.0]]))
    np.testing.assert_allclose(overlap, [[1, 4 / 12, 1 / 8]])


def test_figures_by_hand() -> None:
    sizes = np.array([[10.0, 10.0], [10.0, 20.0], [39.0, 10.0], [41.0, 10.0]])
    mean_iou, recall = fit_of(sizes, np.array([[10.0, 10.0]]))
    assert mean_iou == pytest.approx((1 + 0.5 + 10 / 39 + 10 / 41) / 4)
    assert recall == 0.75


@given(seed=st.integers(0, 2**32 - 1), m=st.integers(1, 60), k=st.integers(1, 12))
def test_no_worse_than_chance_and_always_the_same(seed: int, m: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 30, (m, 2)).astype(float)
    if k > m:
        with pytest.raises(ValueError, match="need at least"):
            kmeans_anchors(sizes, k)
        return
    found = kmeans_anchors(sizes, k, seed)
    assert found.wh.shape == (k, 2)
    assert np.isfinite(found.wh).all()
    assert (np.diff(found.wh.prod(axis=1)) >= 0).all()
    for _ in range(3):  # means of clusters drawn by lot
        groups = rng.integers(0, k, m)
        centres = np.array([sizes[groups == g].mean(axis=0) for g in range(k) if (groups == g).any()])
        assert found.mean_iou >= fit_of(sizes, centres)[0] - 0.02
    np.testing.assert_array_equal(found.wh, kmeans_anchors(sizes, k, seed).wh)


def test_as_many_anchors_as_sizes() -> None:
    sizes = np.array([[3.0, 5.0], [50.0, 20.0], [8.0, 90.0]])
    assert kmeans_anchors(sizes, 3).mean_iou == pytest.approx(1)
    same = kmeans_anchors(np.full((9, 2), 7.0), 3)  # fewer different sizes than anchors
    assert same.wh.tolist() == [[7, 7]] * 3


@pytest.mark.parametrize("fit", ["letterbox", "stretch", "shorter"])
def test_sizes_are_those_of_placement(fit: str) -> None:
    hw = RNG.integers(1, 900, (40, 2))
    boxes = np.concatenate([np.zeros((40, 2)), hw[:, ::-1] * RNG.uniform(0.5, 1, (40, 2)) + 1], axis=1)
    truth = AnnotationSet.from_columns(
        root=Path("/"), format="test", categories=Categories.from_names(["a"]),
        image_files=[f"{i}" for i in range(40)], image_hw=hw, image_index=np.arange(40), boxes=boxes,
        labels=np.zeros(40), difficult=np.arange(40) == 7, crowd=np.arange(40) == 9,
    )  # fmt: skip
    place = getattr(Placement, fit)
    placed = [place(tuple(hw[i].tolist()), (320, 416)).to_frame(boxes[i : i + 1])[0] for i in range(40)]
    expected = np.array([b[2:] - b[:2] for i, b in enumerate(placed) if i not in (7, 9)])
    np.testing.assert_allclose(sizes_in_frame(truth, (320, 416), fit), expected, rtol=1e-12)


@pytest.mark.data
def test_more_anchors_fit_better(data_dir: Path) -> None:
    from detseg.annotations import load

    sizes = sizes_in_frame(load(data_dir / "voc-animals", "train"), (416, 416))
    fits = [kmeans_anchors(sizes, k).mean_iou for k in (1, 2, 5, 9)]
    assert fits == sorted(fits)
    assert fits[2] > 0.61  # the paper's table 1 has 61.0 for 5 anchors on VOC 2007
    assert fits[3] > 0.672  # and 67.2 for 9
