"""Which class of a model is which class of a data set: told by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detseg.annotations.categories import Categories


@dataclass(frozen=True)
class ClassMatch:
    """The classes that two sides share, and those that only one of them has.

    `pairs`: (model's index, data set's index), in the model's order; `respelled`: (model's name, data set's
    name) of pairs that are written in two ways; `unknown`: classes of the data set that the model lacks;
    `unused`: classes of the model that the data set lacks.
    """

    pairs: tuple[tuple[int, int], ...]
    respelled: tuple[tuple[str, str], ...]
    unknown: tuple[str, ...]
    unused: tuple[str, ...]

    @classmethod
    def of(cls, model: Categories, data: Categories) -> ClassMatch:
        """Equal names first; then those that differ in case, blanks and marks only, or in VOC's and COCO's word for it.

        Only where just one on either side does.
        """
        target = {i: data.index_of_name[name] for i, name in enumerate(model.names) if name in data.index_of_name}
        taken = set(target.values())
        left = {i: _bare(name) for i, name in enumerate(model.names) if i not in target}
        free = {i: _bare(name) for i, name in enumerate(data.names) if i not in taken}
        respelled = {i: j for i, a in left.items() for j, b in free.items() if a == b}
        once = [list(left.values()), list(free.values())]
        respelled = {i: j for i, j in respelled.items() if all(names.count(left[i]) == 1 for names in once)}
        target |= respelled
        reached = set(target.values())
        return cls(
            pairs=tuple(sorted(target.items())),
            respelled=tuple((model.names[i], data.names[j]) for i, j in sorted(respelled.items())),
            unknown=tuple(name for j, name in enumerate(data.names) if j not in reached),
            unused=tuple(name for i, name in enumerate(model.names) if i not in target),
        )

    @property
    def to_model(self) -> dict[int, int]:
        """The data set's index of each class that both have -> the model's."""
        return {own: model for model, own in self.pairs}

    def to_data(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) the model's indices, all of shared classes -> (n,) the data set's."""
        table = np.full(max((i for i, _ in self.pairs), default=-1) + 1, -1, np.int64)
        for i, j in self.pairs:
            table[i] = j
        return table[labels]


def _bare(name: str) -> str:
    """What two spellings of one class have in common."""
    letters = "".join(character for character in name.casefold() if character.isalnum()) or name
    return _COCO_WORD.get(letters, letters)


_COCO_WORD = {"aeroplane": "airplane", "motorbike": "motorcycle", "sofa": "couch", "tvmonitor": "tv"}  # of VOC's
