"""The classes of torchvision's models: names of one's own, or COCO's, whose ids have holes; VOC's for label maps.

torchvision is imported inside the functions, so that the room's doors stay free of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detseg.annotations.categories import Categories
from detseg.annotations.voc_maps import VOC_NAMES
from detseg.errors import WeightsError

_BACKGROUND = ("__background__", "background")


def coco_categories() -> Categories:
    """COCO's 80 classes with their ids 1 ... 90, from torchvision's metadata."""
    from torchvision.models.detection import SSD300_VGG16_Weights

    names = SSD300_VGG16_Weights.COCO_V1.meta["categories"]
    used = [(i, name) for i, name in enumerate(names) if name != "N/A" and name not in _BACKGROUND]
    return Categories(tuple(i for i, _ in used), tuple(name for _, name in used))


def classes_of_maps(path: str | Path, classes: int, names: Sequence[str] | None) -> Categories:
    """The categories of a segmenter's file with `classes` outputs, of which the first is the background.

    `names` are of the classes in their order, with or without it; without names there must be as many as PASCAL VOC
    has. The ids are the places. Raises WeightsError when the names do not fit.
    """
    own = ["background", *VOC_NAMES] if names is None else list(names)
    if names is None and len(own) != classes:
        raise WeightsError(f"{path}: has {classes} classes, which are not PASCAL VOC's; name them with --names FILE")
    if len(own) == classes - 1 and own[0].lower() not in _BACKGROUND:
        own = ["background", *own]
    if len(own) != classes:
        raise WeightsError(f"{path}: has {classes} classes with the background, {len(own)} names are given")
    try:
        return Categories.from_names(own, first_id=0)
    except ValueError as error:
        raise WeightsError(f"{path}: its classes cannot be called so: {error}") from error


def classes_of_file(
    path: str | Path, classes: int, names: Sequence[str] | None
) -> tuple[Categories, tuple[int, ...] | None]:
    """The categories of a file with `classes` outputs besides the background's, and which of these are used.

    The outputs count from 1, and None means all of them. `names` are of the classes in their order, perhaps with the
    background first; without them there must be as many as COCO's ids reach to: then those that COCO does not use are
    left out, which never occur. Raises WeightsError when the names do not fit.
    """
    if names is None:
        coco = coco_categories()
        if classes != max(coco.ids):
            raise WeightsError(f"{path}: has {classes} classes, which are not COCO's; name them with --names FILE")
        return coco, coco.ids
    own = list(names)
    if len(own) == classes + 1 and own[0].lower() in _BACKGROUND:
        own = own[1:]
    if len(own) != classes:
        hint = "; left out, they are COCO's with its ids" if classes == max(coco_categories().ids) else ""
        raise WeightsError(f"{path}: has {classes} classes, {len(names)} names are given{hint}")
    try:
        return Categories.from_names(own, first_id=1), None
    except ValueError as error:
        raise WeightsError(f"{path}: its classes cannot be called so: {error}") from error
