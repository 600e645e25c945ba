"""COCO's results in JSON <-> columns, fast: hundreds of thousands of objects in tenths of a second.

JSON becomes typed records and these a message whose records all have one length, which numpy sees as a table; and
the other way round. No Python code runs for each object.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
import numpy as np
from numpy.typing import NDArray

EXACT = 2.0**53  # whole numbers below this are exact in double precision

_FLOAT, _INT = b"\xcb", b"\xd3"  # MessagePack's marks of what follows
_LIST_32 = b"\xdd"
_GC_LOCK = threading.RLock()


class _Box(msgspec.Struct, array_like=True, gc=False):
    x: float
    y: float
    w: float
    h: float


class _Plain(msgspec.Struct, gc=False):
    """An object whose ids are read as numbers of any kind: they are looked at as a column."""

    image_id: float
    category_id: float
    bbox: _Box
    score: float


class _Written(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    bbox: _Box
    score: float


class _Outlined(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    bbox: _Box
    segmentation: msgspec.Raw
    score: float


class _OutlineOnly(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    segmentation: msgspec.Raw
    score: float


def parse(text: bytes) -> NDArray[np.float64] | None:
    """(n, 7) image id, x, y, w, h, score, category id of a list of plain objects.

    Numbers are finite. None where the text is anything else, or ids are no whole numbers that doubles hold exactly:
    it then has to be read one object after another, which also finds what is wrong.
    """
    try:
        with gc_paused():
            objects = msgspec.json.decode(text, type=list[_Plain])
            if not objects:
                return np.zeros((0, 7))
            message = msgspec.msgpack.encode(objects)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    layout = _layout(_Plain, _FLOAT)
    table = np.frombuffer(message, layout, len(objects), offset=len(message) - len(objects) * layout.itemsize)
    rows = np.empty((len(objects), 7))
    rows[:, 0], rows[:, 5], rows[:, 6] = table["image_id"], table["score"], table["category_id"]
    rows[:, 1:5] = table["bbox"]["value"]
    ids = rows[:, [0, 6]]
    return rows if (ids == np.trunc(ids)).all() and (np.abs(ids) < EXACT).all() else None


def write(image_ids: NDArray[np.int64], category_ids: NDArray[np.int64], numbers: NDArray[np.float64]) -> bytes:
    """The JSON list of objects: ids (n,), numbers (n, 5) x, y, w, h, score. Numbers read back are the same bits."""
    layout = _layout(_Written, _INT)
    head = _LIST_32 + len(numbers).to_bytes(4, "big")
    message = np.empty(len(head) + len(numbers) * layout.itemsize, np.uint8)
    message[: len(head)] = np.frombuffer(head, np.uint8)
    table = np.frombuffer(message, layout, offset=len(head))
    for name, mark in _marks(_Written, _INT).items():
        table[name] = np.frombuffer(mark, f"V{len(mark)}")[0]
    table["image_id"], table["category_id"], table["score"] = image_ids, category_ids, numbers[:, 4]
    table["bbox"]["mark"] = np.frombuffer(_FLOAT, "V1")[0]
    table["bbox"]["value"] = numbers[:, :4]
    with gc_paused():
        return msgspec.json.encode(msgspec.msgpack.decode(message.data, type=list[_Written])) + b"\n"


def write_outlined(
    image_ids: Sequence[int],
    category_ids: Sequence[int],
    numbers: NDArray[np.float64],
    outlines: Sequence[bytes],
    *,
    boxes: bool,
) -> bytes:
    """The same with outlines, each the JSON text of a `segmentation`; without `boxes`, outlines only."""
    rows = zip(image_ids, category_ids, numbers.tolist(), outlines, strict=True)
    with gc_paused():
        objects: list[_Outlined] | list[_OutlineOnly]
        if boxes:
            objects = [_Outlined(i, c, _Box(*n[:4]), msgspec.Raw(outline), n[4]) for i, c, n, outline in rows]
        else:
            objects = [_OutlineOnly(i, c, msgspec.Raw(outline), n[4]) for i, c, n, outline in rows]
        return msgspec.json.encode(objects) + b"\n"


@contextmanager
def gc_paused() -> Iterator[None]:
    """Python does not look for cycles meanwhile: among many new objects the search takes most of the time."""
    with _GC_LOCK:
        was_on = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if was_on:
                gc.enable()


def _marks(record: type[msgspec.Struct], id_mark: bytes) -> dict[str, bytes]:
    """What stands before each value: the key, and the kind of the value."""
    kinds = {"image_id": id_mark, "category_id": id_mark, "score": _FLOAT, "bbox": b"\x94"}
    head = bytes([0x80 + len(record.__struct_fields__)])
    marks = {}
    for name in record.__struct_fields__:
        marks[f"{name}_mark"] = head + bytes([0xA0 + len(name)]) + name.encode() + kinds[name]
        head = b""
    return marks


def _layout(record: type[msgspec.Struct], id_mark: bytes) -> np.dtype[np.void]:
    """The message's record as numpy sees it: every value behind its mark, numbers with the high byte first."""
    side = np.dtype([("mark", "V1"), ("value", ">f8")])
    kinds = {"image_id": ">i8" if id_mark == _INT else ">f8", "score": ">f8"}
    kinds["category_id"] = kinds["image_id"]
    fields: list[tuple[str, object] | tuple[str, object, tuple[int]]] = []
    for name, mark in _marks(record, id_mark).items():
        value = name.removesuffix("_mark")
        fields.append((name, f"V{len(mark)}"))
        fields.append((value, side, (4,)) if value == "bbox" else (value, kinds[value]))
    return np.dtype(fields)
