"""torchvision's classification networks as backbones: each a chain of modules, cut where its stride grows.

Names and weights are torchvision's. Strides and channels are measured, not declared: the chain is run once
without data ("meta" tensors). Left out of every chain: pooling, classifier, auxiliary heads and the 1x1
convolution that widens the last map for the classifier alone (MobileNet, EfficientNet, MNASNet,
ShuffleNet), unless `head_conv`.
"""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from detseg.backbones import pretrained
from detseg.backbones.dilation import dilate as dilate_net
from detseg.backbones.spec import (
    Backbone,
    BackboneError,
    FeatureSpec,
    Stage,
    choose_strides,
    stage_index,
    times_255,
)

_NOT_IN_CHAIN = {
    *("avgpool", "classifier", "fc", "dropout", "head", "norm", "permute", "flatten"),
    *("aux1", "aux2", "AuxLogits"),
}
_OPENED = {"features", "layers", "trunk_output"}  # sequences whose members are links of the chain themselves
_HEAD_LINKS = {"MobileNetV2": 1, "MobileNetV3": 1, "EfficientNet": 1, "MNASNet": 3, "ShuffleNetV2": 1}
_PROBE = 4096  # pixels: long enough for unpadded networks to show their stride


class TorchvisionBackbone(Backbone):
    """The network called `name` in torchvision, with features at `strides` and nothing deeper.

    `dilate` (16 or 8) is the output stride: deeper stages keep its resolution and dilate instead; `strides`
    go on naming the undilated ones. `head_conv` keeps the last widening convolution. `weights`: None,
    "imagenet" (the first set that torchvision published), another set by torchvision's name such as
    "IMAGENET1K_V2", or a file.
    """

    def __init__(
        self,
        name: str,
        strides: Sequence[int] = (8, 16, 32),
        *,
        weights: str | Path | None = None,
        dilate: int | None = None,
        head_conv: bool = False,
        progress: pretrained.Progress | None = None,
    ) -> None:
        super().__init__()
        net = _random_net(name)
        kind = type(net).__name__
        self._channels_last = kind == "SwinTransformer"
        # torchvision maps ImageNet's normalisation to this one inside these two
        self._own_normalisation = kind in ("GoogLeNet", "Inception3")
        if self._own_normalisation:
            self.mean = self.std = (127.5, 127.5, 127.5)
        links = _links(net)
        links = links if head_conv else links[: len(links) - _HEAD_LINKS.get(kind, 0)]
        measured = _measure(net, links, self._channels_last)
        self._choose(name, strides, links, measured)
        self._full_names = frozenset(net.state_dict())
        self.net = _cut(net, self._links)
        if weights is not None:
            self._load(name, weights, progress)
        if dilate is not None:
            measured = self._dilate(name, dilate, measured.inputs)
        self.features = self._specs(measured)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> one map per spec."""
        x, maps = images, []
        for name in self._links:
            x = self.net.get_submodule(name)(x)
            if name in self._taps:
                maps.append(x.permute(0, 3, 1, 2) if self._channels_last else x)
        return maps

    def stages(self) -> list[Stage]:
        """Stem first; see `Backbone.stages`."""
        stages: list[Stage] = []
        for _, group in itertools.groupby(self._links, self._stage_of.__getitem__):
            stages.append([self.net.get_submodule(name) for name in group])
        return stages

    def _choose(self, name: str, strides: Sequence[int], links: list[str], measured: _Measured) -> None:
        """Settles which links are needed, which give features, and to which stage each belongs."""
        nominal = dict(zip(links, (_nominal(shape) for shape in measured.outputs), strict=True))
        last_at = {stride: link for link, stride in nominal.items()}
        chosen = choose_strides(name, sorted(last_at), strides)
        self._taps = tuple(last_at[stride] for stride in chosen)
        self._links = links[: links.index(self._taps[-1]) + 1]
        self._stage_of = {link: stage_index(nominal[link]) if i else 0 for i, link in enumerate(self._links)}

    def _measure(self) -> _Measured:
        return _measure(self.net, self._links, self._channels_last)

    def _specs(self, measured: _Measured) -> tuple[FeatureSpec, ...]:
        shapes = dict(zip(self._links, measured.outputs, strict=False))  # of links that were cut off, too
        return tuple(FeatureSpec(shapes[tap][0], _nominal(shapes[tap])) for tap in self._taps)

    def _dilate(self, name: str, output_stride: int, input_strides: dict[str, int]) -> _Measured:
        """Keeps the resolution; the network measured anew."""
        if output_stride not in (8, 16):
            raise BackboneError(f"{name}: dilation gives output stride 16 or 8, not {output_stride}")
        own = {path for path, _ in self.net.named_modules()}
        dilate_net(self.net, {p: s for p, s in input_strides.items() if p in own}, output_stride)
        measured: _Measured | None
        try:
            measured = self._measure()
        except RuntimeError:  # branches that no longer agree in size
            measured = None
        if measured is None or max(map(_nominal, measured.outputs)) > output_stride:
            raise BackboneError(f"{name} cannot be dilated: part of its steps are not convolutions or poolings")
        return measured

    def _load(self, name: str, weights: str | Path, progress: pretrained.Progress | None) -> None:
        published = _published(name)
        if weights == "imagenet" or weights in published:
            chosen = next(iter(published.values())) if weights == "imagenet" else published[str(weights)]
            if not self._own_normalisation:
                preset = chosen.transforms()
                self.mean, self.std = times_255(preset.mean), times_255(preset.std)
            weights = pretrained.fetch(chosen.url, progress=progress)
        tensors = pretrained.read_tensors(weights)
        # DenseNet's files are older than the rule that module names have no dots
        tensors = {re.sub(r"(denselayer\d+\.[a-z]+)\.([12])\.", r"\1\2.", k): v for k, v in tensors.items()}
        if not any(key.startswith("net.") for key in tensors):
            tensors = {f"net.{key}": value for key, value in tensors.items()}
        unused = {f"net.{key}" for key in self._full_names} | {f"net.{part}." for part in _NOT_IN_CHAIN}
        pretrained.fill(self, self._fitting(tensors), weights, unused)

    def _fitting(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A weight file's tensors as this network wants them; a network that is more than the chain adds to them."""
        return tensors


