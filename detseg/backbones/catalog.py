"""Every backbone by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detseg.backbones.spec import Backbone


def build_backbone(
    name: str,
    *,
    strides: Sequence[int] = (8, 16, 32),
    weights: str | Path | None = None,
    freeze_stages: int = 0,
    freeze_bn: bool = False,
    dilate: int | None = None,
) -> Backbone:
    """The network called `name` with features at `strides`.

    `weights`: None for random ones, "imagenet", or a file. `dilate`: the output stride, 16 or 8; deeper stages keep
    its resolution and dilate instead (`strides` go on naming the undilated ones). Raises ValueError for an unknown
    name or a stride that the network lacks, WeightsError for weights that cannot be had or do not fit.
    """
    if name != "efficientnet_lite0":
        raise ValueError(f"no backbone is called {name!r}")
    from detseg.backbones import efficientnet_lite

    backbone = efficientnet_lite.EfficientNetLite0(strides, dilate)
    if weights is not None:
        efficientnet_lite.load_imagenet(backbone, None if weights == "imagenet" else Path(weights))
    if freeze_stages:
        backbone.freeze(freeze_stages)
    if freeze_bn:
        backbone.freeze_batch_norm()
    return backbone


def names() -> list[str]:
    """All names, sorted."""
    return ["efficientnet_lite0"]
