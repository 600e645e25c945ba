"""From one format to another: a whole data set with all its splits and pictures, into a new folder.

The data set that is read stays untouched. What is written is built in a folder beside OUT and takes its name when all
is done; into a folder that holds something already it is written file by file, and only when asked for.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from detseg import files
from detseg.annotations import coco, mask_write, not_kept, voc_write, yolo
from detseg.annotations.categories import Categories
from detseg.annotations.dataset import AnnotationSet, Fault
from detseg.annotations.formats import find_format, load, load_label_maps, place_of_data, splits
from detseg.annotations.not_kept import NotKept
from detseg.annotations.semantic import SemanticSet
from detseg.annotations.split_names import SPLITS, canonical, split_of
from detseg.errors import DataError, DetsegError

Target = Literal["coco", "voc", "yolo", "masks", "cvat", "dota", "openimages"]
Pictures = Literal["copy", "link", "none"]
Objects = Literal["parts", "values"]
TARGETS: tuple[Target, ...] = get_args(Target)

# folders that only say what lies in them, and are written anew
_SAYS_NOTHING = frozenset({"images", "image", "imgs", "img", "jpegimages", "leftimg8bit"})


@dataclass(frozen=True)
class Plan:
    """What to convert, and how. objects: how objects are made of label maps; renumber: classes count from 0 (YOLO)."""

    to: Target
    split: str | None = None
    pictures: Pictures = "copy"
    exist_ok: bool = False
    outlines: bool = True
    objects: Objects | None = None
    renumber: bool = False


@dataclass(frozen=True)
class Part:
    """What was written of one split; name None where there are no splits."""

    name: str | None
    images: int
    objects: int


@dataclass(frozen=True)
class Conversion:
    """What was written, what of it is not as it was, and what was wrong with the data set that was read."""

    out: Path
    format: Target
    parts: tuple[Part, ...]
    not_kept: tuple[NotKept, ...]
    faults: tuple[Fault, ...]

    def to_json(self) -> dict[str, Any]:
        """A dict for `--json`."""
        return {
            "out": str(self.out),
            "format": self.format,
            "splits": [asdict(part) for part in self.parts],
            "not_kept": [loss.to_json() for loss in self.not_kept],
            "faults": [asdict(fault) for fault in self.faults],
        }


def convert(
    data: str | Path, out: str | Path, plan: Plan, advance: Callable[[int], None] = lambda pictures: None
) -> Conversion:
    """Writes the data set at `data` to the folder `out`; `advance` is told of every picture that is done.

    Raises DataError when nothing of it can be used or the format cannot hold it, DetsegError when `out` is not
    empty, unless `exist_ok`, or lies inside the data set.
    """
    source, target = place_of_data(data), Path(out)
    _check_out(source, target, plan.exist_ok)
    losses: list[list[NotKept]] = []
    names, unsaid = _splits(source, plan.split)
    losses.append(unsaid)
    with _building(target) as folder:
        done = _Written(folder, plan, {})
        parts: list[Part] = []
        faults: list[Fault] = []
        for asked, name in names:
            if plan.to == "masks":
                part, lost, found = _write_maps(load_label_maps(source, asked), name, done, advance)
            else:
                part, lost, found = _write_objects(_objects(source, asked, plan), name, done, advance)
            parts.append(part)
            losses.append(lost)
            faults += found
        done.finish()
    return Conversion(target, plan.to, tuple(parts), tuple(not_kept.merge(losses)), tuple(dict.fromkeys(faults)))


def _check_out(source: Path, out: Path, exist_ok: bool) -> None:
    if out.exists() and not out.is_dir():
        raise DetsegError(f"{out}: is there already and no folder; choose another name")
    if out.exists() and any(out.iterdir()) and not exist_ok:
        raise DetsegError(f"{out}: is there already and not empty; choose another name, or --exist-ok to write into it")
    root = source if source.is_dir() else source.parent
    inside = out.resolve().is_relative_to(root.resolve())
    if inside and (source.is_dir() or out.resolve() == root.resolve()):
        raise DetsegError(f"{out}: lies inside {root}, which is to stay as it is; choose another place")


@contextmanager
def _building(out: Path) -> Iterator[Path]:
    """A folder to write in: a new one that becomes `out` when the block ends well, or `out` where it holds files."""
    if out.exists() and any(out.iterdir()):
        yield out
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".part-", dir=out.parent))
    except OSError as error:
        raise DetsegError(f"{out}: cannot be made: {files.cause(error)}") from error
    try:
        yield building
        building.chmod(0o777 & ~_mask_of(out.parent))
        building.replace(out)
    except OSError as error:
        raise DetsegError(f"{error.filename or out}: cannot be written: {files.cause(error)}") from error
    except DetsegError as error:
        message = str(error)
        if str(building) not in message:
            raise
        kind = DataError if isinstance(error, DataError) else DetsegError
        raise kind(message.replace(str(building), str(out))) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _mask_of(folder: Path) -> int:
    """What new folders here may not do: as the one above."""
    return ~folder.stat().st_mode & 0o777


def _splits(source: Path, asked: str | None) -> tuple[list[tuple[str | None, str | None]], list[NotKept]]:
    """The splits to read, and their names to write. Lists that are others put together (trainval) are left out."""
    if asked is not None:
        return [(asked, asked)], []
    if source.is_file() and canonical(split_of(source)) in SPLITS:
        return [(None, split_of(source))], []
    found = splits(source)
    joined = [n for n in found if canonical(n) == "trainval" and {"train", "val"} <= {canonical(m) for m in found}]
    kept = [name for name in found if name not in joined]
    told = [NotKept("splits", len(joined), f"list is left out, being others put together: {', '.join(joined)}")]
    if not kept:
        return [(None, None)], []
    if find_format(source) == "voc":
        told.append(NotKept("unlisted", _unlisted(source, kept), "pictures are in no list and are left out"))
    return [(name, name) for name in kept], told


def _unlisted(source: Path, lists: Sequence[str]) -> int:
    from detseg.annotations import voc

    stems = {file.stem for file in (source / "Annotations").glob("*.xml")}
    listed = voc.split_files(source)
    return len(stems - {stem for name in lists for stem in voc.listed_stems(listed[name])})


def _objects(source: Path, split: str | None, plan: Plan) -> AnnotationSet:
    if plan.objects is None or find_format(source) not in ("masks", "voc"):
        return load(source, split, need_images=plan.pictures != "none")
    if plan.objects == "values":
        from detseg.annotations.masks import load_objects

        return load_objects(source, split, any_masks=True)
    from detseg.annotations.object_masks import objects_from_label_maps

    return objects_from_label_maps(load_label_maps(source, split))


@dataclass
class _Written:
    """The folder that is being filled, and which picture has which name in it."""

    folder: Path
    plan: Plan
    taken: dict[str, tuple[Path, str | None]]
    yolo_folders: dict[str, str] | None = None
    categories: Categories | None = None
    maps: Categories | None = None

    def place(self, name: str, picture: Path, split: str | None) -> str:
        """A name for the picture in OUT: its own below the target's folder; a free one where that is taken."""
        flat = self.plan.to in ("voc", "dota", "openimages")
        inner = _mirrored(name, split)
        folder = "JPEGImages" if self.plan.to == "voc" else f"images/{_safe(split)}" if split else "images"
        base = "_".join(inner.parts) if flat else str(inner)
        stem = base.removesuffix(inner.suffix) if inner.suffix else base
        numbered = (f"{stem}_{n}{inner.suffix}" for n in range(2, 10000))
        candidates = itertools.chain([inner.name] if flat else [], [base], numbered)
        for candidate in candidates:
            key = str(Path(folder, candidate).with_suffix("")) if self._one_per_stem else f"{folder}/{candidate}"
            # the same picture in two splits is one file; twice in one split it is two
            before = self.taken.get(key.casefold())
            if before is None or (before[0] == picture and before[1] != split):
                self.taken[key.casefold()] = (picture, split)
                return f"{folder}/{candidate}"
        raise DataError(f"{picture}: no free name for it in {folder}")

    @property
    def _one_per_stem(self) -> bool:
        return self.plan.to in ("voc", "yolo", "masks", "dota", "openimages")

    def bring(self, picture: Path, name: str) -> None:
        """Copies or links a picture."""
        target = self.folder / name
        if self.plan.pictures == "none" or (target.exists() and picture.samefile(target)):
            return
        if self.plan.pictures == "link" and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                target.hardlink_to(picture.resolve())
                return
            except OSError:  # another disk, or one without links
                pass
        with files.replacing(target) as temporary:
            _copy(picture, temporary)

    def finish(self) -> None:
        """Writes what all splits share."""
        if self.yolo_folders and self.categories is not None:
            yolo.write_data_yaml(self.folder, self.categories, self.yolo_folders)
        if self.maps is not None:
            mask_write.write_classes(self.maps, self.folder)


