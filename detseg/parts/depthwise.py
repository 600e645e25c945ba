"""Depthwise convolutions whose gradients are quick on a CPU: a filter for every channel, as in MobileNet.

What PyTorch's kernels do there is uneven. The gradient of what goes in is slow where the filter is dilated, though it
is a convolution with the turned filter, which is not. The gradient of the filter is many times slower in bfloat16 than
in single precision. So each is computed in the way that is quick; the numbers are the same but for rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise `nn.Conv2d` with zeros for padding; only its gradients on a CPU are made otherwise."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolve(input, weight, bias, self.stride, self.padding, self.dilation, self.groups)


def convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Tensor:
    """`F.conv2d` with a filter for each channel; strides, paddings and dilations are pairs."""
    if not (torch.is_grad_enabled() and weight.requires_grad and input.device.type == "cpu"):
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        input, weight = input.to(dtype), weight.to(dtype)
    found: Tensor = _Depthwise.apply(input, weight, _Steps(stride, padding, dilation))
    return found if bias is None else found + bias.to(found.dtype)[:, None, None]


def quicken(model: nn.Module) -> None:
    """Turns the depthwise convolutions of a model into such; their tensors and names stay.

    Also those with a `forward` of their own that leaves the rest to their attribute `convolve`.
    """
    layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    for layer in layers:
        if not 1 < layer.groups == layer.in_channels == layer.out_channels:
            continue
        if hasattr(layer, "convolve"):
            layer.convolve = convolve
        elif type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            layer.__class__ = DepthwiseConv2d  # whoever else knows the layer keeps knowing it


class _Steps(NamedTuple):
    """How the filter goes over a map, down and across."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, steps: _Steps) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.steps = steps
        return F.conv2d(images, weight, None, *steps, len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (images, weight) = grads, ctx.saved_tensors
        of_images = _of_images(grad, images, weight, ctx.steps) if ctx.needs_input_grad[0] else None
        of_weight = None
        if ctx.needs_input_grad[1]:
            wide = torch.promote_types(weight.dtype, torch.float32)
            found = _native(grad.to(wide), images.to(wide), weight.to(wide), ctx.steps, wanted=1)
            of_weight = found.to(weight.dtype)
        return of_images, of_weight, None


def _of_images(grad: Tensor, images: Tensor, weight: Tensor, steps: _Steps) -> Tensor:
    """The gradient of what went in."""
    reach = [d * (k - 1) for d, k in zip(steps.dilation, weight.shape[2:], strict=True)]
    back = [r - p for r, p in zip(reach, steps.padding, strict=True)]
    if max(steps.stride) > 1 or min(back) < 0:
        return _native(grad, images, weight, steps, wanted=0)
    return F.conv2d(grad, weight.flip(2, 3), None, 1, back, steps.dilation, len(weight))


def _native(grad: Tensor, images: Tensor, weight: Tensor, steps: _Steps, *, wanted: int) -> Tensor:
    """PyTorch's own gradient: 0 of what went in, 1 of the filter."""
    mask = [wanted == 0, wanted == 1, False]
    gradients = torch.ops.aten.convolution_backward(
        grad, images, weight, None, *steps, False, [0, 0], len(weight), mask
    )
    found: Tensor = gradients[wanted]
    return found
