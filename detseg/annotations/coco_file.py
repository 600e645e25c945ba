"""Reading one COCO JSON file, of any size, whatever stands in it."""

from __future__ import annotations

import gc
import json
import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from detseg.annotations.categories import Categories
from detseg.annotations.coco_annotations import Source, add_annotations, may_repeat_keys
from detseg.annotations.coco_pictures import add_pictures
from detseg.annotations.coco_values import Repeating, as_id, json_object, span
from detseg.annotations.dataset import AnnotationSet
from detseg.annotations.draft import Draft
from detseg.errors import DataError

_LISTS = ("images", "annotations", "categories")


class _Content(msgspec.Struct):
    """A file as it should be, its lists unread."""

    images: list[Any]
    annotations: list[msgspec.Raw]
    categories: list[Any]


def load_file(file: Path, need_images: bool) -> AnnotationSet:
    """The pictures and annotations of one file. Raises DataError when nothing of it can be used."""
    with _no_collection():
        return _load(file, need_images)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of short-lived lists and no cycle among them: looking for cycles would take a tenth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _load(file: Path, need_images: bool) -> AnnotationSet:
    lists = _read_lists(file)
    draft = Draft(file.parent, "coco")
    classes = _categories(lists.categories, file, draft)
    pictures = add_pictures(lists.images, file, draft, need_images)
    add_annotations(lists.annotations, Source(file, pictures, classes, lists.doubt), draft, lists.let_go)
    result = draft.finish(classes, ids_are_own=True)
    if not len(result):
        why = f"{len(draft.faults)} faults, the first: {draft.faults[0]}" if draft.faults else "'images' is empty"
        raise DataError(f"{file}: no picture of it can be used; {why}")
    return result


# ---- the text ----


class _Lists(NamedTuple):
    """What stands in a file; annotations each as JSON text, if the file is what it should be.

    `let_go` gives back the memory that the file's text takes; what is still needed of it comes again by itself.
    `doubt`: a key may be given twice in one of the annotations.
    """

    images: list[Any]
    annotations: list[Any]
    categories: list[Any]
    let_go: Callable[[], None] = lambda: None
    doubt: bool = False


def _read_lists(file: Path) -> _Lists:
    try:
        with file.open("rb") as stream:
            text = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)  # lives as long as a text of it
        content = msgspec.json.decode(memoryview(text), type=_Content)
        start, end = span(text, content.annotations)
        if all(_is_once((text[:start], text[end:]), f'"{key}"'.encode()) for key in _LISTS):
            doubt = may_repeat_keys(text, content.annotations)
            return _Lists(content.images, content.annotations, content.categories, _letting_go(text), doubt)
    except (OSError, ValueError, RecursionError):  # ValueError: nothing to map, or not what was expected
        pass
    return _read_slowly(file)


def _letting_go(text: mmap.mmap) -> Callable[[], None]:
    advice = getattr(mmap, "MADV_DONTNEED", None)  # not everywhere
    return (lambda: None) if advice is None else (lambda: text.madvise(advice))


def _is_once(parts: tuple[bytes, bytes], word: bytes) -> bool:
    return sum(part.count(word) for part in parts) < 2


def _read_slowly(file: Path) -> _Lists:
    """The lists as Python reads them: more lenient (NaN, a byte order mark), with words for what is wrong."""
    try:
        content = json.loads(file.read_bytes(), object_pairs_hook=json_object)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: is not JSON that can be read: {error}; is it complete?") from error
    if not isinstance(content, dict):
        raise DataError(
            f"{file}: not a COCO data set: the file holds a {type(content).__name__}, not an object; "
            "a list of results is no truth"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"{file}: not a COCO data set: there is no list {key!r} in it")
    if isinstance(content, Repeating) and content.key in _LISTS:
        raise DataError(f"{file}: {content.key!r} is given more than once; join the lists into one")
    return _Lists(content["images"], content["annotations"], content["categories"])


# ---- classes ----


def _categories(entries: list[Any], file: Path, draft: Draft) -> Categories:
    names: dict[int, str] = {}
    for position, entry in enumerate(entries, 1):
        id_ = as_id(entry.get("id")) if isinstance(entry, dict) else None
        name = entry.get("name") if isinstance(entry, dict) else None
        if id_ is None or not isinstance(name, str | int) or isinstance(name, bool):
            draft.error("bad-category", file, f"category {position} has no usable id and name; left out")
        elif id_ in names:
            draft.error("duplicate-id", file, f"category id {id_} is given more than once; the first is taken")
        else:
            names[id_] = _new_name(str(name), id_, names, file, draft)
    if not names:
        raise DataError(f"{file}: no usable category in it")
    ids = sorted(names)
    return Categories(tuple(ids), tuple(names[id_] for id_ in ids))


def _new_name(name: str, id_: int, names: dict[int, str], file: Path, draft: Draft) -> str:
    taken = set(names.values())
    if name not in taken:
        return name
    new = f"{name} ({id_})"
    while new in taken:
        new += "'"
    draft.warn("duplicate-name", file, f"two categories are called {name!r}; the one of id {id_} becomes {new!r}")
    return new
