"""Several sets as one: the splits of a data set that stand in files of their own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.annotations.categories import Categories
from detseg.annotations.dataset import AnnotationSet
from detseg.annotations.outlines import Outlines


def agreed(sets: Sequence[AnnotationSet]) -> list[AnnotationSet]:
    """The same sets with one list of classes: as they are where all agree, else all names, sorted, ids from 1."""
    if all(one.categories == sets[0].categories for one in sets):
        return list(sets)
    names = sorted({name for one in sets for name in one.categories.names})
    categories = Categories.from_names(names, first_id=1)
    return [
        replace(
            one,
            categories=categories,
            labels=np.array([categories.index_of_name[name] for name in one.categories.names], np.int64)[one.labels]
            if len(one.labels)
            else one.labels,
        )
        for one in sets
    ]


def together(root: Path, sets: Sequence[AnnotationSet]) -> AnnotationSet:
    """Sets of the same classes as one. Ids are kept where they stay unique, otherwise they count from 1."""
    if len(sets) == 1:
        return sets[0]

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(one, name) for one in sets])

    before = np.cumsum([0, *(len(one) for one in sets)])
    image_ids, ids = column("image_ids"), column("ids")
    return AnnotationSet.from_columns(
        root=root,
        format=sets[0].format,
        categories=sets[0].categories,
        image_files=[os.path.relpath(one.root / file, root) for one in sets for file in one.image_files],
        image_hw=column("image_hw"),
        image_ids=image_ids if len(np.unique(image_ids)) == len(image_ids) else None,
        image_index=np.concatenate([one.image_index + first for one, first in zip(sets, before, strict=False)]),
        boxes=column("boxes"),
        labels=column("labels"),
        areas=column("areas"),
        ids=ids if len(np.unique(ids)) == len(ids) else None,
        crowd=column("crowd"),
        difficult=column("difficult"),
        outlines=Outlines.concatenate([one.outlines for one in sets]),
        faults=[fault for one in sets for fault in one.faults],
    )
