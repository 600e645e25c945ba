"""timm's networks as backbones: timm:seresnet50, timm:mobilenetv1_100, timm:inception_v4 and the like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from detseg.backbones import pretrained
from detseg.backbones.spec import Backbone, BackboneError, FeatureSpec, Stage, choose_strides
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
            self.mean, self.std = _times_255(settings.mean), _times_255(settings.std)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> one map per spec."""
        maps = self.net(images)
        return [x.permute(0, 3, 1, 2) for x in maps] if self._channels_last else list(maps)

    def stages(self) -> list[Stage]:
        """One per feature asked for, the first from the image on; timm does not tell what lies between.

        Raises BackboneError for a network that is not a plain chain of modules.
        """
        ends = [name.replace(".", "_") for name in _info(self.net).module_name()]
        stages: list[Stage] = []
        stage: list[nn.Module] = []
        for name, module in _links(self.net):
            stage.append(module)
            if name.replace(".", "_") in ends:
                stages.append(stage)
                stage = []
        if len(stages) != len(ends):
            raise BackboneError(
                f"timm:{self._name} cannot be taken apart into stages; freeze none or all of it"
            )
        return stages


def _links(net: nn.Module) -> list[tuple[str, nn.Module]]:
    links: list[tuple[str, nn.Module]] = []
    for name, child in net.named_children():
        if isinstance(child, nn.Sequential):
            links += [(f"{name}.{member}", module) for member, module in child.named_children()]
        else:
            links.append((name, child))
    return links


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
        close = timm.list_models(f"*{name}*")[:3]
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


def _times_255(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (round(255 * value, 4) for value in values)
    return red, green, blue