class _Measured(NamedTuple):
    outputs: list[tuple[int, int]]  # per link: channels, side of the map
    inputs: dict[str, int]  # per convolution and pooling by name: nominal stride of its input


def _random_net(name: str) -> nn.Module:
    from torchvision import models

    # these two would spend half a minute on an initialisation that SciPy once gave
    quick: dict[str, Any] = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}
    options = {"aux_logits": False, **quick[name]} if name in quick else {}
    return models.get_model(name, weights=None, **options)


def _published(name: str) -> dict[str, Any]:
    from torchvision import models

    return {member.name: member for member in models.get_model_weights(name)}


def _links(net: nn.Module) -> list[str]:
    names: list[str] = []
    for name, child in net.named_children():
        if name in _OPENED:
            names += [f"{name}.{member}" for member, _ in child.named_children()]
        elif name not in _NOT_IN_CHAIN:
            names.append(name)
    return names


def _cut(net: nn.Module, links: Sequence[str]) -> nn.Module:
    """The links alone, under their old names, without the class that held them.

    That class may load old files in its own way (MNASNet), which would be in the way of plain tensors.
    """
    trunk = nn.Module()
    for name, child in net.named_children():
        if name in links:
            trunk.add_module(name, child)
        elif any(link.startswith(f"{name}.") for link in links):
            members = [(n, member) for n, member in child.named_children() if f"{name}.{n}" in links]
            trunk.add_module(name, nn.Sequential(OrderedDict(members)))
    return trunk


def _measure(net: nn.Module, links: Sequence[str], channels_last: bool) -> _Measured:
    """Runs the chain without data; the network itself is not touched."""
    twin = _without_data(net).eval()
    inputs: dict[str, int] = {}
    for name, module in twin.named_modules():
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
            module.register_forward_pre_hook(
                lambda _, args, name=name: inputs.__setitem__(name, _nominal(tuple(args[0].shape[1:])))
            )
    x = torch.zeros(1, 3, _PROBE, _PROBE, device="meta")
    outputs = []
    with torch.no_grad():
        for name in links:
            x = twin.get_submodule(name)(x)
            outputs.append((x.shape[-1], x.shape[1]) if channels_last else (x.shape[1], x.shape[2]))
    return _Measured(outputs, inputs)


def _without_data(net: nn.Module) -> nn.Module:
    """A copy on the meta device; the weights are not copied on the way."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in net.parameters()}
    memo |= {id(b): b.to("meta") for b in net.buffers()}
    return copy.deepcopy(net, memo)


def _nominal(shape: Sequence[int]) -> int:
    """Stride as the power of two nearest to what was measured."""
    return 2 ** round(math.log2(_PROBE / shape[1]))
