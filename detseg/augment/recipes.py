"""Colour and flip recipes on albumentations, by name. Objects move with the pixels; a seed gives one picture."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from detseg.augment.cutouts import Cutouts
from detseg.augment.sample import Sample

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for a newer version

RecipeName = Literal["none", "light", "standard", "strong"]
RECIPES = get_args(RecipeName)


def libraries_of(name: RecipeName) -> tuple[str, ...]:
    """What a recipe imports when it is made."""
    return () if name == "none" else ("albumentations",)


class Recipe:
    """A named list of albumentations transforms, applied to one sample with one generator.

    `hsv`: how much of the recipe's shifts of hue, saturation and brightness is used; 0: none.
    """

    def __init__(
        self, name: RecipeName, *, flip_horizontal: bool = True, flip_vertical: bool = False, hsv: float = 1.0
    ) -> None:
        self.name = name
        self._compose: Any = None
        self._moves_boxes = flip_horizontal or flip_vertical
        if name == "none":
            return
        import albumentations as A  # 3 s to import: only where training pictures are made

        self._compose = A.Compose(
            [*_flips(A, flip_horizontal, flip_vertical), *_transforms(A, name, hsv)],
            bbox_params=A.BboxParams(
                format="pascal_voc", label_fields=["rows"], min_area=0, min_visibility=0, clip=True
            )
            if self._moves_boxes
            else None,
        )

    def __call__(self, sample: Sample, rng: Generator) -> Sample:
        """The sample after the recipe's transforms."""
        if self._compose is None:
            return sample
        self._compose.set_random_seed(int(rng.integers(2**31)))
        if not self._moves_boxes:
            return replace(sample, image=self._compose(image=sample.image)["image"])
        rows = np.arange(len(sample.boxes))
        marks: dict[str, Any] = {} if sample.label_map is None else {"masks": [sample.label_map]}
        if sample.masks is not None:
            marks["mask"] = _marked_corner((sample.image.shape[0], sample.image.shape[1]))
        out = self._compose(image=sample.image, bboxes=sample.boxes, rows=rows, **marks)
        kept = sample.select(np.asarray(out["rows"], np.int64))
        boxes = np.asarray(out["bboxes"], np.float32).reshape(-1, 4)
        masks = None if kept.masks is None else _mirrored_as(kept.masks, out["mask"])
        label_map = None if sample.label_map is None else np.asarray(out["masks"][0], np.uint8)
        return replace(kept, image=out["image"], boxes=boxes, masks=masks, label_map=label_map)


def _marked_corner(hw: tuple[int, int]) -> NDArray[np.uint8]:
    """(h, w) a mark at the top left, which goes where the flips take it: cheaper than to flip every mask."""
    marked = np.zeros(hw, np.uint8)
    marked[0, 0] = 1
    return marked


def _mirrored_as(masks: Cutouts, marked: NDArray[np.uint8]) -> Cutouts:
    """The masks mirrored as the mark was."""
    h, w = marked.shape
    return masks.mirrored((h, w), x=bool(marked[:, -1].any()), y=bool(marked[-1].any()))


def _flips(A: Any, horizontal: bool, vertical: bool) -> list[Any]:
    return [A.HorizontalFlip(p=0.5)] * horizontal + [A.VerticalFlip(p=0.5)] * vertical


def _transforms(A: Any, name: RecipeName, hsv: float) -> list[Any]:
    if name == "light":
        return [A.RandomBrightnessContrast(0.15 * hsv, 0.15, p=0.5)]
    colour = [
        A.HueSaturationValue(hue_shift_limit=6 * hsv, sat_shift_limit=60 * hsv, val_shift_limit=40 * hsv, p=0.7),
        A.RandomBrightnessContrast(0.2 * min(hsv, 1), 0.2, p=0.4),
        A.ToGray(p=0.05 if hsv else 0.0),
    ]
    if name == "standard":
        return colour
    camera = [
        A.OneOf([A.GaussianBlur(blur_limit=(3, 5)), A.MotionBlur(blur_limit=5)], p=0.1),
        A.GaussNoise(std_range=(0.01, 0.05), p=0.1),
        A.ImageCompression(quality_range=(40, 90), p=0.2),
        A.FancyPCA(alpha=0.1 * hsv, p=0.2),
    ]
    return [*colour, *camera]
