"""Outlines: pycocotools draws the same; what cannot be drawn is refused before a compiled reader sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from detseg.annotations import AnnotationSet, Categories
from detseg.annotations.outlines import Outlines, check, rle_of
from detseg.geometry import rle

HW = st.tuples(st.integers(1, 12), st.integers(1, 12))
MASKS = HW.flatmap(lambda hw: arrays(np.bool_, hw))


@given(MASKS)
def test_runs_are_those_of_the_mask(mask: np.ndarray[Any, Any]) -> None:
    coded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    runs = rle.runs_of_text(coded["counts"])
    assert np.repeat(np.arange(len(runs)) % 2, runs).tolist() == mask.T.ravel().astype(int).tolist()
    assert rle.encode(mask) == coded
    assert (rle.decode(coded) == mask).all()
    uncompressed = {"size": list(mask.shape), "counts": runs.tolist()}
    assert (Outlines.of([uncompressed]).mask(0, mask.shape) == mask).all()


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=9))
def test_long_runs(runs: list[int]) -> None:
    """pycocotools writes the text, whatever the picture's size."""
    coded = coco_mask.frPyObjects({"size": [2**20, 2**12], "counts": runs}, 2**20, 2**12)
    assert rle.runs_of_text(coded["counts"]).tolist() == runs


@given(st.binary(max_size=12), HW)
def test_a_text_that_is_let_through_covers_the_picture(text: bytes, hw: tuple[int, int]) -> None:
    try:
        check({"size": list(hw), "counts": text}, hw)
    except ValueError:
        return
    assert rle.decode({"size": list(hw), "counts": text}).shape == hw


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        ([], "empty"),
        ([[1, 2, 3, 4]], "less than three points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "odd"),
        ([[1, 2, 3, 4, 5, float("nan")]], "no usable number"),
        ([[0, 0, 1e6, 0, 5, 5]], "999,999 pixels away"),
        ([[0, 0, 5, 5, -99999999999.0, 0]], "999,999 pixels away"),
        ("ring", "neither polygons"),
        ({"counts": [4]}, "no size"),
        ({"size": [2, 2]}, "no counts"),
        ({"size": [2, 2], "counts": [5]}, "longer than the picture"),
        ({"size": [2, 2], "counts": [2, 1]}, "cover 3 pixels"),
        ({"size": [2, 2], "counts": [-1, 5]}, "no whole number"),
        ({"size": [2, 3], "counts": [6]}, "the picture is 2x2"),
        ({"size": [2, 2], "counts": "4 "}, "no place there"),
        ({"size": [2, 2], "counts": "P"}, "breaks off"),
    ],
)
def test_what_cannot_be_drawn(value: Any, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        rle_of(value, (2, 2))


def test_polygons_are_drawn_as_pycocotools_draws_them() -> None:
    rings = [[1.2, 1.7, 8.4, 1.1, 6.6, 7.9], [9.0, 8.0, 11.0, 8.0, 11.0, 9.5, 9.0, 9.5]]
    theirs = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, 10, 12)))
    column = Outlines.of([None, rings])
    assert column.has.tolist() == [False, True]
    assert (column.mask(1, (10, 12)) == theirs).all()
    assert not column.mask(0, (10, 12)).any()
    assert column.segmentation(1) == rings


def test_the_column_follows_its_annotations() -> None:
    rings: list[Any] = [[[float(i), 0, 9, 0, 9, 9]] if i % 3 else None for i in range(7)]
    truth = AnnotationSet.from_columns(
        root="", format="", categories=Categories.from_names(["x"]), image_files=["a", "b", "c"],
        image_hw=[(9, 9)] * 3, image_index=[2, 0, 1, 1, 0, 2, 0], boxes=np.tile([0, 0, 9, 9], (7, 1)),
        labels=np.zeros(7), ids=range(7), outlines=Outlines.of(rings),
    )  # fmt: skip
    for part in (truth, truth.subset([2, 0]), truth.subset([1])):
        assert [part.outlines.segmentation(i) for i in range(len(part.ids))] == [rings[i] for i in part.ids]
        assert [part.outlines.compact().text(i) for i in range(len(part.ids))] == list(part.outlines.texts())
    both = Outlines.concatenate([truth.outlines, truth.outlines[1:3]])
    assert [both.segmentation(i) for i in (7, 8)] == [rings[i] for i in truth.ids[1:3]]
    moved = AnnotationSet(**{**truth.__dict__, "outlines": Outlines.none(7)})
    assert moved.fingerprint() != truth.fingerprint()
