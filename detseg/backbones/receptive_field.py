"""What each cell of a network's map sees of the picture, read off the network itself as it runs without data.

A cell whose field lies inside a picture has seen no padding. Therefore it has the same value in every larger picture
that shows the same pixels there, which is what a window cut out of a picture and the same window of a map rest on
(P. Sermanet et al.: OverFeat, 2014, arXiv 1312.6229, sec. 3.5; J. Long et al.: Fully Convolutional Networks, 2015,
arXiv 1411.4038, sec. 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from detseg.backbones.spec import Backbone, BackboneError

_PROBE = 1024  # pixels: networks that pad by the size of what they get are at rest with multiples of their stride
# operations that give each place what was made from that place alone (in-place ones end in _)
_LOCAL = {
    *("relu", "hardtanh", "hardswish", "hardsigmoid", "silu", "gelu", "elu", "leaky_relu", "sigmoid", "tanh", "clamp"),
    *("add", "sub", "mul", "div", "cat", "split", "split_with_sizes", "chunk", "clone", "detach", "alias"),
    *("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"),
    *("_batch_norm_no_update", "_batch_norm_with_update", "native_dropout", "dropout", "_to_copy", "prelu"),
}
_LAID_OUT = {"view", "_unsafe_view", "transpose", "permute", "slice", "select", "unsqueeze", "reshape"}


@dataclass(frozen=True)
class Field:
    """Along one axis: cell i sees the pixels `step * i + first` to `step * i + last`, both included."""

    step: int = 1
    first: int = 0
    last: int = 0

    def through(self, kernel: int, stride: int, before: int, dilation: int = 1) -> Field:
        """After a convolution or pooling that puts `before` cells of padding in front."""
        start = self.first - self.step * before
        return Field(self.step * stride, start, self.last - self.step * before + self.step * dilation * (kernel - 1))

    def joined(self, other: Field) -> Field:
        """What both see together. Raises ValueError when their steps differ."""
        if self.step != other.step:
            raise ValueError(f"maps of steps {self.step} and {other.step} are put together")
        return Field(self.step, min(self.first, other.first), max(self.last, other.last))

    def inside(self, pixels: int) -> range:
        """The cells that see nothing but the `pixels` of a picture that long; none where it is too short."""
        first, last = -(self.first // self.step), (pixels - 1 - self.last) // self.step
        return range(first, max(first, last + 1))

    def side(self, cells: int) -> int:
        """The least length, a multiple of the step, that holds `cells` such cells."""
        return -(-(self.step * (self.inside(0).start + cells - 1) + self.last + 1) // self.step) * self.step


def receptive_field(backbone: Backbone, name: str) -> tuple[Field, ...]:
    """For each map of `backbone` what a cell sees along either axis, where frames are multiples of its stride.

    Raises BackboneError, naming the operation, for a network in which no cell sees only a part of the picture
    (squeeze-and-excitation, attention) or that cannot be followed.
    """
    tensors = {n: t.to("meta") for n, t in (*backbone.named_parameters(), *backbone.named_buffers())}
    image = torch.zeros(1, 3, _PROBE, _PROBE, device="meta")
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad(), _Follower(image, name) as follower:
            maps = functional_call(backbone, tensors, (image,))
    finally:
        backbone.train(training)
    return tuple(follower.of(x) for x in maps)


class _Follower(TorchDispatchMode):
    """Notes for every tensor made from the image what its cells see."""

    def __init__(self, image: Tensor, name: str) -> None:
        super().__init__()
        self._name = name
        # the tensors are kept, so that no id is given again
        self._fields: dict[int, tuple[Tensor, Field, Field]] = {id(image): (image, Field(), Field())}

    def of(self, tensor: Tensor) -> Field:
        """What the cells of `tensor` see, by either axis."""
        _, rows, columns = self._fields[id(tensor)]
        if rows != columns:
            raise BackboneError(f"{self._name} sees more along one side than along the other; it cannot judge windows")
        return rows

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        known = [self._fields[id(t)] for t in tree_leaves((args, kwargs)) if id(t) in self._fields]
        if known:
            rows, columns = self._after(func, args, known, answer)
            for made in tree_leaves(answer):
                if isinstance(made, Tensor):
                    self._fields[id(made)] = (made, rows, columns)
        return answer

    def _after(
        self, func: Any, args: Sequence[Any], known: Sequence[tuple[Tensor, Field, Field]], answer: Any
    ) -> tuple[Field, Field]:
        operation = func.overloadpacket.__name__.removesuffix("_")
        before, rows, columns = known[0]
        if operation == "convolution" and not args[6]:
            kernel, stride, padding, dilation = args[1].shape[2:], args[3], args[4], args[5]
        elif operation in ("max_pool2d_with_indices", "avg_pool2d"):
            kernel, stride, padding, dilation = _pooling(args, operation)
        elif operation == "constant_pad_nd":
            kernel, stride, padding, dilation = (1, 1), (1, 1), (args[1][2], args[1][0]), (1, 1)
        elif operation in _LOCAL | _LAID_OUT and _same_place(before, answer):
            return self._together(known)
        else:
            raise BackboneError(
                f"{self._name} has an operation, {operation}, that sees more than a part of the picture or cannot be "
                "followed; windows need a network of convolutions and poolings, such as efficientnet_lite0 or resnet18"
            )
        after = zip((rows, columns), _pair(kernel), _pair(stride), _pair(padding), _pair(dilation), strict=True)
        down, across = (field.through(k, s, p, d) for field, k, s, p, d in after)
        return down, across

    def _together(self, known: Sequence[tuple[Tensor, Field, Field]]) -> tuple[Field, Field]:
        _, rows, columns = known[0]
        try:
            for _, other_rows, other_columns in known[1:]:
                rows, columns = rows.joined(other_rows), columns.joined(other_columns)
        except ValueError as error:
            raise BackboneError(f"{self._name}: {error}; it cannot judge windows") from error
        return rows, columns


def _pooling(args: Sequence[Any], operation: str) -> tuple[Any, Any, Any, Any]:
    kernel = args[1]
    stride = args[2] if len(args) > 2 and args[2] else kernel
    dilation = args[4] if operation.startswith("max") and len(args) > 4 else 1
    return kernel, stride, args[3] if len(args) > 3 else 0, dilation


def _pair(value: Any) -> tuple[int, int]:
    values = [value, value] if isinstance(value, int) else [int(v) for v in value]
    return values[0], values[-1]


def _same_place(before: Tensor, answer: Any) -> bool:
    """Whether rows and columns still are the last two sides."""
    made = [t for t in tree_leaves(answer) if isinstance(t, Tensor)]
    return bool(made) and made[0].shape[-2:] == before.shape[-2:]
