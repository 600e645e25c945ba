"""timm's networks as backbones: timm:seresnet50, timm:mobilenetv1_100, timm:inception_v4 and the like."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from detseg.backbones import pretrained
from detseg.backbones.spec import (
    Backbone,
    BackboneError,
    FeatureSpec,
    Stage,
    choose_strides,
    stage_index,
    times_255,
)
from detseg.errors import WeightsError


class TimmBackbone(Backbone):
    """The network that timm calls `name`, with features at `strides`.

    `weights`: None, "imagenet" (what timm has for the name, usually ImageNet; timm downloads it), or a file
    of the whole network. `dilate` is the output stride where timm can give the network one.
    """

    def __init__(
        self,
        name: str,
        strides: Sequence[int] = (8, 16, 32),
        *,
        weights: str | Path | None = None,
        dilate: int | None = None,
    ) -> None:
        super().__init__()
        self._name = name
        available = _info(_features(name)).reduction()
        chosen = choose_strides(f"timm:{name}", sorted(set(available)), strides)
        last_at = {stride: index for index, stride in enumerate(available)}
        options: dict[str, Any] = {"out_indices": tuple(last_at[stride] for stride in chosen)}
        if dilate is not None:
            options["output_stride"] = dilate
        self.net = _features(name, **options, **_weight_options(name, weights))
        info = _info(self.net)
        if dilate is not None and max(info.reduction()) > dilate:
            raise BackboneError(f"timm:{name} cannot be dilated to output stride {dilate}")
        self.features = tuple(map(FeatureSpec, info.channels(), info.reduction()))
        self._channels_last = str(getattr(self.net, "output_fmt", "NCHW")).endswith("NHWC")
        settings = _timm().get_pretrained_cfg(name)
        if settings is not None:
            self.mean, self.std = times_255(settings.mean), times_255(settings.std)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> one map per spec."""
        maps = self.net(images)
        return [x.permute(0, 3, 1, 2) for x in maps] if self._channels_last else list(maps)

    def stages(self) -> list[Stage]:
        """Stem first; see `Backbone.stages`. BackboneError for a network that is not a plain chain."""
        info = _info(self.net)
        ends = {entry["module"].replace(".", "_"): int(entry["reduction"]) for entry in info.info}
        links = list(_links(self.net, ends))
        if not {name.replace(".", "_") for name in info.module_name()} <= {name for name, _ in links}:
            raise BackboneError(f"timm:{self._name} cannot be taken apart into stages, so none can be frozen")
        stages: dict[int, list[nn.Module]] = {}
        strides = iter(ends.values())
        stride = next(strides)
        for position, (name, module) in enumerate(links):
            stages.setdefault(stage_index(stride) if position else 0, []).append(module)
            if name in ends:
                stride = next(strides, stride)
        return list(stages.values())


def _links(net: nn.Module, ends: Collection[str]) -> Iterator[tuple[str, nn.Module]]:
    """The chain's modules, named with underscores; a sequence is opened unless it ends a stage itself."""
    for name, child in net.named_children():
        if isinstance(child, nn.Sequential) and name not in ends:
            yield from ((f"{name}_{member}", module) for member, module in child.named_children())
        else:
            yield name, child


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise BackboneError("timm is not installed; get it with: pip install detseg[timm]") from error
    return timm.models


def _info(net: nn.Module) -> Any:
    return net.feature_info


def _features(name: str, **options: Any) -> nn.Module:
    timm = _timm()
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(f'timm:{other}' for other in close)}?" if close else ""
        raise BackboneError(f"timm has no network called {name!r}{hint}")
    try:
        return timm.create_model(name, features_only=True, **options)
    except WeightsError:
        raise
    except Exception as error:  # timm fails in many ways: no features, no weights, no network, no such option
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        if options.get("pretrained"):
            remedy = "download it on a machine that has a network and give its file instead of 'imagenet'"
            raise WeightsError(f"timm:{name}: its weights cannot be had ({cause}); {remedy}") from error
        raise BackboneError(f"timm:{name} cannot be a backbone with these options: {cause}") from error


def _weight_options(name: str, weights: str | Path | None) -> dict[str, Any]:
    if weights is None:
        return {}
    if weights == "imagenet":
        return {"pretrained": True}
    tensors = pretrained.read_tensors(weights)
    whole = _timm().create_model(name)
    pretrained.fill(whole, tensors, weights)
    return {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": tensors}}
