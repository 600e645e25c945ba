"""A data set written again in its own format: what changed is written anew, all else is taken over as it stands.

Fields that detseg does not read (licences, key points, poses, ...) stay. The data set that was read is not touched.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from detseg import files
from detseg.annotations import AnnotationSet, find_format
from detseg.annotations.mask_files import MaskFiles
from detseg.annotations.semantic import SemanticSet
from detseg.checks.coco_again import content_of
from detseg.checks.voc_again import page_of
from detseg.errors import DataError, DetsegError

Pictures = Literal["link", "copy", "none"]
FORMATS = ("coco", "voc", "yolo", "masks")
_VOC_MASKS = ("SegmentationClass", "SegmentationObject", "SegmentationClassAug")


@dataclass(frozen=True, eq=False)
class NewPart:
    """A part to write: its name (None: the whole), its objects, its label maps, the file or folder it was read from.

    `is_union`: it lists pictures that other parts hold (trainval).
    """

    name: str | None
    truth: AnnotationSet | None
    maps: SemanticSet | None
    source: Path
    is_union: bool = False


def check_format(path: Path) -> str:
    """The format of a data set that can be written again. Raises DataError for one that cannot."""
    format = find_format(path)
    if format not in FORMATS:
        words = "is read, but not written again in its own format"
        raise DataError(f"{path}: {format.upper()} {words}; first: detseg data convert {path} OUT --to coco")
    return format


@contextmanager
def building(out: Path, source: Path) -> Iterator[Path]:
    """A folder to write in, which becomes `out` when the block ends well. `out` must be new or empty.

    Raises DetsegError where it is neither, or lies inside the data set at `source`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DetsegError(f"{out}: is there already and not an empty folder; choose another name")
    root = source if source.is_dir() else source.parent
    if out.resolve().is_relative_to(root.resolve()):
        raise DetsegError(f"{out}: lies inside {root}, which is to stay as it is; choose another place")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".part-", dir=out.parent))
    except OSError as error:
        raise DetsegError(f"{out}: cannot be made: {files.cause(error)}") from error
    try:
        yield folder
        folder.chmod(out.parent.stat().st_mode & 0o777)
        folder.replace(out)
    except OSError as error:
        raise DetsegError(f"{error.filename or out}: cannot be written: {files.cause(error)}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def bring(source: Path, target: Path, how: Pictures) -> None:
    """Links (copies where the disk cannot) or copies a file; what is there already stays."""
    if how == "none" or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if how == "link":
        try:
            target.hardlink_to(source.resolve())
            return
        except OSError:  # another disk, or one without links
            pass
    with files.replacing(target) as temporary:
        shutil.copyfile(source, temporary)


# ---- COCO ----


def write_coco(parts: Mapping[Path, NewPart], sources: Sequence[Path], out: Path, how: Pictures) -> None:
    """Writes a JSON file for each part at its place below `out`, pictures below `out`/images.

    `sources` are the JSON files that were read: fields that detseg does not know are taken from them.
    """
    for file, part in parts.items():
        truth = part.truth
        assert truth is not None  # COCO has objects
        names = tuple(_below(name) for name in truth.image_files)
        content = content_of(replace(truth, image_files=names), truth.image_files, sources)
        files.write_bytes(out / file, content)
        for i, name in enumerate(names):
            bring(truth.image_path(i), out / "images" / name, how)


def _below(name: str) -> str:
    """A picture's path that cannot lead out of its folder, without `images` at its head."""
    parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".", "..")]
    while len(parts) > 1 and parts[0] == "images":
        parts = parts[1:]
    return "/".join(parts)


# ---- VOC ----


def write_voc(
    parts: Sequence[NewPart],
    root: Path,
    out: Path,
    how: Pictures,
    changed: Collection[Path],
    mended: Mapping[Path, Any],
    bad_masks: Collection[Path] = (),
) -> None:
    """Writes lists, pages and masks of a tree; pages of pictures that are not `changed` are copied.

    `mended` holds the pixels of masks that changed; `bad_masks` are left out.
    """
    bad = set(bad_masks)
    written: set[str] = set()
    lists = "ImageSets/Main"
    for part in parts:
        stems = [Path(name).stem for name in (part.truth or part.maps or _nothing()).image_files]
        if part.name is not None:
            files.write_text(out / lists / f"{part.name}.txt", "".join(f"{stem}\n" for stem in stems))
            masks = ((s, root / "SegmentationClass" / f"{s}.png") for s in stems)
            segmented = [s for s, mask in masks if mask.is_file() and mask not in bad]
            if segmented:
                text = "".join(f"{stem}\n" for stem in segmented)
                files.write_text(out / "ImageSets" / "Segmentation" / f"{part.name}.txt", text)
        if part.truth is not None:
            _write_pages(part.truth, root, out, how, changed, written)
    for name in ("classes.txt", "labels.txt"):
        if (root / name).is_file():
            bring(root / name, out / name, "copy")
    for mask in (root / folder / f"{stem}.png" for folder in _VOC_MASKS for stem in sorted(written)):
        _bring_mask(mask, out / mask.relative_to(root), how, mended, bad)


