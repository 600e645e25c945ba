"""The annotations of a COCO JSON file, hundreds of thousands of them, whatever stands in them.

Those that are as they should be are decoded straight into columns, tens of thousands at a time; each one that is not
goes alone through `_single`, which repairs it or says what is wrong with it. Both ways give the same rows.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from detseg.annotations.categories import Categories
from detseg.annotations.coco_pictures import Picture
from detseg.annotations.coco_values import MAX_ID, Repeating, Unusable, as_id, json_object, number, short
from detseg.annotations.dataset import Fault
from detseg.annotations.draft import Box, Draft, Rows
from detseg.annotations.outlines import FARTHEST, Outlines, check, check_text, is_far, rle_of, text_of
from detseg.geometry.rle import box as box_of_rle

_CHUNK = 20_000  # annotations decoded at a time: few enough to stay small, many enough for numpy
_WINDOW = 1 << 24  # bytes of text that are looked through at a time
_NO_OUTLINE = (b"", b"[]", b"null")


class _Entry(msgspec.Struct, gc=False):
    """An annotation as it should be."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float = math.nan
    iscrowd: int = 0
    difficult: int = 0
    segmentation: msgspec.Raw = msgspec.Raw(b"")


class Source(NamedTuple):
    """What annotations are read against: the file, its pictures by their ids, its classes."""

    path: Path
    pictures: dict[int, Picture]
    categories: Categories
    doubt: bool  # a key may be given twice in one of its annotations


class _Columns(NamedTuple):
    """Rows on their way: `has_id` is False where the file gives none, `positions` count its annotations from 1."""

    rows: Rows
    has_id: NDArray[np.bool_]
    positions: NDArray[np.int64]


def add_annotations(entries: list[Any], file: Source, draft: Draft, let_go: Callable[[], None]) -> None:
    """Adds all annotations to the draft, in the order of the file; empties `entries`, calls `let_go` now and then."""
    told: list[tuple[int, Fault]] = []
    lookup = _Lookup(file)
    chunks: list[_Columns] = []
    pool = bytearray()  # of all outlines: it grows in place, where arrays would be copied
    for start in range(0, len(entries), _CHUNK):
        chunk = entries[start : start + _CHUNK]
        entries[start : start + _CHUNK] = [None] * len(chunk)  # what is done needs no memory
        columns = _chunk(chunk, start, file, lookup, told)
        outlines = columns.rows.outlines
        shifted = Outlines(outlines.pool[:0], outlines.spans + len(pool))
        pool += outlines.pool.data
        chunks.append(columns._replace(rows=columns.rows._replace(outlines=shifted)))
        let_go()
    if chunks:
        whole = _joined(chunks)
        outlines = Outlines(np.frombuffer(pool, np.uint8), whole.rows.outlines.spans)
        whole = whole._replace(rows=whole.rows._replace(outlines=outlines))
        draft.add_rows(_with_ids(whole, file.path, told))
    draft.faults += [fault for _, fault in sorted(told, key=lambda pair: pair[0])]


def _joined(chunks: list[_Columns]) -> _Columns:
    parts = [chunk.rows for chunk in chunks]
    columns: list[Any] = [np.concatenate(column) for column in zip(*(part[:-1] for part in parts), strict=True)]
    columns.append(Outlines.concatenate([part.outlines for part in parts]))
    has_id, positions = (np.concatenate(column) for column in zip(*(chunk[1:] for chunk in chunks), strict=True))
    return _Columns(Rows(*columns), has_id, positions)


