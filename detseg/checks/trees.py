"""What only the files of a format tell: pictures and label files without each other, names of other pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from detseg.annotations import find_format, yolo
from detseg.annotations.pictures import SUFFIXES, Folders
from detseg.checks.finding import Findings
from detseg.checks.parts import Part

_FILENAME = re.compile(rb"<filename>\s*(.*?)\s*</filename>", re.DOTALL)
_NOT_LABELS = {"classes.txt", "labels.txt", "obj.names"}


def check_tree(path: Path, parts: Sequence[Part], found: Findings) -> None:
    """Looks at the files of a whole data set besides what its readers read."""
    format = find_format(path)
    known = {os.path.normpath(p.pictures.image_path(i)) for p in parts for i in range(len(p.pictures))}
    known |= _told_of(found)
    if format == "voc":
        _check_voc(path, known, found)
    elif format == "yolo":
        _check_yolo(path, known, parts, found)
    elif format == "coco":
        _check_strays(known, {str(Path(name).parent) for name in known}, found)


def _told_of(found: Findings) -> set[str]:
    """Pictures that are known, and known to be bad."""
    return {os.path.normpath(f.file) for f in found.sorted() if f.kind == "unreadable-picture"}


def _check_strays(known: set[str], folders: Iterable[str], found: Findings) -> None:
    """Pictures that lie where pictures of the data set lie, and of which it does not speak."""
    listing = Folders()
    for folder in sorted(folders):
        for name in sorted(listing.names(folder)):
            file = os.path.normpath(Path(folder, name))
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".") and file not in known:
                found.add("stray-picture", file, "no annotation file speaks of it")


def _check_voc(root: Path, known: set[str], found: Findings) -> None:
    pages = {file.stem: file for file in sorted((root / "Annotations").glob("*.xml"))}
    folders = {str(Path(name).parent) for name in known}
    # a page whose picture is missing, or that cannot be read, has its own finding
    known |= {os.path.normpath(Path(f, n)) for f in folders for n in Folders().names(f) if Path(n).stem in pages}
    _check_strays(known, folders, found)
    for stem, page in pages.items():
        try:
            named = _FILENAME.search(page.read_bytes())
        except OSError:
            continue  # the reader told
        other = Path(named[1].decode("utf-8", "replace")).stem if named else stem
        if other and other != stem and (other in pages or _exists(root, folders, other)):
            found.add("other-picture-named", page, f"its filename names {other}, a picture with annotations of its own")
        elif other and other != stem:
            found.add("odd-filename", page, f"its filename names {other}, which is not there; that of {stem} is used")


def _exists(root: Path, folders: Iterable[str], stem: str) -> bool:
    return any(Path(folder, stem + suffix).is_file() for folder in folders for suffix in (".jpg", ".jpeg", ".png"))


# ---- YOLO ----


def _check_yolo(path: Path, known: set[str], parts: Sequence[Part], found: Findings) -> None:
    expected = {os.path.normpath(yolo.label_file(name)) for name in known}
    listing = Folders()
    folders = {str(Path(name).parent) for name in known}
    pictures = {os.path.normpath(Path(f, n)) for f in folders for n in listing.names(f) if _is_picture(n)}
    beside = {os.path.normpath(yolo.label_file(name)) for name in pictures}
    for file in _text_files({str(Path(label).parent) for label in expected}):
        if file not in beside:
            found.add("stray-labels", file, "there is no picture of this name")
    _check_strays(known, folders, found)
    _check_labelled(parts, listing, found)
    described = path if path.is_file() else yolo.yaml_of(path)
    if described is not None:
        _check_description(described, found)


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def _text_files(folders: Iterable[str]) -> Iterator[str]:
    listing = Folders()
    for folder in sorted(folders):
        for name in sorted(listing.names(folder)):
            if name.endswith(".txt") and name not in _NOT_LABELS:
                yield os.path.normpath(Path(folder, name))


def _check_labelled(parts: Sequence[Part], listing: Folders, found: Findings) -> None:
    for part in parts:
        paths = [part.pictures.image_path(i) for i in range(len(part.pictures))]
        bare = [p for p in paths if not listing.has("", os.path.normpath(yolo.label_file(str(p))))]
        if bare:
            names = ", ".join(p.name for p in bare[:8]) + (", ..." if len(bare) > 8 else "")
            message = f"{len(bare)} of {len(paths)} pictures have no label file and count as empty: {names}"
            found.add("no-label-file", part.source, message, split=part.split, count=len(bare))


def _check_description(file: Path, found: Findings) -> None:
    """Does `nc` say how many names there are?"""
    try:
        content: Any = yaml.safe_load(file.read_bytes())
    except Exception:  # the reader told
        return
    names, count = (content.get(key) for key in ("names", "nc")) if isinstance(content, dict) else (None, None)
    if isinstance(names, list | dict) and isinstance(count, int) and count != len(names):
        found.add("wrong-class-count", file, f"nc is {count}, but there are {len(names)} names")
