"""YOLO trees: a data.yaml with splits and classes, pictures under images/, a .txt a picture under labels/.

See `yolo_labels` for the lines. A picture without a label file has no objects. A folder with images/ and labels/
but without data.yaml is read too; its classes are the lines of classes.txt, or else the numbers found in the tree.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from detseg import files
from detseg.annotations.categories import Categories
from detseg.annotations.dataset import AnnotationSet
from detseg.annotations.draft import Draft
from detseg.annotations.pictures import SUFFIXES, Folders, header_hw
from detseg.annotations.split_names import SPLITS, canonical, choose_split
from detseg.annotations.yolo_labels import label_file, read_labels, write_yolo
from detseg.errors import DataError

__all__ = ["is_bare_tree", "label_file", "load", "splits", "write_data_yaml", "write_yolo", "yaml_of"]

_CLASS_FILES = ("classes.txt", "labels.txt", "labels/classes.txt", "obj.names")
_DECIMALS = 5  # of a pixel, in outlines
_LARGEST = 4_000_000  # bytes: a description of 100,000 classes is smaller


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which would take the last of two equal keys without a word; this one refuses them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As the safe loader's. Raises ConstructorError for a key given twice."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


class _Tree(NamedTuple):
    """What a data.yaml, or a look at the folders, says."""

    root: Path
    splits: dict[str, list[str]]  # names as they are written -> folders and list files
    categories: Categories | None
    source: Path


def yaml_of(folder: Path) -> Path | None:
    """The data.yaml of a folder, by its usual names; or its only YAML file, if that reads like one."""
    for name in ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml"):
        if (folder / name).is_file():
            return folder / name
    others = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in (".yaml", ".yml") and p.is_file()]
    if len(others) != 1:
        return None
    try:
        content = _read_yaml(others[0])
    except DataError:
        return None
    return others[0] if "names" in content and {canonical(str(k)) for k in content} & set(SPLITS) else None


def is_bare_tree(folder: Path) -> bool:
    """Are there images/ and labels/, together or in each split's folder?"""
    return bool(_pairs(folder))


def splits(path: Path) -> tuple[str, ...]:
    """The names of the splits of a data.yaml or a folder."""
    return tuple(_look(path).splits)


def load(path: Path, split: str | None = None, *, need_images: bool = True) -> AnnotationSet:
    """A data.yaml, or a folder with one or with images/ and labels/; without `split`, all splits together.

    Boxes are in parts of the picture, so every picture's header is read: a picture that is missing or cannot
    be read is left out with a fault, whatever `need_images` says. Raises DataError when nothing can be used.
    """
    tree = _look(path)
    draft = Draft(tree.root, "yolo")
    if split is None:
        entries = [entry for name in tree.splits for entry in tree.splits[name]]
    else:
        entries = tree.splits[choose_split(tree.source, split, tuple(tree.splits))]
    pictures = list(dict.fromkeys(p for entry in entries for p in _pictures_of(entry, tree, draft)))
    if not pictures:
        why = f"; {draft.faults[0]}" if draft.faults else ""
        raise DataError(f"{tree.source}: no picture found in {', '.join(entries) or 'its splits'}{why}")
    categories = tree.categories or _numbers_found(tree, draft)
    labelled = sum([_fill(draft, picture, categories) for picture in pictures])
    if not labelled:
        expected = f"for {pictures[0]} it would be {label_file(pictures[0])}"
        raise DataError(f"{tree.source}: none of {len(pictures)} pictures has a label file; {expected}")
    result = draft.finish(categories)
    if not len(result):
        raise DataError(f"{tree.source}: no picture can be read; the first fault: {draft.faults[0]}")
    return result


def write_data_yaml(root: str | Path, categories: Categories, splits: dict[str, str]) -> Path:
    """Writes root/data.yaml: `splits` gives the folder, relative to root, of each split's pictures."""
    content = {**splits, "names": dict(zip(categories.ids, categories.names, strict=True))}
    path = Path(root) / "data.yaml"
    files.write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return path


