"""What losses of label maps ask of the probabilities, made a piece of the pixels at a time, forth and back.

Probabilities of K classes for every pixel of a batch are the largest thing in a training step; written as ordinary
operations, a loss makes several such tensors, and on a CPU fetching their memory takes longer than the arithmetic.
Here a piece stays in the processor's cache, and what is kept for the way back is the logits alone.

Shapes: P pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from detseg.parts.label_maps import IGNORE, LabelMaps

_ON_CPU = 8192  # pixels of a piece: of 21 classes 0.7 MB
_ELSEWHERE = 1 << 22  # a GPU has no such cache, and wants much at once


class SoftRegions(NamedTuple):
    """Of the pixels of a batch, in single precision or better.

    right (N, H, W): log of the probability of the right class; 0 where the pixel is IGNORE. Of each class (K,), summed
    over the pixels that count: `found` p, `true` the truth, `both` p where the truth is, `squared` p^2.
    """

    right: Tensor
    found: Tensor
    true: Tensor
    both: Tensor
    squared: Tensor

    @classmethod
    def of(cls, logits: Tensor, truth: LabelMaps) -> SoftRegions:
        """Of logits (N, K, H, W)."""
        classes = logits.shape[1]
        rows = logits.permute(0, 2, 3, 1).reshape(-1, classes)  # a view, where memory is channels-last
        labels = truth.labels.reshape(-1)
        counted = labels != IGNORE
        labels = labels.where(counted, 0)
        right, found, both, squared = _Sums.apply(rows, labels, counted)
        true = torch.bincount(labels[counted], minlength=classes).to(found.dtype)
        return cls(right.reshape(truth.labels.shape), found, true, both, squared)


class _Sums(torch.autograd.Function):
    """Logits (P, K), labels (P,) and which of them count -> right (P,), found, both and squared (K,)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, counted: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        right = logits.new_empty(len(logits), dtype=dtype)
        found, both, squared = logits.new_zeros(3, logits.shape[1], dtype=torch.float64)
        with torch.autocast(logits.device.type, enabled=False):
            for piece in _pieces(logits):
                weights = counted[piece].to(dtype)
                logs = logits[piece].to(dtype).log_softmax(dim=1)
                right[piece] = logs.gather(1, labels[piece, None])[:, 0] * weights
                p = logs.exp_()
                found += weights @ p
                squared += weights @ p.square_()
        both.index_add_(0, labels, (right.exp() * counted).double())
        ctx.save_for_backward(logits, labels, counted, right)
        return right, found.to(dtype), both.to(dtype), squared.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """By p' = p (1 - p) and the like: of log p_k the gradient is g_k, of the logits g_k - p_k sum_j g_j."""
        logits, labels, counted, right = ctx.saved_tensors
        of_right, of_found, of_both, of_squared = gradients
        of_right = (of_right + of_both[labels] * right.exp()) * counted
        made = torch.empty_like(logits)
        with torch.autocast(logits.device.type, enabled=False):
            for piece in _pieces(logits):
                p = logits[piece].to(right.dtype).softmax(dim=1)
                of_logs = p * (2 * of_squared) + of_found  # of p
                of_logs *= p
                of_logs *= counted[piece, None]
                of_logs.scatter_add_(1, labels[piece, None], of_right[piece, None])
                made[piece] = of_logs - p * of_logs.sum(dim=1, keepdim=True)
        return made, None, None


def _pieces(logits: Tensor) -> Iterator[slice]:
    size = _ON_CPU if logits.device.type == "cpu" else _ELSEWHERE
    return (slice(first, first + size) for first in range(0, len(logits), size))
