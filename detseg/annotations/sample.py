"""A small synthetic data set to try things on: coloured shapes on textured backgrounds, with exact boxes and masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detseg import files
from detseg.annotations import coco, mask_write, voc, yolo
from detseg.annotations.categories import Categories
from detseg.annotations.dataset import AnnotationSet
from detseg.annotations.outlines import Outlines
from detseg.annotations.semantic import paint
from detseg.errors import DetsegError
from detseg.geometry import rle as run_lengths
from detseg.geometry.boxes import iou

NAMES = ("circle", "square", "triangle")
_EMPTY_EVERY = 7  # pictures without any object belong to every honest data set
_VAL_EVERY = 5
_MAX_SHAPES = 5
_FAR_COLOUR = 90.0  # how far a shape's colour is from its background's, of 441 at most

_FOLDERS = {"coco": "images", "voc": "JPEGImages", "yolo": "images/{split}", "masks": "images/{split}"}

SampleFormat = Literal["coco", "voc", "yolo", "masks"]


class Drawing(NamedTuple):
    """A picture (h, w, 3) uint8 RGB and its truth: boxes (n, 4) of whole pixels, labels, areas in pixels, outlines.

    Outlines are the run lengths of the very pixels that were painted; shapes do not overlap.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    outlines: tuple[dict[str, Any], ...] = ()


def write_sample(
    out: str | Path,
    *,
    format: SampleFormat = "coco",
    images: int = 40,
    seed: int = 0,
    hw: tuple[int, int] = (240, 320),
) -> Path:
    """Writes a data set of `images` pictures, four fifths to train and one to val; gives its folder.

    The same seed draws the same pictures, in every format. Raises ValueError for less than 2 pictures or a
    side below 32 pixels, DetsegError when `out` holds something already.
    """
    if images < 2:
        raise ValueError(f"a train and a val split need 2 pictures at least, got {images}")
    if min(hw) < 32:
        raise ValueError(f"shapes need pictures of 32x32 pixels at least, got {hw[0]}x{hw[1]}")
    root = Path(out)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DetsegError(f"{root}: is there already and not an empty folder; choose another name")
    drawings: dict[str, list[tuple[str, Drawing]]] = {"train": [], "val": []}
    for index in range(images):
        split = "val" if index % _VAL_EVERY == _VAL_EVERY - 1 or index == images - 1 < _VAL_EVERY else "train"
        name = f"{_FOLDERS[format].format(split=split)}/shapes_{index:05d}.jpg"
        drawing = draw(index, seed, hw)
        with files.replacing(root / name) as temporary:
            Image.fromarray(drawing.image).save(temporary, "JPEG", quality=95, subsampling=0)
        drawings[split].append((name, drawing._replace(image=drawing.image[:0])))  # drawn and done
    _write_truth({split: _as_set(root, format, hw, drawn) for split, drawn in drawings.items()}, root, format)
    return root


def draw(index: int, seed: int, hw: tuple[int, int]) -> Drawing:
    """Picture number `index`: 1 to 5 shapes that hardly touch, or none in every seventh."""
    rng = np.random.default_rng([seed, index])
    image = _background(rng, hw)
    count = 0 if index % _EMPTY_EVERY == _EMPTY_EVERY - 1 else int(rng.integers(1, _MAX_SHAPES + 1))
    boxes, labels, areas, outlines = np.zeros((0, 4)), [], [], []
    for _ in range(count):
        label = int(rng.integers(len(NAMES)))
        mask, box = _place(rng, NAMES[label], hw, boxes)
        if mask is not None:
            _paint(rng, image, mask)
            boxes = np.concatenate([boxes, box])
            labels.append(label)
            areas.append(float(mask.sum()))
            outlines.append(run_lengths.encode(mask))
    pixels = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    return Drawing(pixels, boxes, np.array(labels, np.int64), np.array(areas, np.float64), tuple(outlines))


def _background(rng: np.random.Generator, hw: tuple[int, int]) -> NDArray[np.float64]:
    """Soft blotches around one colour, fine ones over coarse ones."""
    base = rng.uniform(40, 215, 3)
    layers = [base]
    for cells, strength in ((4, 30.0), (16, 15.0), (48, 10.0)):
        blotches = rng.normal(0, strength, (cells, cells, 3))
        layers.append(np.stack([_enlarge(blotches[..., c], hw) for c in range(3)], axis=-1))
    return np.clip(sum(layers[1:], np.broadcast_to(base, (*hw, 3))), 0, 255)


