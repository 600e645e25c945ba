"""What the first bytes of a picture say: kind, size, orientation. No pixel is decoded here.

Written out rather than left to a library, because it costs microseconds, and because the orientation must be
known from one place, whichever library decodes the pixels afterwards.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap

Buffer = bytes | mmap

JPEG_END = b"\xff\xd9"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ORIENTATION_TAG = 0x0112
_WIDTH_TAG, _HEIGHT_TAG = 0x0100, 0x0101
_STANDALONE_MARKERS = frozenset((0x01, *range(0xD0, 0xD9)))
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Header:
    """What is known before decoding.

    `kind` JPEG, PNG, WEBP or TIFF; `stored_hw` the size before turning, (0, 0) where only the decoder knows
    it; `orientation` EXIF's 1..8; `channels` of a JPEG; `scan` where a JPEG's pixels begin; `orientation_at`
    (start, end) of the value of a TIFF's orientation tag; `complete` False when the file plainly ends too
    early.
    """

    kind: str
    stored_hw: tuple[int, int] = (0, 0)
    orientation: int = 1
    channels: int = 0
    scan: int = 0
    orientation_at: tuple[int, int] | None = None
    complete: bool = True

    @property
    def upright_hw(self) -> tuple[int, int]:
        """The size once the orientation is applied."""
        h, w = self.stored_hw
        return (w, h) if self.orientation >= 5 else (h, w)


def read_header(data: Buffer) -> Header | None:
    """The header of a JPEG, PNG, WebP or TIFF file; None for anything else."""
    head = data[:12]
    try:
        if head[:3] == b"\xff\xd8\xff":
            return _jpeg(data)
        if head[:8] == _PNG_SIGNATURE:
            return _png(data)
        if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            return _webp(data)
        if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _tiff(data)
    except (struct.error, IndexError):
        kind = {b"\xff": "JPEG", b"\x89": "PNG", b"R": "WEBP"}.get(head[:1], "TIFF")
        return Header(kind, complete=False)
    return None


def exif_orientation(exif: bytes) -> int:
    """The orientation, 1..8, in an EXIF block with or without its prefix; 1 when it says nothing sensible."""
    block = exif.removeprefix(b"Exif\0\0")
    try:
        orientation, _ = _tags(block, (_ORIENTATION_TAG,)).get(_ORIENTATION_TAG, (1, None))
    except (struct.error, IndexError):
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def _jpeg(data: Buffer) -> Header:
    """Walks the segments up to the first scan."""
    at, size, channels, orientation, seen_exif = 2, (0, 0), 0, 1, False
    while True:
        if data[at] != 0xFF:  # some writers leave bytes between segments; decoders skip them too
            at = data.find(b"\xff", at)
            if at < 0:
                return Header("JPEG", complete=False)
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _STANDALONE_MARKERS:
            at += 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker in _FRAME_MARKERS:
            h, w, channels = struct.unpack_from(">HHB", data, at + 5)
            size = (h, w)
        elif marker == 0xE1 and not seen_exif and data[at + 4 : at + 10] == b"Exif\0\0":
            seen_exif, orientation = True, exif_orientation(data[at + 10 : at + 2 + length])
        elif marker == 0xDA:
            return Header("JPEG", size, orientation, channels, scan=at + 2 + length)
        elif marker == 0xD9:
            return Header("JPEG", size, complete=False)
        at += 2 + length


def jpeg_is_complete(data: Buffer, header: Header) -> bool:
    """False when a JPEG ends before its end marker.

    Within the pixels an 0xFF is always followed by 0x00 or a restart marker, so the end marker cannot turn up
    there by chance; bytes behind it do no harm.
    """
    return header.complete and (data[-2:] == JPEG_END or data.find(JPEG_END, header.scan) >= 0)


def _png(data: Buffer) -> Header:
    w, h = struct.unpack_from(">II", data, 16)
    orientation = 1
    for kind, start, end in _png_chunks(data):
        if kind == b"eXIf":
            orientation = exif_orientation(data[start:end])
        elif kind == b"IEND":
            return Header("PNG", (h, w), orientation)
    return Header("PNG", (h, w), orientation, complete=False)


def _png_chunks(data: Buffer) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each chunk's content."""
    at = 8
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], at + 8, at + 8 + length
        at += 12 + length


def _webp(data: Buffer) -> Header:
    """Only the EXIF chunk is of interest; the size, which comes in three variants, is left to the decoder."""
    at = 12
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        if data[at : at + 4] == b"EXIF":
            return Header("WEBP", orientation=exif_orientation(data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return Header("WEBP")


def _tiff(data: Buffer) -> Header:
    tags = _tags(data, (_WIDTH_TAG, _HEIGHT_TAG, _ORIENTATION_TAG))
    size = (tags.get(_HEIGHT_TAG, (0, None))[0], tags.get(_WIDTH_TAG, (0, None))[0])
    orientation, where = tags.get(_ORIENTATION_TAG, (1, None))
    return Header("TIFF", size, orientation if 1 <= orientation <= 8 else 1, orientation_at=where)


def upright_tiff(data: bytes, header: Header) -> bytes:
    """The same file saying that it is upright, so that no decoder turns it a second time."""
    if header.orientation == 1 or header.orientation_at is None:
        return data
    start, end = header.orientation_at
    order = "little" if data[:2] == b"II" else "big"
    return b"".join((data[:start], (1).to_bytes(end - start, order), data[end:]))  # type: ignore[arg-type]


def _tags(data: Buffer, wanted: tuple[int, ...]) -> dict[int, tuple[int, tuple[int, int]]]:
    """tag -> (number, (start, end) of its bytes) of whole numbers in the first directory of a TIFF."""
    if data[:2] not in (b"II", b"MM"):
        return {}
    order = "<" if data[:2] == b"II" else ">"
    (version,) = struct.unpack_from(order + "H", data, 2)
    big = version == 43
    # classic: 4-byte offsets, 12-byte entries; BigTIFF: 8-byte offsets, 20-byte entries
    at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    first, step, value_at = (at + 8, 20, 12) if big else (at + 2, 12, 8)
    found = {}
    for entry in range(first, first + step * min(count, 4096), step):
        tag, number_type = struct.unpack_from(order + "HH", data, entry)
        code = {3: "H", 4: "I"}.get(number_type)
        if tag in wanted and code:
            start = entry + value_at
            found[tag] = (
                struct.unpack_from(order + code, data, start)[0],
                (start, start + struct.calcsize(code)),
            )
    return found
