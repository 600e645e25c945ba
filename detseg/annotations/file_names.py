"""`FileNames`: many paths as one array, which worker processes share where strings would be copied one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray


class FileNames(Sequence[str]):
    """A sequence of N strings that is read like a tuple of them.

    pool: their UTF-8 (surrogates escaped) as bytes; ends (N + 1,): 0, then where each of them ends in the pool.
    """

    def __init__(self, names: Iterable[str]) -> None:
        coded = [name.encode("utf-8", "surrogateescape") for name in names]
        self.pool = np.frombuffer(b"".join(coded), np.uint8)
        self.ends: NDArray[np.int64] = np.cumsum([0, *map(len, coded)], dtype=np.int64)

    @classmethod
    def of_pool(cls, pool: NDArray[np.uint8], ends: NDArray[np.int64]) -> FileNames:
        """From the arrays of another one."""
        names = cls(())
        names.pool, names.ends = pool, ends
        return names

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: Any) -> Any:
        """One name; of a slice, a tuple of names."""
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} names, {index} is not one of them")
        place = index % len(self)
        return self.pool[self.ends[place] : self.ends[place + 1]].tobytes().decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and not isinstance(other, str) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self)) if len(self) <= 5 else f"({', '.join(map(repr, self[:3]))}, ... {len(self)} names)"
