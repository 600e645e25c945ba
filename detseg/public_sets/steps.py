"""The steps of a descriptor: unpacked files moved and written anew until detseg reads the folder.

They run in the temporary folder of an unpacked set, before anyone sees it, and may change it freely.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from detseg import files
from detseg.annotations import descriptors as d
from detseg.errors import DataError

Report = Callable[[int, int | None], None]


def run(descriptor: d.Descriptor, root: Path, report: Report) -> None:
    """All steps of a set, in their order. Raises DataError when something that a step speaks of is not there."""
    for step in descriptor.steps:
        _run(step, root, report)


def uncounted(descriptor: d.Descriptor, root: Path) -> Iterator[str]:
    """Where there are more or fewer files than the descriptor says, in words."""
    for pattern, expected in descriptor.contents.items():
        found = sum(1 for _ in root.glob(pattern))
        if found != expected:
            yield f"{found} files are {pattern}, {expected} were expected"


@functools.singledispatch
def _run(step: d.AnyStep, root: Path, report: Report) -> None:
    raise TypeError(f"no such step: {step}")


@_run.register
def _(step: d.Move, root: Path, report: Report) -> None:
    sources = _matches(root, step.source)
    for done, source in enumerate(sources, 1):
        name = source.stem.removesuffix(step.drop) + source.suffix
        _move(source, root / step.to / name if _is_pattern(step.source) else root / step.to)
        report(done, len(sources))


@_run.register
def _(step: d.Write, root: Path, report: Report) -> None:
    files.write_text(root / step.to, "".join(f"{line}\n" for line in step.lines))


@_run.register
def _(step: d.Join, root: Path, report: Report) -> None:
    texts = [_matches(root, source)[0].read_text("utf-8").rstrip("\n") for source in step.source]
    files.write_text(root / step.to, "\n".join(texts) + "\n")


@_run.register
def _(step: d.Remove, root: Path, report: Report) -> None:
    for pattern in step.paths:
        for path in sorted(root.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


@_run.register
def _(step: d.Deal, root: Path, report: Report) -> None:
    lines = _matches(root, step.by)[0].read_text("utf-8").splitlines()
    words = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    for done, word in enumerate(words, 1):
        for source, target in step.moves.items():
            _move(_matches(root, source.format(word))[0], root / target.format(word))
        report(done, len(words))


@_run.register
def _(step: d.Recode, root: Path, report: Report) -> None:
    table = np.arange(256) if step.others is None else np.full(256, step.others)
    table[list(step.values)] = list(step.values.values())
    codes = ((table + step.shift) % 256).astype(np.uint8)
    masks = _matches(root, step.masks)
    for done, path in enumerate(masks, 1):
        _write_png(path, codes[_read_indices(path) % 256])
        report(done, len(masks))


@_run.register
def _(step: d.MatLabels, root: Path, report: Report) -> None:
    from scipy.io import loadmat  # type: ignore[import-untyped]

    sources = _matches(root, step.source)
    for done, path in enumerate(sources, 1):
        try:
            labels = loadmat(path)["GTcls"][0]["Segmentation"][0]
        except Exception as error:  # whatever a broken file makes its reader raise
            raise DataError(f"{path.relative_to(root)}: not a file of labels: {error}") from error
        _write_png(root / step.to / f"{path.stem}.png", np.asarray(labels, np.uint8))
        report(done, len(sources))


@_run.register
def _(step: d.IndexInstances, root: Path, report: Report) -> None:
    def masks_of(picture: Path) -> Iterator[NDArray[np.bool_]]:
        indices = _read_indices(_matches(root, step.masks.format(picture.stem))[0])
        for value in np.unique(indices[indices > 0]):
            yield indices == value

    _write_coco(root, _matches(root, step.pictures), masks_of, step.category, step.to, report)


@_run.register
def _(step: d.FileInstances, root: Path, report: Report) -> None:
    def masks_of(picture: Path) -> Iterator[NDArray[np.bool_]]:
        for path in sorted(picture.parent.glob(step.masks)):
            yield _read_indices(path) > 0

    pictures = _matches(root, step.pictures)
    _write_coco(root, pictures, masks_of, step.category, step.to, report, step.pictures_to)
    for picture in pictures:
        _move(picture, root / step.pictures_to / picture.name)


def _write_coco(
    root: Path,
    pictures: list[Path],
    masks_of: Callable[[Path], Iterator[NDArray[np.bool_]]],
    category: str,
    to: str,
    report: Report,
    pictures_to: str | None = None,
) -> None:
    """COCO JSON of masks, as compressed run lengths; pictures that lie elsewhere later will lie in `pictures_to`."""
    from detseg.images import read_hw

    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number, picture in enumerate(pictures, 1):
        h, w = read_hw(picture)
        name = f"{pictures_to}/{picture.name}" if pictures_to else picture.relative_to(root).as_posix()
        images.append({"id": number, "file_name": name, "height": h, "width": w})
        for mask in masks_of(picture):
            if mask.shape != (h, w):
                raise DataError(f"{picture.relative_to(root)}: {h}x{w}, but a mask of it is {mask.shape}")
            if mask.any():
                annotations.append(_annotation(mask, len(annotations) + 1, number))
        report(number, len(pictures))
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": category}]}
    files.write_bytes(root / to, msgspec.json.encode(content))


def _annotation(mask: NDArray[np.bool_], number: int, image: int) -> dict[str, object]:
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    box = [float(v) for v in coco_mask.toBbox(rle)]
    segmentation = {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode("ascii")}
    return {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "bbox": box, "area": int(mask.sum()),
            "segmentation": segmentation}  # fmt: skip


def _read_indices(path: Path) -> NDArray[np.int64]:
    """(h, w) the values of a mask file; of a palette the indices, of colours the first channel."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            values = np.asarray(picture)
    except Exception as error:  # whatever a broken file makes its reader raise
        raise DataError(f"{path.name}: cannot be read as a mask: {error}") from error
    return np.asarray(values[..., 0] if values.ndim == 3 else values, np.int64)


def _write_png(path: Path, labels: NDArray[np.uint8]) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)


def _is_pattern(text: str) -> bool:
    return any(c in text for c in "*?[")


def _matches(root: Path, pattern: str) -> list[Path]:
    """What there is of a path or pattern, sorted; DataError when that is nothing."""
    found = sorted(root.glob(pattern)) if _is_pattern(pattern) else [root / pattern]
    if not found or not found[0].exists():
        raise DataError(f"{pattern}: not in the archives; their publishers laid them out anew, or they are not whole")
    return found


def _move(source: Path, target: Path) -> None:
    """Renames; a folder that is there already takes the contents of the other in."""
    if source.is_dir() and target.is_dir():
        for child in sorted(source.iterdir()):
            _move(child, target / child.name)
        source.rmdir()
        return
    if target.exists():
        raise DataError(f"{target.name}: two files of the set would have this name")
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
