"""Detectors' way: candidates of every view of every member, merged, suppressed, fused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detseg.geometry.boxes import area
from detseg.images import ImageFile
from detseg.pipeline.frames import Laid, Seen, Shown, decoder, seen
from detseg.pipeline.members import Member, Outcome
from detseg.pipeline.stream import ONE_BY_ONE, Pace, streamed
from detseg.postprocess import Selection, Views, ensembles, restore
from detseg.postprocess.views import Answer, Part, View, merge
from detseg.preprocess import Preprocess
from detseg.proposals import ProposalSettings, Proposer, Searcher
from detseg.results import Detections
from detseg.runtimes import Runtime


def detect_files(
    files: Iterable[ImageFile],
    runtime: Runtime,
    selection: Selection,
    *,
    pace: Pace = ONE_BY_ONE,
    keep_images: bool = False,
    recipe: Preprocess | None = None,
    views: Views | None = None,
    proposals: Proposer | None = None,
) -> Iterator[Outcome[Detections]]:
    """Detects on every file, in order; a file that cannot be read gives an outcome with its fault.

    Without `keep_images` a large JPEG may be decoded at a fraction of its size; boxes are in the pixels of the full
    picture all the same. The rest as in `Member`. `files` is drawn on as needed, a bounded number ahead.
    """
    member = Member(runtime, selection, recipe, views or Views(), proposals)
    return detect_together(files, [member], selection, pace=pace, keep_images=keep_images)


def detect_together(
    files: Iterable[ImageFile],
    members: Sequence[Member],
    selection: Selection,
    *,
    pace: Pace = ONE_BY_ONE,
    keep_images: bool = False,
) -> Iterator[Outcome[Detections]]:
    """As `detect_files` by an ensemble: every picture is read once, and what the members find is fused.

    `selection`: what is kept of that, in the indices of all classes (see `postprocess.ensembles.fuse`).
    """
    everyone = [replace(member, proposals=_proposer(member)) for member in members]
    decode = decoder(everyone, keep_images)
    trusted = ensembles.trust([member.weight for member in everyone], [member.known for member in everyone])

    def answer(group: list[tuple[ImageFile, Shown]]) -> list[Outcome[Detections]]:
        found = [_detections(group, i, member, alone=len(everyone) == 1) for i, member in enumerate(everyone)]
        return [
            Outcome(file, shown.image, one[0] if len(one) == 1 else ensembles.fuse(one, trusted, selection), None)
            for (file, shown), one in zip(group, zip(*found, strict=True), strict=True)
        ]

    return streamed(files, decode, answer, pace)


def _proposer(member: Member) -> Proposer | None:
    """Where the model's proposals come from; None for one that wants none."""
    settings = ProposalSettings.of_config(member.runtime.card.config)
    if settings is None:
        return None
    return Searcher(settings) if member.proposals is None else member.proposals


def _detections(group: list[tuple[ImageFile, Shown]], index: int, member: Member, alone: bool) -> list[Detections]:
    """One call of the network a view for the pictures; what it found in each, in the labels of all members."""
    found = []
    shown = [shown for _, shown in group]
    for (file, one), answers in zip(group, _answers(shown, index, member), strict=True):
        sure = _selected(answers, one, member, member.selection, file)
        if not alone:
            all_found = _selected(answers, one, member, ensembles.weak(member.selection), file)
            sure = ensembles.with_support(sure, all_found, member.selection.conf)
        found.append(sure if member.classes is None else replace(sure, labels=member.classes[sure.labels]))
    return found


def _selected(answers: list[Answer], shown: Shown, member: Member, selection: Selection, file: ImageFile) -> Detections:
    placement = member.plain.placement(shown.image_hw)
    found = merge(answers, placement, selection, member.views.merge)
    return restore(*found[:3], placement, file.path, found.masks)


def _answers(group: list[Shown], index: int, member: Member) -> list[list[Answer]]:
    """For each picture what the network says to each view of it."""
    answers: list[list[Answer]] = [[] for _ in group]
    places = [shown.proposals[index] for shown in group]
    for looked in seen(group, member):
        raw = member.runtime.predict(looked.frames, looked.sizes_hw, _in_frames(places, looked))
        masks = [None] * len(group) if raw.masks is None else raw.masks
        for mine, laid, *said in zip(answers, looked.laid, raw.boxes, raw.scores, masks, strict=True):
            boxes, scores, mask = said
            mine.append(Answer(looked.view, boxes, scores, laid.placement, mask))
    return answers


def _in_frames(proposals: list[NDArray[np.float32] | None], looked: Seen) -> list[NDArray[np.float32]] | None:
    """Each picture's proposals in its frame as this view shows it; None for a network that wants none."""
    found = [
        _in_frame(own, looked.view, laid) for own, laid in zip(proposals, looked.laid, strict=True) if own is not None
    ]
    return found or None


def _in_frame(boxes: NDArray[np.float32], view: View, laid: Laid) -> NDArray[np.float32]:
    """(P, 4) in pixels of the picture -> of its frame in this view; mirroring is its own way back."""
    if laid.placement.window is not None:
        boxes = _inside(boxes, laid.placement.window)
    return view.boxes(laid.placement.to_frame(boxes), laid.placement.size_hw)


def _inside(boxes: NDArray[np.float32], window: Part) -> NDArray[np.float32]:
    """(P, 4) boxes -> those of which at least half lies in the window, cut to it; at least one, be it the window."""
    bounds = np.array(window, np.float32)
    cut = np.concatenate([np.maximum(boxes[:, :2], bounds[:2]), np.minimum(boxes[:, 2:], bounds[2:])], axis=1)
    inside = np.maximum(cut[:, 2:] - cut[:, :2], 0).prod(axis=1) * 2 >= area(boxes)
    return cut[inside] if inside.any() else bounds[None]
