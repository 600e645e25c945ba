"""The route, streamed: path -> image -> network's frame -> candidates -> detections, in input order.

Or, for a segmenter, -> logits -> label map: `segment_files`.

Decoding and selecting run in threads beside the network (all of them leave the interpreter lock alone while
they work), and only a bounded number of pictures is under way: memory is flat however long the folder.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from detseg.errors import ImageError
from detseg.images import ImageFile, read_image, read_image_and_hw
from detseg.postprocess import Selection, Views, restore
from detseg.postprocess.label_maps import picture_labels
from detseg.postprocess.tiles import Tiling, segment_tiled
from detseg.postprocess.views import Answer, View, merge
from detseg.preprocess import Placement, Preprocess
from detseg.preprocess.recipe import lay_in, stack
from detseg.proposals import ProposalSettings, Proposer, Searcher
from detseg.results import Detections, LabelMap
from detseg.runtimes import Runtime

T = TypeVar("T")
U = TypeVar("U")


Found = TypeVar("Found", Detections, LabelMap)


@dataclass(frozen=True, eq=False)
class Outcome(Generic[Found]):
    """What became of one picture: what was `found`, or the `fault` that kept it from being read; never both.

    `image` (h, w, 3) uint8 RGB upright, only where it was asked for.
    """

    file: ImageFile
    image: NDArray[np.uint8] | None
    found: Found | None
    fault: ImageError | None


@dataclass(frozen=True, eq=False)
class Laid:
    """A picture in the network's frame: `frame` (H, W, 3), how it was laid in, and itself if asked for.

    `scaled`: the same in frames of other sizes, by the scale of the views that want them. `proposals` (P, 4) in pixels
    of the picture, for a network that wants them.
    """

    frame: NDArray[np.uint8]
    placement: Placement
    image: NDArray[np.uint8] | None
    scaled: dict[float, Laid] = field(default_factory=dict)
    proposals: NDArray[np.float32] | None = None

    def at(self, scale: float) -> Laid:
        """This, or the one of that scale."""
        return self.scaled.get(scale, self)


def detect_files(
    files: Iterable[ImageFile],
    runtime: Runtime,
    selection: Selection,
    *,
    batch: int = 1,
    workers: int = 2,
    network_threads: int = 1,
    keep_images: bool = False,
    recipe: Preprocess | None = None,
    views: Views | None = None,
    proposals: Proposer | None = None,
) -> Iterator[Outcome[Detections]]:
    """Detects on every file, in order; a file that cannot be read gives an outcome with its fault.

    `batch` pictures go through the network at once; `workers` threads decode; `network_threads` calls of
    `runtime.predict` run side by side (for a runtime that uses one core per call). Without `keep_images` a
    large JPEG may be decoded at a fraction of its size; boxes are in the pixels of the full picture all the
    same. `recipe` takes the place of the card's, for frames of another size. `views`: test-time augmentation, a
    call of the network for each. `proposals`: where a model that wants them gets them from, selective search unless
    somebody says otherwise. `files` is drawn on as needed, a bounded number ahead.
    """
    wanted, looks = recipe or runtime.card.preprocess, views or Views()
    scaled = {view.scale: view.recipe(wanted) for view in looks.views if view.scale != 1}
    proposer = _proposer(runtime, proposals)

    def decode(file: ImageFile) -> Laid:
        return lay(file, wanted, keep_images, scaled, proposer)

    def answer(group: list[tuple[ImageFile, Laid]]) -> list[Outcome[Detections]]:
        return detect_laid(group, runtime, selection, looks)

    return _streamed(files, decode, answer, batch=batch, workers=workers, network_threads=network_threads)


def segment_files(
    files: Iterable[ImageFile],
    runtime: Runtime,
    *,
    batch: int = 1,
    workers: int = 2,
    network_threads: int = 1,
    keep_images: bool = False,
    recipe: Preprocess | None = None,
    tiling: Tiling | None = None,
) -> Iterator[Outcome[LabelMap]]:
    """The class of every pixel of every file, in order; a file that cannot be read gives an outcome with its fault.

    With `tiling` pictures keep their size and are cut into tiles, `batch` of them at once; else each is laid into a
    frame. Everything else as in `detect_files`.
    """
    wanted = recipe or runtime.card.preprocess

    def decode(file: ImageFile) -> Laid:
        return lay(file, wanted, keep_images)

    def answer(group: list[tuple[ImageFile, Laid]]) -> list[Outcome[LabelMap]]:
        laid = [laid for _, laid in group]
        logits = runtime.segment(stack([one.frame for one in laid]), **_besides_frames(laid))
        return [
            Outcome(file, one.image, LabelMap(picture_labels(own, one.placement), file.path), None)
            for (file, one), own in zip(group, logits, strict=True)
        ]

    if tiling is None:
        return _streamed(files, decode, answer, batch=batch, workers=workers, network_threads=network_threads)
    return _segment_tiles(files, runtime, tiling, batch, workers, network_threads, keep_images)


def _segment_tiles(
    files: Iterable[ImageFile],
    runtime: Runtime,
    tiling: Tiling,
    batch: int,
    workers: int,
    network_threads: int,
    keep_images: bool,
) -> Iterator[Outcome[LabelMap]]:
    def answer(group: list[tuple[ImageFile, NDArray[np.uint8]]]) -> list[Outcome[LabelMap]]:
        return [
            Outcome(
                file,
                image if keep_images else None,
                LabelMap(segment_tiled(image, tiling, runtime.segment, batch), file.path),
                None,
            )
            for file, image in group
        ]

    return _streamed(files, _read, answer, batch=1, workers=workers, network_threads=network_threads)


def _streamed(
    files: Iterable[ImageFile],
    decode: Callable[[ImageFile], T],
    answer: Callable[[list[tuple[ImageFile, T]]], list[Outcome[Found]]],
    *,
    batch: int,
    workers: int,
    network_threads: int,
) -> Iterator[Outcome[Found]]:
    """Every file through `decode` and then, `batch` at once, through `answer`; in order, a bounded number under way.

    A file whose `decode` raises ImageError has an outcome that says so, and `answer` never sees it.
    """

    def attempt(file: ImageFile) -> T | ImageError:
        try:
            return decode(file)
        except ImageError as fault:
            return fault

    def infer(group: list[tuple[ImageFile, Future[T | ImageError]]]) -> list[Outcome[Found]]:
        done = [(file, future.result()) for file, future in group]
        readable = [(file, made) for file, made in done if not isinstance(made, ImageError)]
        answers = iter(answer(readable) if readable else [])
        return [
            Outcome(file, None, None, made) if isinstance(made, ImageError) else next(answers) for file, made in done
        ]

    with threads(workers, "decode") as decoders, threads(network_threads, "network") as network:
        groups = ([(file, decoders.submit(attempt, file)) for file in group] for group in _groups(files, batch))
        for outcomes in ordered(network, infer, groups, ahead=network_threads + 1 + workers // batch):
            yield from outcomes


def _proposer(runtime: Runtime, given: Proposer | None) -> Proposer | None:
    """Where the model's proposals come from; None for one that wants none."""
    settings = ProposalSettings.of_config(runtime.card.config)
    if settings is None:
        return None
    return Searcher(settings) if given is None else given


