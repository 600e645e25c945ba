"""Every backbone by its name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path

from detseg.backbones.spec import Backbone, BackboneError

# listed, not asked for: torchvision takes seconds to import
TORCHVISION_FAMILIES: dict[str, tuple[str, ...]] = {
    "AlexNet": ("alexnet",),
    "VGG": tuple(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    "GoogLeNet": ("googlenet",),
    "Inception": ("inception_v3",),
    "ResNet": ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    "Wide ResNet": ("wide_resnet50_2", "wide_resnet101_2"),
    "ResNeXt": ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    "DenseNet": ("densenet121", "densenet161", "densenet169", "densenet201"),
    "SqueezeNet": ("squeezenet1_0", "squeezenet1_1"),
    "MobileNet": ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
    "MNASNet": ("mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"),
    "ShuffleNet": tuple(f"shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0")),
    "EfficientNet": tuple(f"efficientnet_{size}" for size in (*(f"b{i}" for i in range(8)), "v2_s", "v2_m", "v2_l")),
    "RegNet": (
        *(f"regnet_x_{size}" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")),
        *(f"regnet_y_{size}" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf", "128gf")),
    ),
    "ConvNeXt": ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large"),
    "Swin": ("swin_t", "swin_s", "swin_b", "swin_v2_t", "swin_v2_s", "swin_v2_b"),
}
_TIMM = "timm:"


def build_backbone(
    name: str,
    *,
    strides: Sequence[int] = (8, 16, 32),
    weights: str | Path | None = None,
    freeze_stages: int = 0,
    freeze_bn: bool = False,
    dilate: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Backbone:
    """The network called `name` (see `names`, or "timm:NAME") with features at `strides`.

    `weights`: None for random ones, "imagenet", or a file (.safetensors, .pth). `dilate`: the output
    stride, 16 or 8; deeper stages keep its resolution and dilate instead, `strides` go on naming the
    undilated ones. `progress` hears of a download: bytes so far, bytes in all if known. Raises
    BackboneError (a ValueError) for an unknown name, stride or dilation, WeightsError for weights that
    cannot be had or do not fit.
    """
    backbone: Backbone
    if name == "efficientnet_lite0":
        from detseg.backbones.efficientnet_lite import EfficientNetLite0

        backbone = EfficientNetLite0(strides, dilate=dilate, weights=weights)
    elif name.startswith(_TIMM):
        from detseg.backbones.timm_zoo import TimmBackbone

        backbone = TimmBackbone(name.removeprefix(_TIMM), strides, weights=weights, dilate=dilate)
    elif name in names():
        from detseg.backbones.torchvision_zoo import TorchvisionBackbone

        backbone = TorchvisionBackbone(name, strides, weights=weights, dilate=dilate, progress=progress)
    else:
        raise BackboneError(_unknown(name))
    backbone.freeze(freeze_stages)
    if freeze_bn:
        backbone.freeze_batch_norm()
    return backbone


def names() -> list[str]:
    """All names, sorted; besides them every "timm:NAME" that the timm installed here can take apart."""
    return sorted(["efficientnet_lite0", *(name for family in TORCHVISION_FAMILIES.values() for name in family)])


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, names(), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "or timm:NAME for one of timm's"
    return f"no backbone is called {name!r}; {hint}"
