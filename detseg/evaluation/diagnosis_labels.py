"""Where to look: the pictures that went worst, and annotations that are perhaps wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detseg.annotations import AnnotationSet
from detseg.evaluation.matching import Floats, Integers, Matches, Pairs

Kind = Literal["missing", "class", "place", "unseen"]
KINDS: tuple[Kind, ...] = ("missing", "class", "place", "unseen")
MOST = 100  # of each kind are listed


@dataclass(frozen=True)
class WorstPicture:
    """One picture at the score threshold: objects to find, right and false detections, missed objects."""

    picture: int
    file: str
    objects: int
    right: int
    missed: int
    false: int


@dataclass(frozen=True)
class Suspect:
    """One annotation, or the lack of one, that a person should look at.

    `missing`: a confident detection where nothing is annotated; `class`: a confident detection on an object
    annotated as another class, which no detection of that class found; `place`: a confident detection that
    overlaps an unfound object of its class too little; `unseen`: an object that no detection overlaps, however
    low its score. `detection` and `truth` are rows, None where there is none; names are of classes.
    """

    kind: Kind
    picture: int
    file: str
    detection: int | None
    truth: int | None
    annotation: int | None  # the data set's own id
    found: str | None
    annotated: str | None
    score: float | None
    iou: float


def worst_pictures(
    truth: AnnotationSet, rows: Floats, matches: Matches, threshold: float, most: int = 50
) -> tuple[WorstPicture, ...]:
    """The pictures with most missed objects and false detections together; of equal ones the less found first."""
    n, pictures = len(truth), rows[:, 0].astype(np.int64)
    kept = rows[:, 5] >= threshold
    objects = np.bincount(truth.image_index[~truth.ignored], minlength=n)
    right = np.bincount(pictures[matches.right & kept], minlength=n)
    false = np.bincount(pictures[matches.false & kept], minlength=n)
    missed = objects - right
    order = np.lexsort((np.arange(n), right, -(missed + false)))[:most]
    return tuple(
        WorstPicture(i, truth.image_files[i], int(objects[i]), int(right[i]), int(missed[i]), int(false[i]))
        for i in order.tolist()
        if missed[i] + false[i]
    )


def confident(truth: AnnotationSet, rows: Floats, matches: Matches, threshold: float) -> NDArray[np.bool_]:
    """(n,) detections at least as sure as the better half of the right ones of their class.

    Scores of different models are not alike; this asks each model, class by class, what it says when it is
    right. A class that was never right is never confident.
    """
    labels, least = rows[:, 6].astype(np.int64), np.full(len(truth.categories), np.inf)
    for k in np.unique(labels[matches.right]).tolist():
        least[k] = max(threshold, float(np.median(rows[matches.right & (labels == k), 5])))
    sure: NDArray[np.bool_] = matches.counted & (rows[:, 5] >= least[labels])
    return sure


def suspects(
    truth: AnnotationSet, rows: Floats, matches: Matches, pairs: Pairs, threshold: float
) -> dict[Kind, tuple[Suspect, ...]]:
    """All that are found of each kind, the most suspicious first: by score; `unseen` ones by size."""
    lonely = np.ones(len(rows), np.bool_)
    lonely[pairs.detection] = False
    sure = confident(truth, rows, matches, threshold) & matches.false
    by_score = np.argsort(-rows[:, 5], kind="stable")
    missing = by_score[(sure & lonely)[by_score]]
    wrong_class, wrong_place = _doubted(truth, rows, matches, pairs, sure, threshold)
    return {
        "missing": tuple(_suspect("missing", truth, rows, d, None, 0.0) for d in missing.tolist()),
        "class": tuple(_suspect("class", truth, rows, *doubt) for doubt in wrong_class),
        "place": tuple(_suspect("place", truth, rows, *doubt) for doubt in wrong_place),
        "unseen": tuple(_suspect("unseen", truth, rows, None, t, 0.0) for t in _unseen(truth, rows, pairs).tolist()),
    }


def _unseen(truth: AnnotationSet, rows: Floats, pairs: Pairs) -> Integers:
    """Objects without any overlap, largest first; none where nothing at all was detected, which says nothing."""
    if not len(rows):
        return np.zeros(0, np.int64)
    alone = ~truth.ignored
    alone[pairs.truth] = False
    objects = np.flatnonzero(alone)
    return objects[np.argsort(-truth.areas[objects], kind="stable")]


def _doubted(
    truth: AnnotationSet, rows: Floats, matches: Matches, pairs: Pairs, sure: NDArray[np.bool_], threshold: float
) -> tuple[list[tuple[int, int, float]], list[tuple[int, int, float]]]:
    """(detection, truth, iou) of sure detections on an object of another class; and too far from one of theirs."""
    found = (matches.found >= 0) & (rows[matches.found, 5] >= threshold) if len(rows) else matches.found >= 0
    open_ = sure[pairs.detection] & ~truth.ignored[pairs.truth] & ~found[pairs.truth]
    near = pairs.where(open_)
    same = truth.labels[near.truth] == rows[near.detection, 6]
    return _strongest(near.where(~same & (near.iou >= 0.5)), rows), _strongest(
        near.where(same & (near.iou < 0.5)), rows
    )


def _strongest(pairs: Pairs, rows: Floats) -> list[tuple[int, int, float]]:
    """One detection for each object, best score first."""
    order = np.lexsort((-pairs.iou, -rows[pairs.detection, 5]))
    detections, objects = set[int](), set[int]()
    chosen = []
    for i in order.tolist():
        detection, truth = int(pairs.detection[i]), int(pairs.truth[i])
        if detection not in detections and truth not in objects:
            detections.add(detection)
            objects.add(truth)
            chosen.append((detection, truth, float(pairs.iou[i])))
    return chosen


def _suspect(
    kind: Kind, truth: AnnotationSet, rows: Floats, detection: int | None, annotation: int | None, iou: float
) -> Suspect:
    names = truth.categories.names
    if detection is not None:
        picture = int(rows[detection, 0])
    else:
        picture = int(np.searchsorted(truth.starts, np.int64(annotation or 0), side="right")) - 1
    return Suspect(
        kind=kind,
        picture=picture,
        file=truth.image_files[picture],
        detection=detection,
        truth=annotation,
        annotation=None if annotation is None else int(truth.ids[annotation]),
        found=None if detection is None else names[int(rows[detection, 6])],
        annotated=None if annotation is None else names[int(truth.labels[annotation])],
        score=None if detection is None else float(rows[detection, 5]),
        iou=iou,
    )
