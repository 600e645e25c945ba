"""Heads of a checkpoint for other classes: YOLO's rows of each prior, 5 of the box and then one a class.

Fine-tuning on classes some of which the checkpoint knows starts from what it knows of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

BOX_ROWS = 5  # x, y, w, h, objectness


def with_known_classes(
    model: nn.Module, state: Mapping[str, Tensor], classes: Mapping[int, int], predictors: Mapping[str, int]
) -> dict[str, Tensor]:
    """The tensors of `state`, those of the predictions made to fit; what cannot be stays as it is.

    `classes`: the model's index of a class -> that of the checkpoint; `predictors`: how the names of each prediction's
    tensors begin -> its number of priors.
    """
    adapted, own = dict(state), model.state_dict()
    for prefix, priors in predictors.items():
        for name in [name for name in own if name.startswith(f"{prefix}.") and name in state]:
            rows = _rows(state[name], own[name], priors, classes)
            adapted[name] = state[name] if rows is None else rows
    return adapted


def _rows(old: Tensor, own: Tensor, priors: int, classes: Mapping[int, int]) -> Tensor | None:
    """`own` with the rows of `old` of the box and of known classes; None for another tensor than a prediction's."""
    if own.ndim == 0 or old.ndim == 0 or old.shape[1:] != own.shape[1:] or len(own) % priors or len(old) % priors:
        return None
    before, after = (tensor.reshape(priors, -1, *own.shape[1:]) for tensor in (old, own.clone()))
    if before.shape[1] <= BOX_ROWS or after.shape[1] <= BOX_ROWS:
        return None
    after[:, :BOX_ROWS] = before[:, :BOX_ROWS]
    for mine, other in classes.items():
        after[:, BOX_ROWS + mine] = before[:, BOX_ROWS + other]
    return after.reshape(own.shape)
