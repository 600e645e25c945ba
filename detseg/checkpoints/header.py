"""Reading the card of a weight file, and saying what any other file is; nothing is executed. Torch-free."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO, Literal

from detseg.checkpoints.card import Card
from detseg.errors import WeightsError

KEY = "detseg"  # of the block in safetensors' metadata and in ONNX's metadata_props
Kind = Literal["safetensors", "onnx"]
_MAX_HEADER = 100_000_000  # bytes, safetensors' own limit
_NEVER = "detseg never unpickles a file, since a pickle can run any program"


def read_card(path: str | Path) -> Card:
    """The card of a .safetensors or .onnx file written by detseg; only the header is read.

    Raises WeightsError, one line saying what the file is, for everything else.
    """
    return open_header(path)[1]


def open_header(path: str | Path) -> tuple[Kind, Card]:
    """What kind of weight file this is, told by its content, and its card; see `read_card`."""
    path = Path(path)
    expect_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(4096)
            size = file.seek(0, 2)
            if start[8:9] == b"{":
                return "safetensors", _safetensors_card(file, size, path)
            foreign = _foreign(start, path)
            if foreign is None and start[:1] == b"\x08":
                return "onnx", _onnx_card(file, size, path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    raise WeightsError(f"{path}: {foreign or 'not a weight file: its content is of no known kind'}")


def expect_file(path: Path) -> None:
    """Raises WeightsError when `path` is no ordinary file, naming one of a like name beside it."""
    try:
        if path.is_file():
            return
        if path.is_dir():
            inside = sorted(p.name for p in path.iterdir() if p.suffix in (".safetensors", ".onnx"))
            hint = f"; it holds {', '.join(inside[:3])}" if inside else ""
            raise WeightsError(f"{path}: a folder, not a weight file{hint}")
        if path.exists():
            raise WeightsError(f"{path}: not an ordinary file")
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    near = get_close_matches(path.name, beside, n=1)
    raise WeightsError(f"{path}: no such weight file" + (f"; did you mean {path.parent / near[0]}?" if near else ""))


def _safetensors_card(file: BinaryIO, size: int, path: Path) -> Card:
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > min(_MAX_HEADER, size - 8):
        raise WeightsError(f"{path}: not a safetensors file, or cut short: its header does not fit into it")
    try:
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        promised = 8 + length + max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
        block = metadata.get(KEY)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path}: not a safetensors file: its header is damaged") from error
    if promised != size:
        raise WeightsError(f"{path}: damaged: {promised:,} bytes announced, {size:,} found; copy or download it again")
    return _card(block, path, "safetensors file")


def _onnx_card(file: BinaryIO, size: int, path: Path) -> Card:
    """Walks the outer level of a ModelProto: metadata_props is field 14; the graph, field 7, is skipped."""
    block, has_graph = None, False
    file.seek(0)
    try:
        for number, value in _protobuf_fields(file, size):
            has_graph |= number == 7
            if number == 14 and isinstance(value, tuple):
                entry = _string_pair(file, *value)
                block = entry[1] if entry[0] == KEY.encode() else block
                file.seek(sum(value))
    except ValueError as error:
        raise WeightsError(f"{path}: not an ONNX model, or cut short: {error}") from error
    if not has_graph:
        raise WeightsError(f"{path}: not an ONNX model, or cut short: it has no graph")
    return _card(block, path, "ONNX model")


def _card(block: Any, path: Path, what: str) -> Card:
    if block is None:
        raise WeightsError(
            f"{path}: {what} of another program: it has no detseg block; use weights that detseg trained or exported"
        )
    if not isinstance(block, str | bytes):
        raise WeightsError(f"{path}: its detseg block is not text")
    return Card.from_json_text(block, str(path))


def _string_pair(file: BinaryIO, start: int, length: int) -> tuple[bytes, bytes]:
    """A StringStringEntryProto: key is field 1, value field 2."""
    if length > _MAX_HEADER:
        raise ValueError("a metadata entry is too long")
    file.seek(start)
    pair = {1: b"", 2: b""}
    for number, value in _protobuf_fields(file, start + length):
        if number in pair and isinstance(value, tuple):
            file.seek(value[0])
            pair[number] = file.read(value[1])
    return pair[1], pair[2]


def _protobuf_fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """(field number, number or (start, length) of the bytes) from where the file stands; bytes skipped."""
    while file.tell() < end:
        tag = _varint(file)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            yield number, _varint(file)
        elif wire in (1, 5):
            file.seek(8 if wire == 1 else 4, 1)
        elif wire == 2:
            length = _varint(file)
            start = file.tell()
            if start + length > end:
                raise ValueError(f"{start + length:,} bytes announced, {end:,} found")
            yield number, (start, length)
            file.seek(start + length)
        else:
            raise ValueError("its structure is not protobuf")


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it ends in the middle of a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("its structure is not protobuf")


def _foreign(start: bytes, path: Path) -> str | None:
    """What a file is that is neither safetensors nor, perhaps, ONNX; None when it may be ONNX."""
    if not start:
        return "the file is empty; copy or download it again"
    if start[:4] == b"PK\x03\x04":
        return _zip(path)
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return f"a Python pickle, not a weight file of detseg; {_NEVER}"
    if start.startswith(b"version https://git-lfs"):
        return "only a Git LFS pointer; fetch the file itself with: git lfs pull"
    if start.lstrip()[:1] == b"<":
        return "a web page or XML, not a weight file; download it again"
    for magic, what in ((b"\x89HDF", "an HDF5 (Keras) file"), (b"GGUF", "a GGUF file")):
        if start.startswith(magic):
            return f"{what}, not a weight file of detseg"
    if start[4:8] == b"TFL3":
        return "a TensorFlow Lite model, not a weight file of detseg"
    return "a text, not a weight file" if _is_text(start) else None


def _zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            pickles = [name for name in names if name.endswith("data.pkl")]
            if not pickles:
                return "a zip archive, not a weight file; unpack it first"
            with archive.open(pickles[0]) as pickle:
                content = pickle.read(1 << 20)  # looked at as bytes only
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, ValueError):
        return f"a damaged zip archive or PyTorch checkpoint; {_NEVER}"
    maker = "an Ultralytics" if b"ultralytics" in content else "a PyTorch"
    what = "TorchScript model" if any("/code/" in name for name in names) else "checkpoint (a pickle)"
    return f"{maker} {what}, not a weight file of detseg; {_NEVER}; use weights that detseg trained or exported"


def _is_text(start: bytes) -> bool:
    try:
        text = start[:4000].decode("utf-8", "ignore")
    except UnicodeDecodeError:
        return False
    return bool(text) and len(text) * 4 >= len(start[:4000]) and all(c.isprintable() or c.isspace() for c in text)
