"""Training pictures: read, altered, laid into frames and batched by worker processes.

Every random choice comes from a generator made from (seed, epoch, picture), so the batches are the same whatever
the number of workers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing.context import BaseContext
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, multiprocessing
from torch.utils.data import DataLoader, Dataset, Sampler

from detseg.annotations import AnnotationSet
from detseg.annotations.object_masks import BACKGROUND_NAMES
from detseg.annotations.semantic import IGNORE, SemanticSet
from detseg.augment.border_weights import border_weights
from detseg.augment.copy_paste import pasted
from detseg.augment.cutouts import Cutouts
from detseg.augment.layouts import cropped, jittered, mirrored, mixed, mosaic, turned
from detseg.augment.patches import patched
from detseg.augment.recipes import Recipe, libraries_of
from detseg.augment.rotation import rotated
from detseg.augment.sample import Sample, parted, with_proposals
from detseg.detectors.contract import Target
from detseg.errors import DataError, DetsegError, ImageError
from detseg.images import ImageFile, read_image
from detseg.parts.label_maps import LabelMaps
from detseg.preprocess import Placement, Preprocess
from detseg.preprocess.recipe import lay_in, lay_in_map
from detseg.proposals import Proposer
from detseg.training.balance import Draw, Once, draw_of
from detseg.training.config import TrainConfig

if TYPE_CHECKING:
    from detseg.training.picture_cache import PictureCache

Truth = TypeVar("Truth", AnnotationSet, SemanticSet)


class Ticket(NamedTuple):
    """One order to a worker: which picture, for which epoch, at which size, alone or in a mosaic, pure or blended.

    `limits`: of the sides of a picture that is laid in as it is, where frames have their pictures' own shape.
    """

    epoch: int
    picture: int
    frame_hw: tuple[int, int]
    mosaic: bool
    mixup: bool = False
    limits: tuple[int, int] | None = None
    turn: int = 0  # how often the epoch has shown the picture before


@dataclass(frozen=True, eq=False)
class Batch:
    """frames (N, H, W, 3) uint8; the truth of each; the files they show; pictures that could not be read.

    The truth is boxes and labels, or where a segmenter learns `label_maps`: (N, H, W) uint8, with `weights` (N, H, W)
    of the pixels where they do not count alike.

    `cutouts`: the masks of each frame, where the model learns from them. They leave the workers as they are kept,
    many times smaller than whole masks, which `targets` makes of them.
    """

    frames: Tensor
    plain_targets: list[Target]
    files: list[str]
    unreadable: list[ImageError]
    cutouts: list[Cutouts] | None = None
    label_maps: Tensor | None = None
    weights: Tensor | None = None

    def truth(self, device: torch.device | str) -> list[Target] | LabelMaps:
        """What the model is to learn of the frames, on `device`."""
        if self.label_maps is None:
            return [target.to(device) for target in self.targets]
        weights = None if self.weights is None else self.weights.to(device)
        return LabelMaps(self.label_maps.to(device).long(), weights)

    @property
    def targets(self) -> list[Target]:
        """The truth of each frame; made anew at every call where there are masks."""
        if self.cutouts is None:
            return self.plain_targets
        frame_hw = (self.frames.shape[1], self.frames.shape[2])
        return [
            replace(target, masks=torch.from_numpy(masks.whole(frame_hw)))
            for target, masks in zip(self.plain_targets, self.cutouts, strict=True)
        ]


class FrameSet(Dataset[Any], ABC, Generic[Truth]):
    """Answers a `Ticket` with a sample, the files in it, and the errors met.

    `truth` is the pictures and what is known of them. `cache`: where they are kept once they are decoded, if at all.
    """

    cache: PictureCache | None = None

    def __init__(self, truth: Truth, config: TrainConfig, preprocess: Preprocess) -> None:
        self.truth: Truth = truth
        self.config = config
        self.preprocess = preprocess
        self._recipe: Recipe | None = None

    @abstractmethod
    def read(self, index: int) -> Sample:
        """The picture and its truth as they are. Raises ImageError."""

    def keep_pictures(self, processes: int = 1) -> None:
        """Keeps decoded pictures in memory, as the settings want it, in each of so many processes on a machine.

        Raises DetsegError where there is not as much memory.
        """
        if self.cache is not None or not self.config.cache:
            return
        from detseg.training.picture_cache import PictureCache, budget_of, free_memory

        image_hw, maps = self.truth.image_hw, isinstance(self.truth, SemanticSet)
        needed = PictureCache.needed(image_hw, maps=maps)
        budget = budget_of(self.config.cache, needed, free_memory(), processes)
        self.cache = PictureCache(image_hw, budget, maps=maps)

    def __len__(self) -> int:
        return len(self.truth)

    @cached_property
    def draw(self) -> Draw:
        """Which pictures an epoch shows, and how often."""
        return draw_of(self.config.balance, self.truth, self.config.balance_threshold)

    def __getitem__(self, ticket: Ticket) -> tuple[Sample | None, list[str], list[ImageError]]:
        rng = np.random.default_rng(_place(self.config.seed, ticket))
        errors: list[ImageError] = []
        chosen: list[int] = []
        frame = self._frame(ticket.picture, ticket, rng, chosen, errors)
        if frame is not None and self._pastes(ticket) and rng.random() < self.config.copy_paste:
            frame = self._pasted(frame, ticket, rng, chosen, errors)
        if ticket.mixup:
            other = self._frame(int(rng.integers(len(self.truth))), ticket, rng, chosen, errors)
            if frame is not None and other is not None:
                frame = mixed(frame, other, rng)
            elif frame is None:
                frame = other
        files = [self.truth.image_files[i] for i in chosen]
        if frame is None:
            return None, files, errors
        return self._recipe_of_worker()(frame, rng), files, errors

    def _frame(
        self, first: int, ticket: Ticket, rng: np.random.Generator, chosen: list[int], errors: list[ImageError]
    ) -> Sample | None:
        """The frame of one picture, or of it and three others; adds to the pictures `chosen` and the `errors` met."""
        wanted = [first] + (rng.integers(len(self.truth), size=3).tolist() if ticket.mosaic else [])
        samples: list[Sample] = []
        for index in wanted:
            try:
                samples.append(self.read(index))
            except ImageError as error:
                errors.append(error)
        chosen += wanted
        if self.config.rotate and self.config.augment != "none":
            reach = self.config.rotate
            samples = [rotated(sample, float(rng.uniform(-reach, reach))) for sample in samples]
        if self.config.turns and self.config.augment != "none":
            samples = [turned(sample, int(rng.integers(4))) for sample in samples]
        return self._lay(samples, ticket, rng) if samples else None

    def _pastes(self, ticket: Ticket) -> bool:
        """Whether objects may be pasted into this frame."""
        config = self.config
        return bool(config.copy_paste) and config.augment != "none" and ticket.epoch < config.plain_from

    def _pasted(
        self, frame: Sample, ticket: Ticket, rng: np.random.Generator, chosen: list[int], errors: list[ImageError]
    ) -> Sample:
        """The frame with objects of one other picture, which is laid into a frame of its own, mirrored or not."""
        alone = ticket._replace(mosaic=False)
        index = int(rng.integers(max(1, len(self.truth) - 1)))
        index += index >= ticket.picture and len(self.truth) > 1  # another picture than its own, where there is one
        source = self._frame(index, alone, rng, chosen, errors)
        if source is None:
            return frame
        if self.config.flip_horizontal and rng.random() < 0.5:
            source = mirrored(source)
        return pasted(frame, source, rng)

    def _lay(self, samples: list[Sample], ticket: Ticket, rng: np.random.Generator) -> Sample:
        strength = self.config.jitter
        if len(samples) == 4:
            return mosaic(samples, ticket.frame_hw, rng, strength=strength)
        if self.config.augment == "none":
            return self._as_in_use(samples[0], ticket)
        if self.config.layout == "patches":
            return patched(samples[0], ticket.frame_hw, rng)
        if self.config.layout == "crops":
            return cropped(samples[0], ticket.frame_hw, rng, strength=strength)
        return jittered(samples[0], ticket.frame_hw, rng, strength=strength)

    def _as_in_use(self, sample: Sample, ticket: Ticket) -> Sample:
        """The picture as it is laid in where the model is used; in a frame that others share, at its top left."""
        recipe, image_hw = self.preprocess, (sample.image.shape[0], sample.image.shape[1])
        placement = replace(recipe, frame_hw=ticket.limits or ticket.frame_hw).placement(image_hw)
        if ticket.limits is not None:
            own, shared = placement.content_hw, ticket.frame_hw
            if own[0] > shared[0] or own[1] > shared[1]:  # not of the size that the annotations say
                placement = Placement.letterbox(image_hw, shared)
            placement = replace(placement, frame_hw=shared)
        frame = lay_in(sample.image, placement, recipe.fill)
        height, width = placement.frame_hw
        whole, masks = (0, 0, width, height), sample.masks
        moved = None if masks is None else masks.moved(placement.scale_xy, placement.offset_xy, whole)
        label_map = None if sample.label_map is None else lay_in_map(sample.label_map, placement, IGNORE)
        boxes = placement.to_frame(sample.boxes)
        return replace(sample, image=frame, boxes=boxes, masks=moved, label_map=label_map)

    def _recipe_of_worker(self) -> Recipe:
        """Made where it is used: albumentations is slow to import."""
        if self._recipe is None:
            config = self.config
            self._recipe = Recipe(
                config.augment,
                flip_horizontal=config.flip_horizontal,
                flip_vertical=config.flip_vertical,
                hsv=config.hsv,
            )
        return self._recipe


class TrainingSet(FrameSet[AnnotationSet]):
    """Pictures and their objects; `masks`: samples hold masks too.

    `proposer`: samples hold proposals among their boxes (`augment.sample.with_proposals`). Where masks are known they
    also serve to alter pictures, whoever learns from them. Raises DetsegError where objects cannot be pasted.
    """

    def __init__(
        self,
        truth: AnnotationSet,
        config: TrainConfig,
        preprocess: Preprocess,
        *,
        masks: bool = False,
        proposer: Proposer | None = None,
    ) -> None:
        super().__init__(truth, config, preprocess)
        self.masks = masks
        self.proposer = proposer
        if config.copy_paste and (proposer is not None or not truth.outlines.any):
            lacking = (
                f"{config.data} has no outlines of objects" if proposer is None else "nothing proposes what is pasted"
            )
            raise DetsegError(f"objects are pasted by their outlines, and {lacking}; leave --copy-paste out")
        helped = bool(config.rotate or config.copy_paste) and proposer is None and truth.outlines.any
        self._reads_masks = masks or helped

    def __getitem__(self, ticket: Ticket) -> tuple[Sample | None, list[str], list[ImageError]]:
        sample, files, errors = super().__getitem__(ticket)
        return sample if sample is None or self.masks else replace(sample, masks=None), files, errors

    def read(self, index: int) -> Sample:
        """The picture and its truth as they are. Raises ImageError."""
        rows = self.truth.rows(index)
        image = self._picture(index)
        image_hw = (image.shape[0], image.shape[1])
        sample = Sample(
            image,
            self.truth.boxes[rows].astype(np.float32),
            self.truth.labels[rows],
            self.truth.ignored[rows],
            self._cutouts(index, image_hw) if self._reads_masks else None,
        )
        if self.proposer is None:
            return sample
        file = ImageFile(self.truth.image_path(index), PurePosixPath(self.truth.image_files[index]))
        return with_proposals(sample, self.proposer(file, image_hw))

    def _picture(self, index: int) -> NDArray[np.uint8]:
        kept = self.cache.get(index) if self.cache is not None else None
        if kept is not None:
            return kept.image
        image = read_image(self.truth.image_path(index))
        if self.cache is not None:
            self.cache.put(index, image)
        return image

    def _cutouts(self, index: int, image_hw: tuple[int, int]) -> Cutouts:
        rows = self.truth.rows(index)
        try:
            return Cutouts.of_outlines(self.truth.outlines[rows], self.truth.boxes[rows], image_hw)
        except ValueError as error:
            raise ImageError(self.truth.image_path(index), f"its masks cannot be used: {error}") from error


class MapSet(FrameSet[SemanticSet]):
    """Pictures and their label maps instead of objects."""

    def __init__(self, truth: SemanticSet, config: TrainConfig, preprocess: Preprocess) -> None:
        super().__init__(truth, config, preprocess)
        if config.copy_paste:
            raise DetsegError(f"{config.model} learns from label maps, which know no objects; leave --copy-paste out")
        self.background = _background(truth) if config.border_weight else 0

    def __getitem__(self, ticket: Ticket) -> tuple[Sample | None, list[str], list[ImageError]]:
        sample, files, errors = super().__getitem__(ticket)
        if sample is not None and sample.label_map is not None and self.config.border_weight:
            weights = border_weights(sample.label_map, background=self.background, w0=self.config.border_weight)
            sample = replace(sample, weights=weights)
        return sample, files, errors

    def read(self, index: int) -> Sample:
        """The picture and its label map as they are. Raises ImageError."""
        kept = self.cache.get(index) if self.cache is not None else None
        if kept is not None and kept.label_map is not None:
            return Sample.of_map(kept.image, kept.label_map)
        path = self.truth.image_path(index)
        image = read_image(path)
        try:
            label_map = self.truth.label_map(index)
        except DataError as error:
            raise ImageError(path, f"its label map cannot be used: {error}") from error
        if label_map.shape != image.shape[:2]:
            sizes = [f"{w}x{h}" for h, w in (label_map.shape, image.shape[:2])]
            raise ImageError(path, f"its label map is {sizes[0]} pixels, the picture {sizes[1]}")
        if self.cache is not None:
            self.cache.put(index, image, label_map)
        return Sample.of_map(image, label_map)


def _background(truth: SemanticSet) -> int:
    """The class between objects. Raises DataError where there is none."""
    found = [i for i, name in enumerate(truth.categories.names) if name.lower() in BACKGROUND_NAMES]
    if not found:
        raise DataError(
            f"{truth.root}: weights of borders lie between objects, in the background, and no class is called so: "
            f"{', '.join(truth.categories.names)}; leave --border-weight out"
        )
    return found[0]


def _place(seed: int, ticket: Ticket) -> list[int]:
    """What all that is drawn for a ticket rests on."""
    again = [ticket.turn] if ticket.turn else []
    return [seed, ticket.epoch, ticket.picture, *again]


def _turns(order: NDArray[np.intp]) -> NDArray[np.intp]:
    """(n,) pictures in a row -> how often each was there before."""
    by_picture = np.argsort(order, kind="stable")
    ordered = order[by_picture]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(np.concatenate([begins, [len(order)]]))
    turns = np.zeros(len(order), np.intp)
    turns[by_picture] = np.arange(len(order)) - np.repeat(begins, lengths)
    return turns


class EpochBatches(Sampler[list[Ticket]]):
    """The batches of an epoch, in an order and at sizes drawn from (seed, epoch).

    Every picture comes once, or as often as `draw` says.

    With fit="shorter", unless crops are cut, a batch's frame is as large as the largest of its pictures, so that
    upright ones and others go into batches of their own as far as they can; `image_hw` (count, 2) then says their
    sizes. `part` (rank, processes): of every batch only this process's share, which may be empty.
    """

    def __init__(
        self,
        count: int,
        config: TrainConfig,
        image_hw: NDArray[Any] | None = None,
        part: tuple[int, int] = (0, 1),
        draw: Draw | None = None,
    ) -> None:
        self.draw = Once(count) if draw is None else draw
        self.part = part
        self.config = config
        own_shape = config.fit == "shorter" and (config.layout != "crops" or config.augment == "none")
        self.image_hw = image_hw if own_shape else None
        self.epoch = 0
        self.first = 0  # the batches of the epoch before this one are left out

    def __len__(self) -> int:
        """Batches an epoch; a last short one counts unless it is the only loss of a fuller one."""
        full, rest = divmod(self.draw.length, self.config.batch)
        return max(1, full + (rest >= self.config.batch / 2))

    def __iter__(self) -> Iterator[list[Ticket]]:
        config = self.config
        rng = np.random.default_rng([config.seed, self.epoch])
        order = self._order(rng)
        turns = _turns(order)
        plain = self.epoch >= config.plain_from
        for i in range(len(self)):
            side = self._side(rng, plain)
            mine = slice(i * config.batch, (i + 1) * config.batch)
            chosen = order[mine]
            frame_hw, limits = self._frame(side, chosen)
            composed = not plain and config.augment != "none"
            in_mosaic = rng.random(len(chosen)) < (config.mosaic if composed else 0)
            blended = (
                rng.random(len(chosen)) < config.mixup if composed and config.mixup else np.zeros(len(chosen), bool)
            )
            if i < self.first:
                continue
            tickets = [
                Ticket(self.epoch, int(j), frame_hw, bool(m), bool(b), limits, int(turn))
                for j, m, b, turn in zip(chosen, in_mosaic, blended, turns[mine], strict=True)
            ]
            rank, processes = self.part
            yield tickets[rank::processes]

    def _order(self, rng: np.random.Generator) -> NDArray[np.intp]:
        """The pictures as they are drawn; those of like shape in a row where frames have their shape."""
        order = self.draw.order(rng)
        if self.image_hw is None:
            return order
        upright = self.image_hw[order, 0] > self.image_hw[order, 1]
        first = upright == bool(rng.integers(2))
        order = np.concatenate([order[first], order[~first]])
        whole = len(order) // self.config.batch * self.config.batch
        batches = rng.permutation(order[:whole].reshape(-1, self.config.batch))
        return np.concatenate([batches.reshape(-1), order[whole:]])

    def _frame(self, side: int, chosen: NDArray[np.intp]) -> tuple[tuple[int, int], tuple[int, int] | None]:
        """The frame of a batch, and the limits of its pictures' sides where frames have their shape."""
        if self.image_hw is None:
            return (side, side), None
        limits = (side, round(side * self.config.longest))
        sizes = [(int(h), int(w)) for h, w in self.image_hw[chosen] if h > 0 and w > 0] or [(side, side)]
        frames = [Placement.shorter(size, limits).frame_hw for size in sizes]
        return (max(h for h, _ in frames), max(w for _, w in frames)), limits

    def _side(self, rng: np.random.Generator, plain: bool) -> int:
        draw = rng.uniform(1 - self.config.multi_scale, 1 + self.config.multi_scale)
        fixed = plain or not self.config.multi_scale  # then no step of 32 either: SSD300 wants its 300
        return self.config.imgsz if fixed else max(32, round(self.config.imgsz * draw / 32) * 32)


