"""The route, streamed: path -> image -> network's frame -> candidates -> detections, in input order.

Or, for a segmenter, -> logits -> label map: `segment_files`. Several networks may look at each picture, which is read
once for all of them: `detect_together`, `segment_together`.

Decoding and selecting run in threads beside the network (all of them leave the interpreter lock alone while
they work), and only a bounded number of pictures is under way: memory is flat however long the folder.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from detseg.errors import ImageError
from detseg.geometry.boxes import area
from detseg.images import ImageFile, read_image, read_image_and_hw
from detseg.postprocess import Selection, Views, ensembles, restore
from detseg.postprocess.instances import Watershed, instances
from detseg.postprocess.label_maps import MapAnswer, mean_labels, resized, shares, sure_labels
from detseg.postprocess.tiles import Ask, Tiling, segment_tiled, side_by_side
from detseg.postprocess.views import WHOLE, Answer, Part, View, merge
from detseg.preprocess import Placement, Preprocess
from detseg.preprocess.recipe import lay_in, stack
from detseg.proposals import ProposalSettings, Proposer, Searcher
from detseg.results import Detections, LabelMap
from detseg.runtimes import Means, Parts, Runtime

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
class Member:
    """A network among those that look at every picture; most often there is only one.

    `recipe` takes the place of its card's, for frames of another size; `views`: test-time augmentation, a call of the
    network for each. `weight`: how much its word counts beside the others'. `classes` (K,): the index, among all
    members' classes, of each of its own; None where they are the same.

    Of a detector: `selection`, what is kept of its candidates, in its own class indices; `proposals`: where it gets
    them from if it looks at such, selective search unless somebody says otherwise.
    """

    runtime: Runtime
    selection: Selection = field(default_factory=Selection)
    recipe: Preprocess | None = None
    views: Views = field(default_factory=Views)
    proposals: Proposer | None = None
    weight: float = 1.0
    classes: NDArray[np.int64] | None = None

    @property
    def plain(self) -> Preprocess:
        """How it wants a picture."""
        return self.recipe or self.runtime.card.preprocess

    @property
    def known(self) -> NDArray[np.int64]:
        """(K,) `classes`, whoever's they are."""
        return np.arange(len(self.runtime.card.categories)) if self.classes is None else self.classes

    @property
    def planes(self) -> NDArray[np.int64] | None:
        """(K,) its own class of each of all members' classes; None where they are the same."""
        return None if self.classes is None else np.argsort(self.classes)

    @property
    def weight_of_view(self) -> float:
        """How much the word of one of its views counts."""
        return self.weight / len(self.views.views)


class Look(NamedTuple):
    """A way to lay a picture, or a part of it, into a frame."""

    recipe: Preprocess
    part: Part

    @classmethod
    def of(cls, member: Member, view: View) -> Look:
        """What this view needs."""
        return cls(view.recipe(member.plain), view.part)


@dataclass(frozen=True, eq=False)
class Laid:
    """A picture, or a part of it, in a frame (H, W, 3), and how it was laid in."""

    frame: NDArray[np.uint8]
    placement: Placement


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture of `image_hw` pixels in all frames that somebody looks at, and itself if asked for.

    `proposals`: for each member, boxes (P, 4) in pixels of the picture, None for one that wants none.
    """

    image_hw: tuple[int, int]
    laid: dict[Look, Laid]
    image: NDArray[np.uint8] | None
    proposals: tuple[NDArray[np.float32] | None, ...]


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
    same. The rest as in `Member`. `files` is drawn on as needed, a bounded number ahead.
    """
    member = Member(runtime, selection, recipe, views or Views(), proposals)
    how = {"batch": batch, "workers": workers, "network_threads": network_threads}
    return detect_together(files, [member], selection, keep_images=keep_images, **how)


