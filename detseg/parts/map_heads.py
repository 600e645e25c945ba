"""Layers that segmenters share: from a map of features to a map of scores.

(N, C, h, w) in, the same h and w out.
"""

from __future__ import annotations

from torch import nn

from detseg.parts.norms import BatchNorm


def conv_norm(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution that keeps the map's size, batch norm, ReLU."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, groups=groups, bias=False),
        BatchNorm(outputs),
        nn.ReLU(inplace=True),
    )


def separable(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """A filter for each channel, then 1x1 across channels, each with batch norm and ReLU.

    With dilation it is the atrous separable convolution of L.-C. Chen et al. 2018, arXiv 1802.02611, sec. 3.1.
    """
    return nn.Sequential(
        *conv_norm(inputs, inputs, kernel, dilation, groups=inputs),
        *conv_norm(inputs, outputs),
    )


def score_head(channels: int, classes: int, dropout: float) -> nn.Sequential:
    """3x3 convolution to a quarter of the channels, dropout, scores: the head of torchvision's FCN."""
    width = channels // 4
    return nn.Sequential(*conv_norm(channels, width, 3), nn.Dropout(dropout), nn.Conv2d(width, classes, 1))


def initialise(*modules: nn.Module) -> None:
    """Convolutions in front of a ReLU keep the variance of what they see (He et al. 2015), scores start near zero.

    The former have no bias, as batch norm has one; the latter have.
    """
    for layer in (layer for module in modules for layer in module.modules()):
        if isinstance(layer, nn.Conv2d):
            if layer.bias is None:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