class _Lookup:
    """Ids of many annotations at once -> what they mean; -1 where they mean nothing."""

    def __init__(self, file: Source) -> None:
        self.doubt = file.doubt
        known = sorted(file.pictures.items())
        self._picture_ids = np.array([id_ for id_, _ in known], np.int64)
        self._pictures = np.array([picture.place for _, picture in known], np.int64)
        self._hw = np.array([picture.hw for _, picture in known], np.int64).reshape(-1, 2)
        self._category_ids = np.array(file.categories.ids, np.int64)  # in their order, see `_categories`

    def pictures(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(n,) ids -> (n,) places of pictures, (n, 2) their sizes; left out ones count as unknown."""
        place, known = _search(self._picture_ids, ids)
        if not len(self._picture_ids):
            return place, np.zeros((len(ids), 2), np.int64)
        return np.where(known, self._pictures[place], -1), self._hw[place]

    def labels(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) ids -> (n,) class indices."""
        place, known = _search(self._category_ids, ids)
        return np.where(known, place, -1)


def _search(known: NDArray[np.int64], ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each id stands in a sorted array, and whether it does."""
    if not len(known):
        return np.full(len(ids), -1), np.zeros(len(ids), np.bool_)
    place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return place, known[place] == ids


def _chunk(entries: list[Any], start: int, file: Source, lookup: _Lookup, told: list[tuple[int, Fault]]) -> _Columns:
    """The usable annotations of some entries, those that are as they should be first decoded together."""
    good, odd = _decoded(entries, lookup.doubt)
    columns, doubtful = _checked(good, start, lookup)
    singles = [_single(entries[i], start + i + 1, file, told) for i in sorted([*odd, *doubtful])]
    usable = [single for single in singles if single is not None]
    if not usable:
        return columns
    both = _joined([columns, _of_singles(usable)])
    order = np.argsort(both.positions, kind="stable")
    return _Columns(both.rows.take(order), both.has_id[order], both.positions[order])


def _decoded(entries: list[Any], doubt: bool) -> tuple[dict[int, _Entry], list[int]]:
    """The entries that are as they should be, by place, and the places of all others."""
    good: dict[int, _Entry] = {}
    odd: list[int] = []
    decode = _ENTRY.decode
    for i, entry in enumerate(entries):
        try:
            if doubt and _repeats_a_key(entry):
                raise msgspec.DecodeError
            good[i] = decode(entry)
        except (msgspec.DecodeError, TypeError):  # TypeError: it was read by `_read_slowly`
            odd.append(i)
    return good, odd


def may_repeat_keys(text: mmap.mmap, entries: Sequence[msgspec.Raw]) -> bool:
    """Is a key in the text of a file more often than there are entries? One question for all, since it is quick."""
    counts = dict.fromkeys(_KEYS, 0)
    for start in range(0, len(text), _WINDOW):
        window = text[start : start + _WINDOW]
        for key in _KEYS:
            seam = text[max(0, start - len(key) + 1) : start + len(key) - 1] if start else b""
            counts[key] += window.count(key) + seam.count(key)
    return any(count > len(entries) for count in counts.values())


def _repeats_a_key(entry: Any) -> bool:
    return any(bytes(entry).count(key) > 1 for key in _KEYS)


_ENTRY = msgspec.json.Decoder(_Entry)
_POLYGONS = msgspec.json.Decoder(list[Annotated[list[float], msgspec.Meta(min_length=6)]])
# digits become 0, what else belongs into polygons stays, anything else becomes x
_SHAPE = bytes(ord("0" if c in b"0123456789" else chr(c) if c in b".,-[] \t\r\n" else "x") for c in range(256))
_KEYS = tuple(f'"{field}"'.encode() for field in ("category_id", "bbox"))  # each costs a tenth of the time


def _checked(good: dict[int, _Entry], start: int, lookup: _Lookup) -> tuple[_Columns, list[int]]:
    """The rows of decoded entries, and the places of those that need a closer look after all."""
    places = np.fromiter(good, np.int64, len(good))
    entries = list(good.values())
    pictures, hw = lookup.pictures(_int_column([e.image_id for e in entries]))
    labels = lookup.labels(_int_column([e.category_id for e in entries]))
    xywh = np.array([e.bbox for e in entries], np.float64).reshape(-1, 4)
    crowd = _int_column([e.iscrowd for e in entries])
    ids = _int_column([e.id for e in entries])
    areas = np.array([e.area for e in entries], np.float64)
    outlines, drawn = _outlines([e.segmentation for e in entries], hw)
    fine = (pictures >= 0) & (labels >= 0) & (crowd >= 0) & (crowd <= 1) & (ids >= -MAX_ID) & drawn
    fine &= np.isfinite(xywh).all(axis=1)
    boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    difficult = (crowd == 1) & (_int_column([e.difficult for e in entries]) == 1)
    rows = Rows(
        pictures=pictures[fine],
        boxes=boxes[fine],
        labels=labels[fine],
        areas=np.where(areas >= 0, areas, math.nan)[fine],
        ids=ids[fine],
        crowd=((crowd == 1) & ~difficult)[fine],
        difficult=difficult[fine],
        outlines=outlines if fine.all() else outlines[fine],
    )
    count = int(np.count_nonzero(fine))
    return _Columns(rows, np.ones(count, np.bool_), start + 1 + places[fine]), places[~fine].tolist()


def _int_column(values: list[int]) -> NDArray[np.int64]:
    try:
        return np.array(values, np.int64)
    except OverflowError:  # beyond 64 bits: a number that no id has, and looked at alone
        return np.array([v if abs(v) <= MAX_ID else -MAX_ID - 1 for v in values], np.int64)


def _outlines(raws: list[msgspec.Raw], hw: NDArray[np.int64]) -> tuple[Outlines, NDArray[np.bool_]]:
    """The outlines, and whether each can be drawn (or there is none)."""
    texts = [bytes(raw) for raw in raws]
    together = b"".join(texts)
    if b" " in together:
        texts = [text.translate(None, b" \t\r\n") for text in texts]
        together = b"".join(texts)
    edges = np.concatenate([[0], np.cumsum([len(text) for text in texts], dtype=np.int64)])
    spans, drawn = np.stack([edges[:-1], edges[1:]], axis=1), np.ones(len(texts), np.bool_)
    unclear = np.flatnonzero(~_are_one_ring(together, edges)) if _are_plain(together) else range(len(texts))
    for i in unclear:
        text = texts[i]
        try:
            if text.startswith(b"[["):
                drawn[i] = all(not len(ring) & 1 and not is_far(ring) for ring in _POLYGONS.decode(text))
            elif text in _NO_OUTLINE:
                spans[i, 1] = spans[i, 0]
            else:
                check_text(text, _known(hw[i]))
        except ValueError:
            drawn[i] = False
    return Outlines(np.frombuffer(together, np.uint8), spans), drawn


def _are_plain(text: bytes) -> bool:
    """Does a text hold brackets, commas and numbers that are small and plainly written, and nothing else?"""
    shape = text.translate(_SHAPE)
    return b"x" not in shape and b"0" * len(str(FARTHEST + 1)) not in shape


def _are_one_ring(text: bytes, edges: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which parts of a plain text are a list of one list of three points or more? Counted: quicker than reading.

    Part i of the n parts goes from edges[i] to edges[i + 1].
    """
    if not text:
        return np.zeros(len(edges) - 1, np.bool_)
    content, begins, ends = np.frombuffer(text, np.uint8), edges[:-1], edges[1:]
    opens, closes, commas = (np.flatnonzero(content == ord(mark)) for mark in "[],")
    first, last = (np.searchsorted(opens, edge) for edge in (begins, ends))
    one_list = (last - first == 2) & (_at(opens, first) == begins) & (_at(opens, first + 1) == begins + 1)
    one_list &= _at(closes, np.searchsorted(closes, begins)) == ends - 2
    count = np.diff(np.searchsorted(commas, edges))
    return one_list & (count >= 5) & (count & 1 == 1)


def _at(positions: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.int64]:
    """The positions of an index; -1 beyond the last."""
    return np.append(positions, -1)[np.minimum(index, len(positions))]


def _known(hw: NDArray[np.int64]) -> tuple[int, int] | None:
    h, w = hw.tolist()
    return (h, w) if min(h, w) > 0 else None


# ---- annotations that are not as they should be ----


class _Single(NamedTuple):
    position: int
    picture: int
    box: Box
    label: int
    area: float
    id: int | None
    crowd: bool
    difficult: bool
    text: bytes


def _of_singles(singles: list[_Single]) -> _Columns:
    rows = Rows(
        pictures=np.array([s.picture for s in singles], np.int64),
        boxes=np.array([s.box for s in singles], np.float64).reshape(-1, 4),
        labels=np.array([s.label for s in singles], np.int64),
        areas=np.array([s.area for s in singles], np.float64),
        ids=np.array([s.id or 0 for s in singles], np.int64),
        crowd=np.array([s.crowd for s in singles], np.bool_),
        difficult=np.array([s.difficult for s in singles], np.bool_),
        outlines=Outlines.of_texts([s.text for s in singles]),
    )
    has_id = np.array([s.id is not None for s in singles], np.bool_)
    return _Columns(rows, has_id, np.array([s.position for s in singles], np.int64))


def _single(entry: Any, position: int, file: Source, told: list[tuple[int, Fault]]) -> _Single | None:
    """One annotation with all its oddities; None, and a fault, where it cannot be used."""
    if isinstance(entry, msgspec.Raw):
        try:
            entry = json.loads(bytes(entry), object_pairs_hook=json_object)
        except ValueError as error:  # a byte that is no UTF-8, in a place that nobody had looked at
            message = f"it cannot be read: {error}; left out"
            told.append((position, Fault("error", "bad-annotation", str(file.path), message, position)))
            return None
    own = as_id(entry.get("id")) if isinstance(entry, dict) else None

    def tell(severity: Any, kind: str, message: str) -> None:
        told.append((position, Fault(severity, kind, str(file.path), message, position if own is None else own)))

    try:
        picture, label, box = _annotation(entry, file)
        crowd = _flag(entry, "iscrowd")
    except Unusable as error:
        tell("error", error.kind, str(error))
        return None
    if picture.place < 0:
        return None  # its picture was left out, and said so
    if isinstance(entry, Repeating):
        tell("warning", "duplicate-key", f"{entry.key!r} is given more than once; the last is taken")
    if entry.get("bbox") in (None, []):
        tell("warning", "missing-box", "it has no bbox; the box around its outline is taken")
    text = b""
    if (outline := entry.get("segmentation")) not in (None, []):
        try:
            check(outline, picture.hw if min(picture.hw) > 0 else None)
            text = text_of(outline)
        except (ValueError, TypeError) as error:
            tell("error", "bad-outline", f"{error}; the outline is left out, the box is kept")
    difficult = crowd and entry.get("difficult") in (1, True)
    area = number(entry.get("area"))
    area = area if area >= 0 else math.nan
    return _Single(position, picture.place, box, label, area, own, crowd and not difficult, difficult, text)


def _annotation(entry: Any, file: Source) -> tuple[Picture, int, Box]:
    if not isinstance(entry, dict):
        raise Unusable("bad-annotation", f"it is a {type(entry).__name__}, not an object; left out")
    image_id = as_id(entry.get("image_id"))
    if image_id is None or image_id not in file.pictures:
        raise Unusable("unknown-picture", f"there is no picture of id {short(entry.get('image_id'))}; left out")
    category_id = as_id(entry.get("category_id"))
    label = None if category_id is None else file.categories.index_of_id.get(category_id)
    if label is None:
        raise Unusable("unknown-category", f"there is no category {short(entry.get('category_id'))}; left out")
    picture = file.pictures[image_id]
    return picture, label, _box(entry, picture)


def _box(entry: dict[str, Any], picture: Picture) -> Box:
    """The box; of an annotation that has an outline only, what the outline reaches."""
    box = entry.get("bbox")
    if box is None or box == []:
        return _box_of_outline(entry.get("segmentation"), picture)
    if not isinstance(box, list) or len(box) != 4:
        raise Unusable("bad-box", f"bbox {short(box)} is not a list of four numbers; left out")
    x, y, w, h = map(number, box)
    if not math.isfinite(x + y + w + h):
        raise Unusable("bad-box", f"bbox {short(box)} holds something that is no usable number; left out")
    return x, y, x + w, y + h


def _box_of_outline(outline: Any, picture: Picture) -> Box:
    try:
        check(outline, picture.hw if min(picture.hw) > 0 else None)
        if isinstance(outline, list):
            xs, ys = [x for ring in outline for x in ring[0::2]], [y for ring in outline for y in ring[1::2]]
            return min(xs), min(ys), max(xs), max(ys)
        return box_of_rle(rle_of(outline, tuple(outline["size"])))
    except (ValueError, TypeError):
        raise Unusable("missing-box", "it has no bbox, nor an outline that could give one; left out") from None


def _flag(entry: dict[str, Any], key: str) -> bool:
    value = entry.get(key, 0)
    if value is None or isinstance(value, list | dict | str) or value not in (0, 1):
        raise Unusable("bad-value", f"{key} is {short(value)}, not 0 or 1; left out")
    return bool(value)


# ---- ids ----


def _with_ids(columns: _Columns, file: Path, told: list[tuple[int, Fault]]) -> Rows:
    """The rows, each with an id of its own: what is given twice is left out, or gets a new id."""
    rows, ids = columns.rows, columns.rows.ids.copy()
    given = ids[columns.has_id]
    if columns.has_id.all() and _all_differ(ids):
        return rows
    following = int(given.max(initial=0)) + 1
    first: dict[int, int] = {}
    keep = np.ones(len(ids), np.bool_)
    for row, (id_, has_id, position) in enumerate(
        zip(ids.tolist(), columns.has_id.tolist(), columns.positions.tolist(), strict=True)
    ):
        if has_id and id_ not in first:
            first[id_] = row
            continue
        if has_id and _is_same(rows, first[id_], row):
            keep[row] = False
            message = "the same annotation is given twice; taken once"
            told.append((position, Fault("error", "duplicate-id", str(file), message, id_)))
            continue
        if has_id:
            message = f"the id is given more than once; this one becomes {following}"
            told.append((position, Fault("warning", "duplicate-id", str(file), message, id_)))
        ids[row], following = following, following + 1
    return rows._replace(ids=ids).take(keep)


def _all_differ(ids: NDArray[np.int64]) -> bool:
    return bool((np.diff(np.sort(ids)) > 0).all())


def _is_same(rows: Rows, one: int, other: int) -> bool:
    same = rows.pictures[one] == rows.pictures[other] and rows.labels[one] == rows.labels[other]
    return bool(same and (rows.boxes[one] == rows.boxes[other]).all())