def _bring_mask(mask: Path, target: Path, how: Pictures, mended: Mapping[Path, Any], bad: Collection[Path]) -> None:
    from detseg.annotations.mask_files import voc_palette, write_mask

    if mask in mended:
        write_mask(target.with_suffix(".png"), mended[mask], voc_palette())
    elif mask.is_file() and mask not in bad:
        bring(mask, target, "copy" if how == "none" else how)


def _write_pages(
    truth: AnnotationSet, root: Path, out: Path, how: Pictures, changed: Collection[Path], written: set[str]
) -> None:
    for i, name in enumerate(truth.image_files):
        stem = Path(name).stem
        if stem in written:
            continue
        written.add(stem)
        page = root / "Annotations" / f"{stem}.xml"
        if truth.image_path(i) in changed:
            files.write_bytes(out / "Annotations" / page.name, page_of(page, truth, i))
        else:
            bring(page, out / "Annotations" / page.name, "copy")
        bring(truth.image_path(i), out / name, how)


def _nothing() -> AnnotationSet:
    raise ValueError("a part has objects or label maps")


# ---- YOLO ----


def write_yolo(
    parts: Sequence[NewPart], out: Path, how: Pictures, changed: Collection[Path], extra: Mapping[str, Any]
) -> None:
    """Writes images/PART, labels/PART and data.yaml, with what else stood in the old one (`extra`)."""
    from detseg.annotations import yolo

    folders: dict[str, str] = {}
    for part in parts:
        truth = part.truth
        assert truth is not None  # YOLO has objects
        folder = f"images/{part.name}" if part.name else "images"
        folders[part.name or "train"] = folder
        names = _names_in(folder, truth)
        anew = [i for i in range(len(truth)) if truth.image_path(i) in changed]
        moved = replace(truth, root=out, image_files=tuple(names))
        yolo.write_yolo(moved.subset(anew), out)
        for i, name in enumerate(names):
            path = truth.image_path(i)
            labels = Path(yolo.label_file(str(path)))
            if i not in set(anew) and labels.is_file():
                bring(labels, out / yolo.label_file(name), "copy")
            bring(path, out / name, how)
    categories = next(part.truth.categories for part in parts if part.truth is not None)
    yolo.write_data_yaml(out, categories, folders)
    if extra:
        import yaml

        text = (out / "data.yaml").read_text("utf-8")
        files.write_text(out / "data.yaml", text + yaml.safe_dump(dict(extra), sort_keys=False, allow_unicode=True))


def _names_in(folder: str, truth: AnnotationSet) -> list[str]:
    """A name below `folder` for each picture: its own below what all share, without folders called images."""
    paths = [os.path.normpath(truth.image_path(i)) for i in range(len(truth))]
    top = os.path.commonpath([os.path.dirname(p) for p in paths])  # noqa: PTH120 - names come by the million
    inner = [[word for word in Path(p).relative_to(top).parts if word != "images"] for p in paths]
    taken: dict[str, str] = {}
    names = []
    for path, words in zip(paths, inner, strict=True):
        name = "/".join(words)
        stem = Path(name).with_suffix("")
        number = 2
        # two pictures of one stem would share a label file
        while taken.setdefault(str(Path(name).with_suffix("")).casefold(), path) != path:
            name, number = f"{stem}_{number}{Path(path).suffix}", number + 1
        names.append(f"{folder}/{name}")
    return names


# ---- mask folders ----


def write_masks(parts: Sequence[NewPart], root: Path, out: Path, how: Pictures, mended: Mapping[Path, Any]) -> None:
    """Writes images/PART and masks/PART and the file of classes; `mended` holds the pixels of masks that changed."""
    from detseg.annotations.class_files import find_class_file

    for part in parts:
        maps = part.maps
        assert maps is not None  # mask folders have label maps
        assert isinstance(maps.source, MaskFiles)
        top = os.path.commonpath([os.path.dirname(maps.image_path(i)) for i in range(len(maps))])  # noqa: PTH120
        for i in range(len(maps)):
            mask, inner = maps.source.files[i], maps.image_path(i).relative_to(top)
            where = Path(part.name or "") / inner
            target = out / "masks" / where.with_suffix(mask.suffix)
            _bring_mask(mask, target, how, mended, ())
            bring(maps.image_path(i), out / "images" / where, how)
    named = find_class_file(root)
    if named is not None:
        bring(named, out / named.name, "copy")