def detect_together(
    files: Iterable[ImageFile],
    members: Sequence[Member],
    selection: Selection,
    *,
    batch: int = 1,
    workers: int = 2,
    network_threads: int = 1,
    keep_images: bool = False,
) -> Iterator[Outcome[Detections]]:
    """As `detect_files` by an ensemble: every picture is read once, and what the members find is fused.

    `selection`: what is kept of that, in the indices of all classes (see `postprocess.ensembles.fuse`).
    """
    everyone = [replace(member, proposals=_proposer(member)) for member in members]
    decode = _decoder(everyone, keep_images)
    trusted = ensembles.trust([member.weight for member in everyone], [member.known for member in everyone])

    def answer(group: list[tuple[ImageFile, Shown]]) -> list[Outcome[Detections]]:
        found = [_detections(group, i, member, alone=len(everyone) == 1) for i, member in enumerate(everyone)]
        return [
            Outcome(file, shown.image, one[0] if len(one) == 1 else ensembles.fuse(one, trusted, selection), None)
            for (file, shown), one in zip(group, zip(*found, strict=True), strict=True)
        ]

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
    views: Views | None = None,
    tiling: Tiling | None = None,
) -> Iterator[Outcome[LabelMap]]:
    """The class of every pixel of every file, in order; a file that cannot be read gives an outcome with its fault.

    With `tiling` pictures keep their size and are cut into tiles, `batch` of them at once; else each is laid into a
    frame. Everything else as in `detect_files`.
    """
    member = Member(runtime, recipe=recipe, views=views or Views())
    how = {"batch": batch, "workers": workers, "network_threads": network_threads}
    return segment_together(files, [member], keep_images=keep_images, tiling=tiling, **how)


def segment_together(
    files: Iterable[ImageFile],
    members: Sequence[Member],
    *,
    batch: int = 1,
    workers: int = 2,
    network_threads: int = 1,
    keep_images: bool = False,
    tiling: Tiling | None = None,
) -> Iterator[Outcome[LabelMap]]:
    """As `segment_files` by an ensemble: each pixel's likeliest class by the mean of views' and members' probabilities.

    The members know the same classes, each in its own order.
    """
    how = {"batch": batch, "workers": workers, "network_threads": network_threads}
    return _label_maps(files, members, lambda found: found, False, keep_images=keep_images, tiling=tiling, **how)