def _enlarge(small: NDArray[np.float64], hw: tuple[int, int]) -> NDArray[np.float32]:
    picture = Image.fromarray(small.astype(np.float32))
    return np.asarray(picture.resize((hw[1], hw[0]), Image.Resampling.BICUBIC))


def _place(
    rng: np.random.Generator, name: str, hw: tuple[int, int], others: NDArray[np.float64]
) -> tuple[NDArray[np.bool_] | None, NDArray[np.float64]]:
    """(h, w) mask and (1, 4) box of a shape that leaves the others alone; no mask when there is no room."""
    for _ in range(30):
        radius = min(hw) * rng.uniform(0.05, 0.28)
        centre = rng.uniform((radius, radius), (hw[1] - radius, hw[0] - radius))
        around = np.concatenate([centre - radius, centre + radius])[None]
        if len(others) and iou(around, others).max() > 0:
            continue
        mask = _shape(name, hw, centre, radius, rng.uniform(-0.5, 0.5))
        ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        return mask, np.array([[xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]], np.float64)
    return None, np.zeros((0, 4))


def _shape(
    name: str, hw: tuple[int, int], centre: NDArray[np.float64], radius: float, angle: float
) -> NDArray[np.bool_]:
    """The pixels whose middle lies in the shape, which fits into a circle of `radius`."""
    y, x = np.mgrid[: hw[0], : hw[1]] + 0.5
    dx, dy = x - centre[0], y - centre[1]
    if name == "circle":
        return dx**2 + dy**2 <= radius**2
    u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    if name == "square":
        return np.maximum(np.abs(u), np.abs(v)) <= radius / np.sqrt(2)
    # an equilateral triangle is the meeting of three half planes, each half a radius from the middle
    return np.maximum(v, np.abs(u) * np.sqrt(3) / 2 - v / 2) <= radius / 2


def _paint(rng: np.random.Generator, image: NDArray[np.float64], mask: NDArray[np.bool_]) -> None:
    around = image[mask].mean(axis=0)
    colour = rng.uniform(0, 255, 3)
    while np.linalg.norm(colour - around) < _FAR_COLOUR:
        colour = rng.uniform(0, 255, 3)
    shade = np.linspace(-15, 15, image.shape[0])[:, None, None]
    image[mask] = np.broadcast_to(colour + shade, image.shape)[mask]


def _as_set(root: Path, format: str, hw: tuple[int, int], drawn: list[tuple[str, Drawing]]) -> AnnotationSet:
    return AnnotationSet.from_columns(
        root=root,
        format=format,
        categories=Categories.from_names(NAMES, first_id=0 if format == "yolo" else 1),
        image_files=[name for name, _ in drawn],
        image_hw=[hw] * len(drawn),
        image_index=np.repeat(np.arange(len(drawn)), [len(d.boxes) for _, d in drawn]),
        boxes=np.concatenate([d.boxes for _, d in drawn]),
        labels=np.concatenate([d.labels for _, d in drawn]),
        areas=np.concatenate([d.areas for _, d in drawn]),
        outlines=Outlines.of([outline for _, d in drawn for outline in d.outlines]),
    )


def _write_truth(sets: dict[str, AnnotationSet], root: Path, format: str) -> None:
    for split, truth in sets.items():
        if format == "voc":
            voc.write_voc(truth, root, split, outlines=True)
        elif format == "yolo":
            yolo.write_yolo(truth, root)
        elif format == "masks":
            mask_write.write_masks(paint(truth), root)
        else:
            coco.write_coco(_named_from(truth, "images"), root / "annotations" / f"instances_{split}.json")
    if format == "masks":
        mask_write.write_classes(paint(next(iter(sets.values()))).categories, root)
    if format == "yolo":
        folders = {split: _FOLDERS["yolo"].format(split=split) for split in sets}
        yolo.write_data_yaml(root, next(iter(sets.values())).categories, folders)


def _named_from(truth: AnnotationSet, folder: str) -> AnnotationSet:
    """The set with its pictures named from a folder inside its root, as COCO files do."""
    names = tuple(str(Path(name).relative_to(folder)) for name in truth.image_files)
    return replace(truth, root=truth.root / folder, image_files=names)
