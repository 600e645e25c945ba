"""Predictions of a checkpoint for other classes: which of their rows are about which class.

Training on classes some of which the checkpoint knows starts from what it knows of them, whatever their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ClassRows:
    """How the rows of a prediction's weight and bias are arranged.

    `groups` times (once for each prior, say): `shared` rows that are no class's, `each` rows for every class, and
    `after` rows that are no class's. `inputs`: columns for every class, where what goes in is about classes, too.
    """

    groups: int = 1
    shared: int = 0
    each: int = 1
    after: int = 0
    inputs: int = 0

    def classes(self, rows: int) -> int:
        """How many classes so many rows are for; 0 where they cannot be of such a prediction."""
        own = rows // self.groups - self.shared - self.after
        return 0 if rows % self.groups or own % self.each or own < 0 else own // self.each

    def places(self, rows: int, classes: Sequence[int]) -> Tensor:
        """(R,) the rows that are no class's and those of `classes`, in this order, group by group."""
        places = torch.arange(rows).reshape(self.groups, -1)
        last = places.shape[1] - self.after
        of_classes = [places[:, self.shared + k * self.each :][:, : self.each] for k in classes]
        return torch.cat([places[:, : self.shared], *of_classes, places[:, last:]], dim=1).reshape(-1)


def with_known_classes(
    model: nn.Module, state: Mapping[str, Tensor], classes: Mapping[int, int], predictions: Mapping[str, ClassRows]
) -> dict[str, Tensor]:
    """The tensors of `state`, those of the predictions made to fit; what cannot be stays as it is.

    `classes`: the model's index of a class -> that of the checkpoint; `predictions`: the names of layers, or of single
    tensors, and how their rows are arranged. Rows of classes that the checkpoint does not know are the model's own.
    """
    adapted, own = dict(state), model.state_dict()
    for prediction, arranged in predictions.items():
        names = [prediction, f"{prediction}.weight", f"{prediction}.bias"]
        for name in (name for name in names if name in own and name in state):
            rows = _rows(state[name], own[name], arranged, classes)
            adapted[name] = state[name] if rows is None else rows
    return adapted


def _rows(old: Tensor, own: Tensor, arranged: ClassRows, classes: Mapping[int, int]) -> Tensor | None:
    """`own` with the rows of `old` that are no class's, and of known classes; None where these cannot be told apart."""
    if own.ndim == 0 or old.ndim != own.ndim or not (arranged.classes(len(own)) and arranged.classes(len(old))):
        return None
    after = own.clone()
    mine, theirs = arranged.places(len(own), list(classes)), arranged.places(len(old), list(classes.values()))
    if not arranged.inputs or own.ndim == 1:
        if old.shape[1:] != own.shape[1:]:
            return None
        after[mine] = old[theirs]
        return after
    columns = ClassRows(each=arranged.inputs)
    if old.shape[2:] != own.shape[2:] or not (columns.classes(own.shape[1]) and columns.classes(old.shape[1])):
        return None
    across = columns.places(own.shape[1], list(classes)), columns.places(old.shape[1], list(classes.values()))
    after[mine[:, None], across[0]] = old[theirs[:, None], across[1]]
    return after