def split_together(
    files: Iterable[ImageFile],
    members: Sequence[Member],
    selection: Selection,
    watershed: Watershed | None = None,
    *,
    batch: int = 1,
    workers: int = 2,
    network_threads: int = 1,
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

    how: dict[str, Any] = {"batch": batch, "workers": workers, "network_threads": network_threads}
    return _label_maps(files, members, split, True, keep_images=keep_images, tiling=tiling, **how)


def _label_maps(
    files: Iterable[ImageFile],
    members: Sequence[Member],
    finish: Callable[[LabelMap], Found],
    sure: bool,
    *,
    batch: int,
    workers: int,
    network_threads: int,
    keep_images: bool,
    tiling: Tiling | None,
) -> Iterator[Outcome[Found]]:
    """Each picture's label map, `sure` with probabilities, and what `finish` makes of it."""
    decode = _decoder(members, keep_images)

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
        fitting = tiling.within(_hw(image)) if all(m.runtime.any_size for m in members) else tiling
        return segment_tiled(image, fitting, _asker(members, image, fitting, batch), batch)

    if tiling is None:
        return _streamed(files, decode, answer, batch=batch, workers=workers, network_threads=network_threads)
    return _streamed(files, _read, answer_tiled, batch=1, workers=workers, network_threads=network_threads)


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


# ---- a picture, read and laid in ----


def _proposer(member: Member) -> Proposer | None:
    """Where the model's proposals come from; None for one that wants none."""
    settings = ProposalSettings.of_config(member.runtime.card.config)
    if settings is None:
        return None
    return Searcher(settings) if member.proposals is None else member.proposals


def _decoder(members: Sequence[Member], keep_image: bool) -> Callable[[ImageFile], Shown]:
    """What reads a picture once and lays it into all frames that the members' views want."""
    looks = tuple(dict.fromkeys(Look.of(member, view) for member in members for view in member.views.views))

    def decode(file: ImageFile) -> Shown:
        image = _read(file) if keep_image else None
        pixels, full_hw = (image, _hw(image)) if image is not None else _read_for(file, looks)
        places = tuple(None if m.proposals is None else m.proposals(file, full_hw) for m in members)
        return Shown(full_hw, {look: lay(pixels, full_hw, look) for look in looks}, image, places)

    return decode


def _read_for(file: ImageFile, looks: Sequence[Look]) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """A picture with as many pixels as any of the frames shows, and its full size."""
    largest = [
        (math.ceil(h / (y2 - y1)), math.ceil(w / (x2 - x1)))
        for (h, w), (x1, y1, x2, y2) in ((look.recipe.largest_hw, look.part) for look in looks)
    ]
    _expect_no_fault(file)
    return read_image_and_hw(file.path, target_hw=(max(h for h, _ in largest), max(w for _, w in largest)))


def lay(pixels: NDArray[np.uint8], full_hw: tuple[int, int], look: Look) -> Laid:
    """The picture of `full_hw`, or a smaller copy of it, in a frame."""
    if look.part == WHOLE:
        placement = look.recipe.placement(full_hw)
        return Laid(lay_in(pixels, placement, look.recipe.fill), placement)
    h, w = pixels.shape[:2]
    x1, y1, x2, y2 = (round(share * side) for share, side in zip(look.part, (w, h, w, h), strict=True))
    part = pixels[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
    placement = look.recipe.placement(_hw(part))
    across, down = full_hw[1] / w, full_hw[0] / h
    window = (x1 * across, y1 * down, (x1 + part.shape[1]) * across, (y1 + part.shape[0]) * down)
    return Laid(lay_in(part, placement, look.recipe.fill), placement.within(full_hw, window))


def _hw(image: NDArray[np.uint8]) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def _read(file: ImageFile) -> NDArray[np.uint8]:
    _expect_no_fault(file)
    return read_image(file.path)


def _expect_no_fault(file: ImageFile) -> None:
    if file.fault is not None:
        raise ImageError(file.path, file.fault)


# ---- what a member says of it ----


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
    for view in member.views.views:
        laid = [shown.laid[Look.of(member, view)] for shown in group]
        frames = stack([view.frame(one.frame, one.placement.size_hw) for one in laid])
        places = [shown.proposals[index] for shown in group]
        raw = member.runtime.predict(frames, **_besides_frames(laid), **_besides_detecting(view, laid, places))
        masks = [None] * len(group) if raw.masks is None else raw.masks
        for mine, one, *said in zip(answers, laid, raw.boxes, raw.scores, masks, strict=True):
            boxes, scores, mask = said
            mine.append(Answer(view, boxes, scores, one.placement, mask))
    return answers


def _map_answers(group: list[Shown], member: Member) -> Iterator[list[MapAnswer]]:
    """For each view what the network says to it of each picture."""
    share, planes = member.weight_of_view, member.planes
    for view in member.views.views:
        laid = [shown.laid[Look.of(member, view)] for shown in group]
        frames = stack([view.frame(one.frame, one.placement.size_hw) for one in laid])
        logits = member.runtime.segment(frames, **_besides_frames(laid))
        yield [
            MapAnswer(_mirrored_back(view, own, one.placement.size_hw), one.placement, share, planes)
            for own, one in zip(logits, laid, strict=True)
        ]


def _mirrored_back(view: View, logits: NDArray[np.float32], size_hw: tuple[int, int]) -> NDArray[np.float32]:
    """(K, H, W) of a view -> of the frame as it was laid."""
    back: NDArray[np.float32] = view.frame(logits.transpose(1, 2, 0), size_hw).transpose(2, 0, 1)
    return back


class TileLook(NamedTuple):
    """A view of the tiles of one picture, and what the network takes from all of it."""

    member: Member
    view: View
    means: Means


def _asker(members: Sequence[Member], image: NDArray[np.uint8], tiling: Tiling, batch: int) -> Ask:
    """Whom to ask about tiles of this picture: all views of all members, told what they take from it as a whole."""

    def look(member: Member, view: View) -> TileLook:
        if tiling.count(_hw(image)) == 1:
            return TileLook(member, view, ())
        parts = (_seen_of_tiles(view, *tiles) for tiles in side_by_side(image, tiling, batch))
        return TileLook(member, view, member.runtime.picture_means(parts))

    return partial(_shares, [look(member, view) for member in members for view in member.views.views])


def _shares(looks: Sequence[TileLook], tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, H, W, 3) tiles -> (N, K, H, W) the mean of all views' and members' probabilities."""
    whole = sum(look.member.weight_of_view for look in looks)
    mean = np.zeros((), np.float32)
    for look in looks:
        own, planes = shares(_of_tiles(look, tiles)), look.member.planes
        known = own if planes is None else own[:, planes]
        mean = mean + known * np.float32(look.member.weight_of_view / whole)
    return mean


def _of_tiles(look: TileLook, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, H, W, 3) tiles -> (N, K, H, W) logits of this view of them, in their own pixels."""
    tile_hw, frames = _hw(tiles[0]), _tile_frames(look.view, tiles)
    logits = look.member.runtime.segment(frames, means=look.means)
    back = np.stack([_mirrored_back(look.view, own, _hw(frames[0])) for own in logits])
    if _hw(frames[0]) == tile_hw:
        return back
    return np.stack([np.stack([resized(plane, tile_hw) for plane in own]) for own in back])


def _tile_frames(view: View, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, H, W, 3) tiles as this view shows them."""
    laid = _tile_placement(view, tiles)
    return np.stack([view.frame(lay_in(tile, laid), laid.frame_hw) for tile in tiles])


def _seen_of_tiles(view: View, tiles: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Parts:
    """(N, H, W, 3) tiles and boxes (N, 4) in them as this view shows them; mirroring is its own way back."""
    laid = _tile_placement(view, tiles)
    return _tile_frames(view, tiles), view.boxes(laid.to_frame(boxes), laid.frame_hw)


def _tile_placement(view: View, tiles: NDArray[np.uint8]) -> Placement:
    return Placement.stretch(_hw(tiles[0]), view.recipe(Preprocess(_hw(tiles[0]))).frame_hw)


def _besides_frames(group: list[Laid]) -> dict[str, Any]:
    """How much of each frame is shown, where that is not all of it."""
    if not any(laid.placement.padded for laid in group):
        return {}
    return {"sizes_hw": np.array([laid.placement.size_hw for laid in group], np.int64)}


def _besides_detecting(view: View, group: list[Laid], proposals: list[NDArray[np.float32] | None]) -> dict[str, Any]:
    """Each picture's proposals in the frame as this view shows it; nothing for a network that wants none."""
    found = []
    for laid, places in zip(group, proposals, strict=True):
        if places is None:
            return {}
        if laid.placement.window is not None:
            places = _inside(places, laid.placement.window)
        # mirroring is its own way back
        found.append(view.boxes(laid.placement.to_frame(places), laid.placement.size_hw))
    return {"proposals": found}


def _inside(boxes: NDArray[np.float32], window: Part) -> NDArray[np.float32]:
    """(P, 4) boxes -> those of which at least half lies in the window, cut to it; at least one, be it the window."""
    bounds = np.array(window, np.float32)
    cut = np.concatenate([np.maximum(boxes[:, :2], bounds[:2]), np.minimum(boxes[:, 2:], bounds[2:])], axis=1)
    inside = np.maximum(cut[:, 2:] - cut[:, :2], 0).prod(axis=1) * 2 >= area(boxes)
    return cut[inside] if inside.any() else bounds[None]


# ---- threads ----


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