def collate(answers: list[tuple[Sample | None, list[str], list[ImageError]]]) -> Batch:
    """Samples of one size -> a batch; pictures that could not be read are left out and named."""
    samples = [sample for sample, _, _ in answers if sample is not None]
    frames = np.stack([s.image for s in samples]) if samples else np.zeros((0, 32, 32, 3), np.uint8)
    targets = [target_of(sample) for sample in samples]
    files = [name for sample, names, _ in answers if sample is not None for name in names]
    errors = [error for _, _, met in answers for error in met]
    cutouts = [s.masks for s in samples if s.masks is not None]
    maps = [s.label_map for s in samples if s.label_map is not None]
    weights = [s.weights for s in samples if s.weights is not None]
    label_maps, weighed = (torch.from_numpy(np.stack(rows)) if rows else None for rows in (maps, weights))
    return Batch(torch.from_numpy(frames), targets, files, errors, cutouts if cutouts else None, label_maps, weighed)


def target_of(sample: Sample) -> Target:
    """The truth of a sample, and the proposals in it; masks are for `Batch`."""
    objects, proposals = parted(sample)
    boxes, labels, ignored = map(torch.from_numpy, (objects.boxes, objects.labels, objects.ignored))
    return Target(boxes, labels, ignored, proposals=torch.from_numpy(proposals))


def loader(dataset: FrameSet[Any], batches: EpochBatches, workers: int) -> DataLoader[Any]:
    """The loader of a run; worker processes stay alive between epochs."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
        worker_init_fn=_one_thread,
        prefetch_factor=4 if workers else None,
        multiprocessing_context=_clean_start(dataset.config) if workers else None,
    )


def _clean_start(config: TrainConfig) -> BaseContext:
    """Forks workers from a server that runs no threads, as forking this process might hang.

    The server imports what they need: once instead of in each of them, and they share its memory.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__, *libraries_of(config.augment)])
    return context


def _one_thread(_: int) -> None:
    """Workers are many: one thread each."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