def lay(
    file: ImageFile,
    recipe: Preprocess,
    keep_image: bool,
    scaled: Mapping[float, Preprocess] | None = None,
    proposer: Proposer | None = None,
) -> Laid:
    """Reads one picture into the network's frame, and into those of other scales. Raises ImageError."""
    others = scaled or {}
    if keep_image:
        image = _read(file)
        pixels, full_hw = image, (image.shape[0], image.shape[1])
    else:
        largest_hw = [recipe.largest_hw, *(other.largest_hw for other in others.values())]
        largest = (max(h for h, _ in largest_hw), max(w for _, w in largest_hw))
        image = None
        _expect_no_fault(file)
        pixels, full_hw = read_image_and_hw(file.path, target_hw=largest)

    places = None if proposer is None else proposer(file, full_hw)

    def laid(chosen: Preprocess) -> Laid:
        placement = chosen.placement(full_hw)
        return Laid(lay_in(pixels, placement, chosen.fill), placement, None, proposals=places)

    return replace(laid(recipe), image=image, scaled={scale: laid(other) for scale, other in others.items()})


def _read(file: ImageFile) -> NDArray[np.uint8]:
    _expect_no_fault(file)
    return read_image(file.path)


def _expect_no_fault(file: ImageFile) -> None:
    if file.fault is not None:
        raise ImageError(file.path, file.fault)


def detect_laid(
    group: list[tuple[ImageFile, Laid]], runtime: Runtime, selection: Selection, views: Views
) -> list[Outcome[Detections]]:
    """One call of the network a view for the pictures; outcomes in their order."""
    outcomes = []
    for (file, laid), answers in zip(group, _answers([laid for _, laid in group], runtime, views), strict=True):
        found = merge(answers, laid.placement, selection, views.merge)
        restored = restore(*found[:3], laid.placement, file.path, found.masks)
        outcomes.append(Outcome(file, laid.image, restored, None))
    return outcomes


def _answers(group: list[Laid], runtime: Runtime, views: Views) -> list[list[Answer]]:
    """For each picture what the network says to each view of it."""
    answers: list[list[Answer]] = [[] for _ in group]
    for view in views.views:
        shown = [laid.at(view.scale) for laid in group]
        frames = stack([view.frame(laid.frame, laid.placement.size_hw) for laid in shown])
        raw = runtime.predict(frames, **_besides(view, shown))
        masks = [None] * len(group) if raw.masks is None else raw.masks
        for mine, laid, *said in zip(answers, shown, raw.boxes, raw.scores, masks, strict=True):
            boxes, scores, mask = said
            mine.append(Answer(view, boxes, scores, laid.placement, mask))
    return answers


def _besides(view: View, group: list[Laid]) -> dict[str, Any]:
    """What a call is told besides its frames: see `_besides_frames`; proposals."""
    told, places = _besides_frames(group), _places(view, group)
    return told if places is None else told | {"proposals": places}


def _besides_frames(group: list[Laid]) -> dict[str, Any]:
    """How much of each frame is shown, where that is not all of it."""
    if not any(laid.placement.padded for laid in group):
        return {}
    return {"sizes_hw": np.array([laid.placement.size_hw for laid in group], np.int64)}


def _places(view: View, group: list[Laid]) -> list[NDArray[np.float32]] | None:
    """Each picture's proposals in the frame as this view shows it; None for a network that wants none."""
    found = []
    for laid in group:
        if laid.proposals is None:
            return None
        # mirroring is its own way back
        found.append(view.boxes(laid.placement.to_frame(laid.proposals), laid.placement.size_hw))
    return found


def ordered(pool: ThreadPoolExecutor, work: Callable[[T], U], items: Iterable[T], *, ahead: int) -> Iterator[U]:
    """`work(item)` of every item, in order, done in `pool`; at most `ahead` items are under way."""
    under_way: deque[Future[U]] = deque()
    for item in items:
        under_way.append(pool.submit(work, item))
        if len(under_way) >= ahead:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group


@contextmanager
def threads(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Threads that drop what has not begun when the block ends, however it ends."""
    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
