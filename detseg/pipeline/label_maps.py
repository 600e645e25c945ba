"""Segmenters' way: the mean of what all views of all members say of each pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detseg.images import ImageFile
from detseg.pipeline.frames import Shown, decoder, hw_of, read_whole, seen
from detseg.pipeline.members import Found, Member, Outcome
from detseg.pipeline.stream import ONE_BY_ONE, Pace, streamed
from detseg.pipeline.tiled import asker
from detseg.postprocess import Selection, Views
from detseg.postprocess.instances import Watershed, instances
from detseg.postprocess.label_maps import MapAnswer, mean_labels, sure_labels
from detseg.postprocess.tiles import Tiling, segment_tiled
from detseg.preprocess import Preprocess
from detseg.results import Detections, LabelMap
from detseg.runtimes import Runtime


def segment_files(
    files: Iterable[ImageFile],
    runtime: Runtime,
    *,
    pace: Pace = ONE_BY_ONE,
    keep_images: bool = False,
    recipe: Preprocess | None = None,
    views: Views | None = None,
    tiling: Tiling | None = None,
) -> Iterator[Outcome[LabelMap]]:
    """The class of every pixel of every file, in order; a file that cannot be read gives an outcome with its fault.

    With `tiling` pictures keep their size and are cut into tiles, a batch of them at once; else each is laid into a
    frame. Everything else as in `detect_files`.
    """
    member = Member(runtime, recipe=recipe, views=views or Views())
    return segment_together(files, [member], pace=pace, keep_images=keep_images, tiling=tiling)


def segment_together(
    files: Iterable[ImageFile],
    members: Sequence[Member],
    *,
    pace: Pace = ONE_BY_ONE,
    keep_images: bool = False,
    tiling: Tiling | None = None,
) -> Iterator[Outcome[LabelMap]]:
    """As `segment_files` by an ensemble: each pixel's likeliest class by the mean of views' and members' probabilities.

    The members know the same classes, each in its own order.
    """
    return _label_maps(files, members, lambda found: found, False, pace, keep_images, tiling)


def split_together(
    files: Iterable[ImageFile],
    members: Sequence[Member],
    selection: Selection,
    watershed: Watershed | None = None,
    *,
    pace: Pace = ONE_BY_ONE,
    keep_images: bool = False,
    tiling: Tiling | None = None,
) -> Iterator[Outcome[Detections]]:
    """Objects, cut out of the label maps of `segment_together` as `postprocess.instances` does it.

    Of `selection` there count its classes, which must be named, its least score and its number of objects a picture.
    """
    classes = selection.classes
    assert classes is not None

    def split(found: LabelMap) -> Detections:
        objects = instances(found, classes, watershed)
        return objects[objects.scores > selection.conf][: selection.max_det]

    return _label_maps(files, members, split, True, pace, keep_images, tiling)


def _label_maps(
    files: Iterable[ImageFile],
    members: Sequence[Member],
    finish: Callable[[LabelMap], Found],
    sure: bool,
    pace: Pace,
    keep_images: bool,
    tiling: Tiling | None,
) -> Iterator[Outcome[Found]]:
    """Each picture's label map, `sure` with probabilities, and what `finish` makes of it."""
    decode = decoder(members, keep_images)

    def outcome(
        file: ImageFile,
        image: NDArray[np.uint8] | None,
        labels: NDArray[np.uint8],
        probable: NDArray[np.float32] | None,
    ) -> Outcome[Found]:
        return Outcome(file, image, finish(LabelMap(labels, file.path, probable)), None)

    def answer(group: list[tuple[ImageFile, Shown]]) -> list[Outcome[Found]]:
        said = [answers for member in members for answers in _map_answers([shown for _, shown in group], member)]
        return [
            outcome(file, shown.image, *(sure_labels(answers) if sure else (mean_labels(answers), None)))
            for (file, shown), answers in zip(group, zip(*said, strict=True), strict=True)
        ]

    def answer_tiled(group: list[tuple[ImageFile, NDArray[np.uint8]]]) -> list[Outcome[Found]]:
        return [outcome(file, image if keep_images else None, *in_tiles(image)) for file, image in group]

    def in_tiles(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        assert tiling is not None
        fitting = tiling.within(hw_of(image)) if all(m.runtime.any_size for m in members) else tiling
        return segment_tiled(image, fitting, asker(members, image, fitting, pace.batch), pace.batch)

    if tiling is None:
        return streamed(files, decode, answer, pace)
    return streamed(files, read_whole, answer_tiled, replace(pace, batch=1))


def _map_answers(group: list[Shown], member: Member) -> Iterator[list[MapAnswer]]:
    """For each view what the network says to it of each picture."""
    share, planes = member.weight_of_view, member.planes
    for looked in seen(group, member):
        logits = member.runtime.segment(looked.frames, looked.sizes_hw)
        yield [
            MapAnswer(looked.view.logits(own, one.placement.size_hw), one.placement, share, planes)
            for own, one in zip(logits, looked.laid, strict=True)
        ]
