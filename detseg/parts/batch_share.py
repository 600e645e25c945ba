"""A batch that several processes share: what its losses are made of is counted over the whole of it.

A loss that is a sum over the batch, divided by a count of its positives, is not the mean of the losses of its parts;
nor is one of the overlap of regions. While a process computes its part within `sharing`, `normaliser` and `of_whole`
make it so: the parts' losses, each weighted by its share of the pictures, then add up to the loss of the whole batch,
and so do their gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from torch import Tensor


class _Share(NamedTuple):
    weight: float  # this process's share of the batch's pictures
    total: Callable[[Sequence[float]], list[float]]  # the sums of numbers over the processes


_SHARE: ContextVar[_Share | None] = ContextVar("share", default=None)


@contextmanager
def sharing(weight: float, total: Callable[[Sequence[float]], list[float]]) -> Iterator[None]:
    """Within it this process has `weight` of the batch's pictures; `total` adds numbers up over all processes."""
    token = _SHARE.set(_Share(weight, total))
    try:
        yield
    finally:
        _SHARE.reset(token)


def normaliser(count: Tensor | int, least: float = 1) -> Tensor | float:
    """What a sum over this process's part is divided by: the `count` of the batch, at least `least`, times the share.

    All processes must call it equally often. Where nothing is shared it is the larger of `count` and `least`.
    """
    share = _SHARE.get()
    if share is not None:  # a process without a picture has no loss to divide
        return max(least, share.total([float(count)])[0]) * share.weight or 1.0
    return count.clamp(min=least) if isinstance(count, Tensor) else max(least, count)


def of_whole(sums: Tensor) -> Tensor:
    """Sums over this process's part, of any shape -> over the batch; what flows back is for this part alone.

    A loss of them is the same in all processes. All must call it equally often.
    """
    share = _SHARE.get()
    if share is None:
        return sums
    totals = sums.new_tensor(share.total(sums.flatten().tolist())).reshape(sums.shape)
    return totals + (sums - sums.detach()) / (share.weight or 1.0)