def _copy(picture: Path, target: Path) -> None:
    try:
        shutil.copyfile(picture, target)
    except FileNotFoundError:
        raise DataError(f"{picture}: the picture is not there any more") from None


def _mirrored(name: str, split: str | None) -> PurePosixPath:
    """The picture's path without what only says "pictures" or names the split, and without a way out of OUT."""
    parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".", "..") and not p.endswith(":")]
    if name.startswith(("/", "..")) or ":" in name[:3]:  # from elsewhere: only the name says something
        parts = parts[-1:]
    while len(parts) > 1 and (parts[0].lower() in _SAYS_NOTHING or _is_split(parts[0], split)):
        parts = parts[1:]
    return PurePosixPath(*(parts or ["unnamed"]))


def _is_split(word: str, split: str | None) -> bool:
    return canonical(word) in SPLITS and (split is None or canonical(word) == canonical(split))


def _safe(split: str | None) -> str:
    """A split's name as a folder's."""
    return "_".join((split or "").replace("\\", "/").split("/")).strip(".") or "all"


def _write_objects(
    truth: AnnotationSet, split: str | None, done: _Written, advance: Callable[[int], None]
) -> tuple[Part, list[NotKept], tuple[Fault, ...]]:
    plan = done.plan
    if plan.renumber:
        truth = replace(truth, categories=Categories.from_names(truth.categories.names))
    paths = [truth.image_path(i) for i in range(len(truth))]
    names = [done.place(name, path, split) for name, path in zip(truth.image_files, paths, strict=True)]
    moved = replace(truth, root=done.folder, image_files=tuple(names))
    lost = _write_truth(moved, split, done)
    renamed = sum(Path(a).name != Path(b).name for a, b in zip(names, truth.image_files, strict=True))
    lost.append(NotKept("file-names", renamed, "pictures get another file name: theirs was taken"))
    if plan.pictures == "none" and plan.to in ("yolo", "openimages"):
        lost.append(NotKept("pictures", len(names), "pictures are not there, without which boxes cannot be read again"))
    for path, name in zip(paths, names, strict=True):
        done.bring(path, name)
        advance(1)
    return Part(split, len(truth), len(truth.boxes)), lost, truth.faults


