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

    def decode(file: ImageFile) -> Laid | ImageError:
        try:
            return lay(file, wanted, keep_images, scaled, proposer)
        except ImageError as fault:
            return fault

    def infer(group: list[tuple[ImageFile, Future[Laid | ImageError]]]) -> list[Outcome[Detections]]:
        return detect_laid([(file, laid.result()) for file, laid in group], runtime, selection, looks)

    with threads(workers, "decode") as decoders, threads(network_threads, "network") as network:
        groups = ([(file, decoders.submit(decode, file)) for file in group] for group in _groups(files, batch))
        for outcomes in ordered(network, infer, groups, ahead=network_threads + 1 + workers // batch):
            yield from outcomes


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

    def decode(file: ImageFile) -> Laid | ImageError:
        try:
            return lay(file, wanted, keep_images or tiling is not None)
        except ImageError as fault:
            return fault

    def infer(group: list[tuple[ImageFile, Future[Laid | ImageError]]]) -> list[Outcome[LabelMap]]:
        laid = [(file, found.result()) for file, found in group]
        if tiling is None:
            labels = iter(_labels([found for _, found in laid if isinstance(found, Laid)], runtime))
        else:
            labels = (_labels_of_tiles(found, runtime, tiling, batch) for _, found in laid if isinstance(found, Laid))
        return [
            Outcome(file, None, None, found)
            if isinstance(found, ImageError)
            else Outcome(file, found.image if keep_images else None, LabelMap(next(labels), file.path), None)
            for file, found in laid
        ]

    at_once = batch if tiling is None else 1
    with threads(workers, "decode") as decoders, threads(network_threads, "network") as network:
        groups = ([(file, decoders.submit(decode, file)) for file in group] for group in _groups(files, at_once))
        for outcomes in ordered(network, infer, groups, ahead=network_threads + 1 + workers // at_once):
            yield from outcomes


def _labels(group: list[Laid], runtime: Runtime) -> list[NDArray[np.uint8]]:
    """One call of the network for all of them."""
    if not group:
        return []
    frames = stack([laid.frame for laid in group])
    logits = runtime.segment(frames, **_besides_frames(group))
    return [picture_labels(own, laid.placement) for own, laid in zip(logits, group, strict=True)]


def _labels_of_tiles(laid: Laid, runtime: Runtime, tiling: Tiling, batch: int) -> NDArray[np.uint8]:
    assert laid.image is not None
    return segment_tiled(laid.image, tiling, runtime.segment, batch)


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
    if file.fault is not None:
        raise ImageError(file.path, file.fault)
    others = scaled or {}
    if keep_image:
        image = read_image(file.path)
        pixels, full_hw = image, (image.shape[0], image.shape[1])
    else:
        largest_hw = [recipe.largest_hw, *(other.largest_hw for other in others.values())]
        largest = (max(h for h, _ in largest_hw), max(w for _, w in largest_hw))
        image = None
        pixels, full_hw = read_image_and_hw(file.path, target_hw=largest)

    places = None if proposer is None else proposer(file, full_hw)

    def laid(chosen: Preprocess) -> Laid:
        placement = chosen.placement(full_hw)
        return Laid(lay_in(pixels, placement, chosen.fill), placement, None, proposals=places)

    return replace(laid(recipe), image=image, scaled={scale: laid(other) for scale, other in others.items()})


def detect_laid(
    group: list[tuple[ImageFile, Laid | ImageError]], runtime: Runtime, selection: Selection, views: Views
) -> list[Outcome[Detections]]:
    """One call of the network a view for the pictures that could be read; outcomes in the order of `group`."""
    answers = iter(_answers([laid for _, laid in group if isinstance(laid, Laid)], runtime, views))
    outcomes: list[Outcome[Detections]] = []
    for file, laid in group:
        if isinstance(laid, ImageError):
            outcomes.append(Outcome(file, None, None, laid))
            continue
        found = merge(next(answers), laid.placement, selection, views.merge)
        restored = restore(*found[:3], laid.placement, file.path, found.masks)
        outcomes.append(Outcome(file, laid.image, restored, None))
    return outcomes


def _answers(group: list[Laid], runtime: Runtime, views: Views) -> list[list[Answer]]:
    """For each picture what the network says to each view of it."""
    answers: list[list[Answer]] = [[] for _ in group]
    for view in views.views if group else ():
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
