"""`Categories`: the classes of a data set, and the three names each of them has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Categories:
    """Class index 0..K-1 <-> the data set's own id <-> name.

    Models and arrays speak of indices; files that come in or go out speak of ids. Ids may have holes and start
    anywhere: what came in goes out. Order is the order of the indices. Raises ValueError on a repeated id or name.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.names):
            raise ValueError(f"{len(self.ids)} category ids but {len(self.names)} names")
        for what, values in (("id", self.ids), ("name", self.names)):
            repeated = sorted(str(value) for value, count in Counter(values).items() if count > 1)
            if repeated:
                raise ValueError(f"category {what} given more than once: {', '.join(repeated)}")

    @classmethod
    def from_names(cls, names: Sequence[str], first_id: int = 0) -> Categories:
        """Categories numbered from `first_id` in the order of `names`."""
        return cls(tuple(range(first_id, first_id + len(names))), tuple(names))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def index_of_id(self) -> dict[int, int]:
        """The data set's own id -> class index."""
        return {id_: index for index, id_ in enumerate(self.ids)}

    @cached_property
    def index_of_name(self) -> dict[str, int]:
        """Name -> class index."""
        return {name: index for index, name in enumerate(self.names)}

    def to_json(self) -> list[dict[str, int | str]]:
        """COCO's list of categories."""
        return [{"id": id_, "name": name} for id_, name in zip(self.ids, self.names, strict=True)]

    @classmethod
    def from_json(cls, categories: Sequence[dict[str, int | str]]) -> Categories:
        """From COCO's list of categories, in its order."""
        return cls(tuple(int(c["id"]) for c in categories), tuple(str(c["name"]) for c in categories))