def _write_truth(truth: AnnotationSet, split: str | None, done: _Written) -> list[NotKept]:
    plan, root = done.plan, done.folder
    if done.categories not in (None, truth.categories):
        raise DataError(f"{root}: the splits have different classes; convert them one by one with --split")
    done.categories = truth.categories
    if plan.to == "coco":
        named = replace(truth, image_files=tuple(n.removeprefix("images/") for n in truth.image_files))
        coco.write_coco(named, root / "annotations" / f"instances_{_safe(split)}.json")
        crowd = int((truth.difficult & ~truth.crowd).sum())
        return [NotKept("difficult", crowd, "difficult objects have iscrowd 1, beside `difficult` for detseg")]
    if plan.to == "voc":
        return voc_write.write_voc(truth, root, _safe(split) if split else None, outlines=plan.outlines)
    if plan.to == "yolo":
        done.yolo_folders = (done.yolo_folders or {}) | {_safe(split) if split else "train": _folder_of(split)}
        return yolo.write_yolo(truth, root, outlines=plan.outlines)
    if plan.to == "masks":
        raise ValueError("label maps are written by another function")
    from detseg.annotations.foreign_write import write_foreign

    return write_foreign(truth, root, _safe(split) if split else None, plan.to)


def _folder_of(split: str | None) -> str:
    return f"images/{_safe(split)}" if split else "images"


def _write_maps(
    maps: SemanticSet, split: str | None, done: _Written, advance: Callable[[int], None]
) -> tuple[Part, list[NotKept], tuple[Fault, ...]]:
    """Pictures to images/, masks to masks/, both by splits; the pixel values are the category ids where they can be."""
    categories = mask_write.pixel_categories(maps.categories)
    if done.maps not in (None, categories):
        raise DataError(f"{done.folder}: the splits have different classes; convert them one by one with --split")
    done.maps = categories
    for image, name in enumerate(maps.image_files):
        path = maps.image_path(image)
        target = done.place(name, path, split)
        mask_write.write_map(maps, image, done.folder, target)
        done.bring(path, target)
        advance(1)
    painted = maps.format not in ("masks", "voc")
    lost = [
        NotKept(
            "category-ids",
            0 if categories == maps.categories else len(categories),
            "category ids become places: they are beyond 255",
        ),
        NotKept(
            "objects",
            len(maps) if painted else 0,
            "pictures get their objects painted: touching ones of a class become one",
        ),
    ]
    return Part(split, len(maps), 0), lost, maps.faults