def _look(path: Path) -> _Tree:
    if path.is_file():
        return _tree_of_yaml(path)
    described = yaml_of(path)
    return _bare_tree(path) if described is None else _tree_of_yaml(described)


def _read_yaml(file: Path) -> dict[Any, Any]:
    try:
        if file.stat().st_size > _LARGEST:
            raise DataError(f"{file}: larger than {_LARGEST // 10**6} MB: no description of a data set is")
        content = yaml.load(file.read_bytes(), _Loader)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    except Exception as error:  # besides its own errors PyYAML lets pass what its constructors raise
        cause = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{file}: is not YAML that can be read: {cause}") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: not a data set description: it has no keys such as train, val and names")
    return content


def _tree_of_yaml(file: Path) -> _Tree:
    content = _read_yaml(file)
    found: dict[str, list[str]] = {}
    for key, value in content.items():
        if isinstance(key, str) and canonical(key) in SPLITS and value not in (None, "", []):
            found[key] = _entries(value, key, file)
    if not found:
        raise DataError(f"{file}: it names no pictures: there is none of the keys train, val and test")
    base = content.get("path")
    if base is not None and not isinstance(base, str):
        raise DataError(f"{file}: 'path' is {reprlib.repr(base)}, not a folder")
    root = file.parent / base if base else file.parent
    # descriptions travel: a `path` of another machine means the folder the file lies in
    root = root if root.is_dir() else file.parent
    return _Tree(root, found, _names(content, file, root), file)


def _entries(value: Any, key: str, file: Path) -> list[str]:
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) and "\0" not in entry for entry in entries):
        raise DataError(f"{file}: {key!r} must be a folder, a .txt list, or a list of those")
    return list(entries)


def _names(content: dict[Any, Any], file: Path, root: Path) -> Categories | None:
    names = content.get("names")
    if names is None and isinstance(content.get("nc"), int) and 0 < content["nc"] <= 100_000:
        names = [str(i) for i in range(content["nc"])]
    if names is None:
        return _class_list(root)
    if isinstance(names, list):
        names = dict(enumerate(names))
    pairs = list(names.items()) if isinstance(names, dict) else []
    try:
        ids = [int(key) for key, _ in pairs]
        if not pairs or not all(0 <= id_ < 2**31 for id_ in ids):
            raise ValueError("it must be a list, or a map from numbers to names")
        if any(isinstance(name, dict | list) or name is None for _, name in pairs):
            raise ValueError("every class needs a name of its own")
        return Categories(tuple(ids), tuple(str(name) for _, name in pairs))
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{file}: 'names' cannot be used: {error}") from error


def _class_list(root: Path) -> Categories | None:
    for name in _CLASS_FILES:
        if (root / name).is_file():
            lines = (root / name).read_text("utf-8", "surrogateescape").splitlines()
            names = [line.strip() for line in lines if line.strip()]
            try:
                return Categories.from_names(names) if names else None
            except ValueError as error:
                raise DataError(f"{root / name}: {error}") from error
    return None


def _pairs(folder: Path) -> dict[str, str]:
    """Split name -> folder of pictures, relative; the name "" where there are no splits."""
    if (folder / "images").is_dir() and (folder / "labels").is_dir():
        inner = [p.name for p in sorted((folder / "images").iterdir()) if p.is_dir()]
        named = {name: f"images/{name}" for name in inner if canonical(name) in SPLITS}
        return named or {"": "images"}
    return {
        p.name: f"{p.name}/images"
        for p in sorted(folder.iterdir())
        if canonical(p.name) in SPLITS and (p / "images").is_dir() and (p / "labels").is_dir()
    }


def _bare_tree(folder: Path) -> _Tree:
    pairs = _pairs(folder)
    if not pairs:
        raise DataError(f"{folder}: neither a data.yaml in it, nor folders images and labels")
    return _Tree(folder, {name: [entry] for name, entry in pairs.items()}, _class_list(folder), folder)


