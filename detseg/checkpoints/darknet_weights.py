"""Darknet's weight file: a short header, then float32 after float32 in the order of the cfg's layers. Torch-free."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detseg.checkpoints.darknet_plan import Convolution, Layer, Plan
from detseg.checkpoints.header import expect_file
from detseg.errors import WeightsError

Floats = NDArray[np.float32]
_NEWEST = 1000  # Darknet marks old transposed files by versions above it


@dataclass(frozen=True)
class Header:
    """`seen`: pictures trained on, as 64 bits from version 0.2 on, before as 32."""

    major: int
    minor: int
    revision: int
    seen: int
    bytes: int

    @property
    def version(self) -> str:
        """As people write it."""
        return f"{self.major}.{self.minor}.{self.revision}"


@dataclass(frozen=True, eq=False)
class Numbers:
    """Of one convolution: `bias` (F,), `kernel` (F, C, rows, columns); with batch norm its statistics (F,) too."""

    bias: Floats
    kernel: Floats
    scale: Floats | None = None
    mean: Floats | None = None
    variance: Floats | None = None


def read_weights(path: str | Path, plan: Plan) -> tuple[Header, dict[int, Numbers]]:
    """The header, and by layer the numbers of every convolution of `plan`.

    The size is compared before anything is read. Raises WeightsError with the counts expected and found when the file
    is too short (naming the layer where it breaks off) or too long, or holds what cannot be weights.
    """
    path = Path(path)
    expect_file(path)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            header = _header(file.read(20), path)
            _expect_size(path, size, header, plan)
            file.seek(header.bytes)
            flat = np.fromfile(file, dtype="<f4", count=plan.numbers).astype(np.float32, copy=False)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    return header, dict(_cut(flat, plan, path))


def _header(start: bytes, path: Path) -> Header:
    if len(start) < 16:
        raise WeightsError(f"{path}: too short for a Darknet weight file: {len(start)} bytes; download it again")
    major, minor, revision = struct.unpack("<3i", start[:12])
    if not (0 <= major < _NEWEST and 0 <= minor < _NEWEST and 0 <= revision < 1_000_000):
        raise WeightsError(f"{path}: not a Darknet weight file: it does not begin with a version such as 0.2.5")
    long = major * 10 + minor >= 2
    if long and len(start) < 20:
        raise WeightsError(f"{path}: too short for a Darknet weight file: {len(start)} bytes; download it again")
    (seen,) = struct.unpack("<Q", start[12:20]) if long else struct.unpack("<I", start[12:16])
    return Header(major, minor, revision, seen, 20 if long else 16)


def _expect_size(path: Path, size: int, header: Header, plan: Plan) -> None:
    wanted = header.bytes + 4 * plan.numbers
    if size == wanted:
        return
    found = (size - header.bytes) / 4
    counts = (
        f"{plan.file} needs {plan.numbers:,} numbers ({wanted:,} bytes with a header of {header.bytes}), "
        f"it holds {found:,.10g} ({size:,} bytes)"
    )
    if size > wanted:
        raise WeightsError(f"{path}: too long for this cfg: {counts}; these two files do not belong together")
    layer = _broken_off(plan, int(found))
    raise WeightsError(
        f"{path}: too short for this cfg: {counts}: it breaks off in {layer}; either it is not complete, or these two "
        "files do not belong together"
    )


def _broken_off(plan: Plan, found: int) -> Layer:
    """The first layer that does not get all its numbers."""
    for layer, convolution in plan.convolutions:
        found -= convolution.numbers
        if found < 0:
            return layer
    raise AssertionError("the file is long enough")


def _cut(flat: Floats, plan: Plan, path: Path) -> Iterator[tuple[int, Numbers]]:
    first = 0
    for layer, convolution in plan.convolutions:
        piece = flat[first : first + convolution.numbers]
        first += convolution.numbers
        if not np.isfinite(piece).all():
            raise WeightsError(f"{path}: damaged: {layer} has weights that are not finite numbers")
        numbers = _of_convolution(piece, convolution)
        if numbers.variance is not None and numbers.variance.min() < 0:
            raise WeightsError(f"{path}: damaged, or of another cfg: a negative variance in {layer}")
        yield layer.index, numbers


def _of_convolution(piece: Floats, convolution: Convolution) -> Numbers:
    """In the order of the file: bias, then scale, mean and variance where there is batch norm, then the kernels."""
    filters = convolution.filters
    vectors = [piece[i * filters : (i + 1) * filters] for i in range(4 if convolution.norm else 1)]
    kernel = piece[len(vectors) * filters :].reshape(convolution.kernel_shape)
    return Numbers(vectors[0], kernel, *vectors[1:])
