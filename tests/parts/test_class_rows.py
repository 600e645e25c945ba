"""Which rows of a checkpoint's predictions a network of other classes takes over."""

from __future__ import annotations

import torch
from torch import nn

from detseg.parts.class_rows import ClassRows, with_known_classes


class Net(nn.Module):
    """Two priors, 5 rows of each no class's; a layer whose name begins as the prediction's does."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.predict = nn.Conv2d(1, 2 * (5 + classes), 1)
        self.predictor = nn.Conv2d(1, 2 * 8, 1)


def test_rows_of_boxes_and_of_known_classes_are_the_checkpoints():
    # old: per prior 5 rows of the box, then classes 0, 1; new classes: 0 is the checkpoint's 1, 1 and 2 are unknown
    old, new = Net(2), Net(3)
    state = {name: value.clone() for name, value in old.state_dict().items()}
    state["predict.bias"] = torch.arange(14.0)
    own = torch.full((16,), -1.0)
    new.predict.bias = nn.Parameter(own)
    found = with_known_classes(new, state, {0: 1}, {"predict": ClassRows(2, 5)})
    assert found["predict.bias"].tolist() == [0, 1, 2, 3, 4, 6, -1, -1, 7, 8, 9, 10, 11, 13, -1, -1]
    assert found["predict.weight"].shape == new.predict.weight.shape
    assert torch.equal(found["predictor.weight"], state["predictor.weight"])
    assert torch.equal(state["predict.bias"], torch.arange(14.0))  # nothing that was given is changed


def test_the_same_classes_in_another_order_change_places():
    net = Net(2)
    state = {**net.state_dict(), "predict.bias": torch.arange(14.0)}
    found = with_known_classes(net, state, {0: 1, 1: 0}, {"predict": ClassRows(2, 5)})
    assert found["predict.bias"].tolist() == [0, 1, 2, 3, 4, 6, 5, 7, 8, 9, 10, 11, 13, 12]


def test_a_prediction_of_another_shape_stays_as_it_is():
    state = {"predict.weight": torch.zeros(14, 1, 3, 3), "predict.bias": torch.zeros(7)}
    found = with_known_classes(Net(2), state, {0: 0}, {"predict": ClassRows(2, 5)})
    assert found["predict.weight"] is state["predict.weight"]
    assert found["predict.bias"] is state["predict.bias"]