def _numbers_found(tree: _Tree, draft: Draft) -> Categories:
    """Classes of a tree that does not name them: every number in any of its label files: splits agree."""
    ids: set[int] = set()
    silent = Draft(tree.root, "yolo")  # each file's faults are told when it is read for good
    for entries in tree.splits.values():
        for picture in (p for entry in entries for p in _pictures_of(entry, tree, silent)):
            ids |= {line.class_id for line in read_labels(Path(label_file(picture)), silent) or []}
    draft.warn("no-names", tree.source, "no class names in it; the classes are called by their numbers")
    return Categories(tuple(sorted(ids)), tuple(str(i) for i in sorted(ids)))


def _pictures_of(entry: str, tree: _Tree, draft: Draft) -> Iterator[str]:
    """Paths of the pictures of one entry: a folder (with all below it) or a list file."""
    place = _place(entry, tree)
    if place.is_dir():
        yield from _walk(place)
    elif place.suffix.lower() in (".txt", ".lst") and place.is_file():
        yield from _listed(place, tree, draft)
    else:
        raise DataError(f"{tree.source}: {_short(entry)} is neither a folder nor a .txt list; looked in {tree.root}")


def _place(entry: str, tree: _Tree) -> Path:
    here = tree.source.parent if tree.source.is_file() else tree.source
    tries = [tree.root / entry, here / entry]
    if entry.startswith("../"):  # a common export counts from a folder that is not there
        tries.append(here / entry.removeprefix("../"))
    return next((place for place in tries if place.exists()), tries[0])


def _walk(folder: Path) -> Iterator[str]:
    for where, inner, names in os.walk(folder):
        inner.sort()
        for name in sorted(names):
            if Path(name).suffix.lower() in SUFFIXES:
                yield os.path.join(where, name)  # noqa: PTH118 - pathlib is too slow for this many


def _listed(file: Path, tree: _Tree, draft: Draft) -> Iterator[str]:
    folders = Folders()
    homes = [os.path.abspath(base) for base in (tree.root, file.parent)]  # noqa: PTH100
    for number, line in enumerate(file.read_text("utf-8-sig", "surrogateescape").splitlines(), 1):
        name = line.strip()
        if not name:
            continue
        place = next((base for base in (tree.root, file.parent) if folders.has(base, name)), None)
        if place is None:
            draft.error("missing-picture", file, f"picture {_short(name)} of line {number} is not there; left out")
            continue
        picture = os.path.normpath(place / name)
        if any(_is_inside(picture, base) for base in homes):
            yield picture
        else:
            message = f"picture {_short(name)} of line {number} lies outside {tree.root}; left out: set 'path'"
            draft.error("outside-picture", file, message)


def _short(name: str) -> str:
    return repr(name if len(name) <= 200 else f"{name[:197]}...")


def _is_inside(path: str, folder: str) -> bool:
    return folder == "/" or os.path.abspath(path).startswith(folder + "/")  # noqa: PTH100 - links stay as they are


def _fill(draft: Draft, picture: str, categories: Categories) -> bool:
    """Adds a picture and its boxes; says whether it has a label file."""
    source = Path(label_file(picture))
    lines = read_labels(source, draft)
    hw = header_hw(picture)
    if hw is None or min(hw) < 1:
        draft.error("unreadable-picture", picture, "no readable picture; left out")
        return lines is not None
    inside = Path(picture).is_relative_to(draft.root)
    name = str(Path(picture).relative_to(draft.root)) if inside else str(Path(picture).absolute())
    index = draft.add_picture(name, hw, source)
    h, w = hw
    for number, class_id, (x1, y1, x2, y2), ring in lines or []:
        label = categories.index_of_id.get(class_id)
        if label is None:
            draft.error("unknown-category", source, f"line {number}: there is no class {class_id}; left out", number)
        else:
            box = (x1 * w, y1 * h, x2 * w, y2 * h)
            # rounded, so that pixels that were divided by the size come back as the very numbers they were
            points = np.round(np.reshape(ring, (-1, 2)) * (w, h), _DECIMALS).ravel().tolist()
            draft.add_box(index, box, label, number, segmentation=[points] if points else None)
    return lines is not None
