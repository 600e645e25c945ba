"""A repaired copy of a data set, in its own format. The original is never touched; every change is told."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg import files
from detseg.annotations import AnnotationSet, Categories
from detseg.annotations.formats import place_of_data
from detseg.annotations.mask_files import MaskFiles, read_pixels
from detseg.annotations.semantic import IGNORE, SemanticSet
from detseg.annotations.split_names import canonical
from detseg.checks import rewriting
from detseg.checks.division_files import extra_keys
from detseg.checks.finding import Findings
from detseg.checks.mending import mended
from detseg.checks.parts import Part, load_parts
from detseg.checks.pictures import Pictures as PartPictures
from detseg.checks.pictures import apart
from detseg.checks.rewriting import NewPart, Pictures
from detseg.checks.survey import PictureFacts, same_bytes, survey
from detseg.checks.trees import check_tree
from detseg.errors import DataError

CHANGES = "changes.jsonl"
_NOT_A_CHANGE = frozenset(
    {"empty-picture", "no-label-file", "unlisted-picture", "assumed-void", "binary-masks", "unsupported-key"}
    | {"no-names", "unmasked-picture", "class-without-objects", "duplicate-name"}
)
_DONE = dict.fromkeys(("stray-picture", "stray-labels", "stray-mask"), "not taken over: ") | dict.fromkeys(
    ("other-picture-named", "odd-filename", "wrong-class-count"), "corrected: "
)
_KEPT_FIRST = ("test", "testdev", "val", "minival", "train")  # where a picture of two splits stays


@dataclass(frozen=True)
class Change:
    """What was done: to which file, which annotation, because of what."""

    kind: str
    file: str
    message: str
    annotation: int | None = None


@dataclass(frozen=True)
class Repair:
    """What was written, and how it differs from what was read."""

    data: str
    out: str
    pictures: int
    objects: int
    changes: tuple[Change, ...]

    @property
    def by_kind(self) -> dict[str, int]:
        """How many changes of each kind, the most frequent first."""
        return dict(Counter(change.kind for change in self.changes).most_common())

    def to_json(self) -> dict[str, Any]:
        """Everything, for `--json`."""
        return asdict(self) | {"by_kind": self.by_kind}


@dataclass(frozen=True)
class Wishes:
    """What is wanted besides the plain repairs: pictures linked or copied, equal pictures kept, classes merged."""

    pictures: Pictures = "copy"
    keep_duplicates: bool = False
    merge_names: bool = False
    workers: int = 4


@dataclass
class _Log:
    changes: dict[Change, None] = field(default_factory=dict)

    def told(self, kind: str, file: Path | str, message: str, annotation: int | None = None) -> None:
        self.changes[Change(kind, str(file), message, annotation)] = None


def repair(
    path: str | Path,
    out: str | Path,
    wishes: Wishes = Wishes(),
    on_progress: Callable[[int, int], None] | None = None,
) -> Repair:
    """Writes a repaired copy of the data set at `path` to the new folder `out`.

    What readers leave out or cut is so in the copy; boxes are turned or scaled into the frame of their picture;
    objects and pictures given twice are kept once. Raises DataError where nothing can be used, DetsegError where
    `out` cannot be written.
    """
    path, out = place_of_data(path), Path(out)
    format = rewriting.check_format(path)
    log, found = _Log(), Findings()
    parts = load_parts(path, None, found)
    if not parts:
        raise DataError(f"{path}: nothing of it can be read; {found.sorted()[0]}")
    check_tree(path, parts, found)
    for finding in found.sorted():
        if finding.kind not in _NOT_A_CHANGE:
            words = _DONE.get(finding.kind, "")
            log.told(finding.kind, finding.file, words + finding.message, finding.annotation)
    facts = _survey(parts, wishes.workers, on_progress)
    readable = [_readable(part, facts, log) for part in parts]
    single = readable if wishes.keep_duplicates else _without_copies(readable, facts, log)
    whole = [_mended(part, facts, log) for part in _with_one_list_of_classes(single, wishes.merge_names, log)]
    new = [NewPart(part.split, part.truth, part.maps, Path(part.source)) for part in whole if len(part.pictures)]
    if not new:
        raise DataError(f"{path}: no picture of it can be used; {next(iter(log.changes)).message}")
    with rewriting.building(out, path) as folder:
        masks = _mended_masks(new, log)
        _write(format, path, new, folder, wishes.pictures, log, masks)
        lines = (json.dumps(asdict(change), ensure_ascii=False) for change in log.changes)
        files.write_text(folder / CHANGES, "".join(f"{line}\n" for line in lines))
    paths = {p.pictures.image_path(i) for p in whole for i in range(len(p.pictures))}
    return Repair(str(path), str(out), len(paths), _objects(whole), tuple(log.changes))


def _survey(
    parts: Sequence[Part], workers: int, on_progress: Callable[[int, int], None] | None
) -> dict[Path, PictureFacts]:
    paths = list(dict.fromkeys(p.pictures.image_path(i) for p in parts for i in range(len(p.pictures))))
    done = 0

    def on_picture() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, len(paths))

    return survey(paths, workers=workers, on_picture=on_picture)


def _objects(parts: Sequence[Part]) -> int:
    counts = {
        part.truth.image_path(i): int(n)
        for part in parts
        if part.truth is not None
        for i, n in enumerate(np.diff(part.truth.starts))
    }
    return sum(counts.values())


# ---- pictures ----


def _chosen(part: Part, keep: Callable[[Path], bool]) -> Part:
    """The part with the pictures to keep."""

    def of(pictures: Any) -> Any:
        if pictures is None:
            return None
        mine = [i for i in range(len(pictures)) if keep(pictures.image_path(i))]
        return pictures if len(mine) == len(pictures) else pictures.subset(np.array(mine, np.int64))

    return replace(part, truth=of(part.truth), maps=of(part.maps))


def _readable(part: Part, facts: Mapping[Path, PictureFacts], log: _Log) -> Part:
    for i in range(len(part.pictures)):
        path = part.pictures.image_path(i)
        if facts[path].cause:
            log.told("unreadable-picture", path, f"left out: {facts[path].cause}")
    return _chosen(part, lambda path: path not in facts or not facts[path].cause)


def _without_copies(parts: list[Part], facts: Mapping[Path, PictureFacts], log: _Log) -> list[Part]:
    """Every picture in one split, and once: where it is in several, the one to test or validate on keeps it."""
    named = [_as_pictures(part) for part in parts]
    separate = [named.index(part) for part in apart(named)]
    home: dict[Path, int] = {}
    for i in sorted(separate, key=lambda i: _rank(parts[i].split)):
        for path in named[i].paths:
            if home.setdefault(path, i) != i:
                log.told(
                    "picture-in-two-splits", path, f"left out of {parts[i].split}: {parts[home[path]].split} has it"
                )
    for path in (p for part in named for p in part.paths):
        home.setdefault(path, -1)
    gone = _copies(home, [part.split for part in parts], facts, log)
    return [
        _chosen(part, lambda p, i=i: p not in gone and (i not in separate or home.get(p, i) == i))  # type: ignore[misc]
        for i, part in enumerate(parts)
    ]


def _copies(
    home: Mapping[Path, int], names: Sequence[str | None], facts: Mapping[Path, PictureFacts], log: _Log
) -> set[Path]:
    """Files with the same bytes as another that is kept."""
    paths = list(home)
    gone: set[Path] = set()
    for group in same_bytes([facts[path] for path in paths]):
        # in one place the first is kept
        first, *others = sorted((paths[i] for i in group), key=lambda p: (_rank(names[home[p]]), paths.index(p)))
        for path in others:
            kind = "duplicate-picture" if home[path] == home[first] else "duplicate-across-splits"
            log.told(kind, path, f"left out: the same file as {first}")
            gone.add(path)
    return gone


def _rank(split: str | None) -> int:
    name = canonical(split or "")
    return _KEPT_FIRST.index(name) if name in _KEPT_FIRST else len(_KEPT_FIRST)


def _as_pictures(part: Part) -> PartPictures:
    named = part.pictures
    paths = [named.image_path(i) for i in range(len(named))]
    return PartPictures(part.split, part.source, paths, named.image_hw, [""] * len(paths))


def _mended(part: Part, facts: Mapping[Path, PictureFacts], log: _Log) -> Part:
    return part if part.truth is None else replace(part, truth=mended(part.truth, facts, log.told))


# ---- classes ----


def _with_one_list_of_classes(parts: list[Part], merge: bool, log: _Log) -> list[Part]:
    """All parts with the same classes: those of the first, and what others have besides; blanks around names go."""
    truths = [part.truth for part in parts if part.truth is not None]
    if not truths:
        return parts
    names: dict[str, str] = {}  # as it stands -> as it will
    ids: dict[str, int] = {}  # as it will -> id
    by_look = _most_used(truths) if merge else {}
    for truth in truths:
        for name, id_ in zip(truth.categories.names, truth.categories.ids, strict=True):
            new = by_look.get(_look(name), name.strip() or name)
            if names.setdefault(name, new) == new and name != new:
                log.told("similar-names" if merge else "blank-in-name", truth.root, f"class {name!r} becomes {new!r}")
            if new not in ids:
                ids[new] = id_ if id_ not in ids.values() else max(ids.values()) + 1
    by_id = sorted(ids, key=lambda name: ids[name])
    categories = Categories(tuple(ids[name] for name in by_id), tuple(by_id))
    if all(truth.categories == categories for truth in truths):
        return parts
    for truth in truths:
        if truth.categories.ids != categories.ids:
            log.told("classes-differ", truth.root, f"classes of {truth.format.upper()} parts are now the same list")
    return [
        part if part.truth is None else replace(part, truth=_renamed(part.truth, names, categories)) for part in parts
    ]


def _renamed(truth: AnnotationSet, names: Mapping[str, str], categories: Categories) -> AnnotationSet:
    index = np.array([categories.index_of_name[names[name]] for name in truth.categories.names], np.int64)
    return replace(truth, categories=categories, labels=index[truth.labels] if len(truth.labels) else truth.labels)


def _look(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _most_used(truths: Iterable[AnnotationSet]) -> dict[str, str]:
    """For names that differ only by case or blanks the one with most objects."""
    counts: Counter[str] = Counter()
    for truth in truths:
        objects = np.bincount(truth.labels, minlength=len(truth.categories)).tolist()
        counts.update(dict(zip(truth.categories.names, objects, strict=True)))
    best: dict[str, str] = {}
    for name, _ in counts.most_common():
        best.setdefault(_look(name), name.strip())
    return best


# ---- label maps ----


def _mended_masks(parts: Sequence[NewPart], log: _Log) -> dict[Path, NDArray[np.uint8] | None]:
    """Masks with values that are no class: their pixels with those not counted; None where a mask cannot be mended."""
    masks: dict[Path, NDArray[np.uint8] | None] = {}
    for part in parts:
        if part.maps is None or not isinstance(part.maps.source, MaskFiles):
            continue
        for file in part.maps.source.files:
            if file not in masks and (pixels := _mended_mask(part.maps, file, log)) is not False:
                masks[file] = pixels
    return masks


def _mended_mask(maps: SemanticSet, file: Path, log: _Log) -> Any:
    """False where nothing is wrong."""
    assert isinstance(maps.source, MaskFiles)
    try:
        pixels = read_pixels(file, by_colour=maps.source.values.by_colour)
    except DataError as error:
        log.told("unreadable-mask", file, f"left out: {str(error).removeprefix(f'{file}: ')}")
        return None
    unknown = maps.source.values.decode(pixels) < 0
    if not unknown.any():
        return False
    # the value must not be a class, and must be read as one that does not count
    if pixels.ndim != 2 or maps.source.values.numbers.get(IGNORE) != IGNORE or pixels[~unknown].max(initial=0) > 255:
        log.told("mask-values", file, "left out: its unknown colours cannot be told from its classes")
        return None
    log.told("mask-values", file, f"{int(unknown.sum())} pixels of unknown values do not count now")
    return np.where(unknown, IGNORE, pixels).astype(np.uint8)


# ---- writing ----


def _write(
    format: str,
    path: Path,
    parts: list[NewPart],
    folder: Path,
    pictures: Pictures,
    log: _Log,
    masks: Mapping[Path, NDArray[np.uint8] | None],
) -> None:
    changed = _changed(parts, log)
    kept = {file: pixels for file, pixels in masks.items() if pixels is not None}
    if format == "coco":
        root = path if path.is_dir() else path.parent
        jsons = {Path("annotations", Path(part.source).name): part for part in parts}
        if len(jsons) < len(parts) or root == path.parent:
            jsons = {Path("annotations", f"instances_{p.name}.json" if p.name else p.source.name): p for p in parts}
        rewriting.write_coco(jsons, [part.source for part in parts], folder, pictures)
    elif format == "voc":
        gone = {file for file, pixels in masks.items() if pixels is None}
        rewriting.write_voc(parts, path, folder, pictures, changed, kept, gone)
    elif format == "yolo":
        rewriting.write_yolo(parts, folder, pictures, changed, extra_keys(path))
    else:
        usable = [replace(part, maps=_without(part.maps, masks)) for part in parts]
        some = [part for part in usable if part.maps is not None and len(part.maps)]
        if not some:
            raise DataError(f"{path}: no label map of it can be used; {next(iter(log.changes)).message}")
        rewriting.write_masks(some, path, folder, pictures, kept)


def _without(maps: SemanticSet | None, masks: Mapping[Path, NDArray[np.uint8] | None]) -> SemanticSet | None:
    """The label maps without those that cannot be mended."""
    if maps is None or not isinstance(maps.source, MaskFiles):
        return maps
    keep = [i for i, file in enumerate(maps.source.files) if masks.get(file, 0) is not None]
    return maps.subset(np.array(keep, np.int64))


def _changed(parts: Sequence[NewPart], log: _Log) -> set[Path]:
    """The pictures whose annotation files are to be written anew."""
    stems = {Path(change.file).stem for change in log.changes}
    renamed = any(change.kind in ("similar-names", "blank-in-name", "classes-differ") for change in log.changes)
    pictures = {p.truth.image_path(i) for p in parts if p.truth is not None for i in range(len(p.truth))}
    return {path for path in pictures if renamed or path.stem in stems}
