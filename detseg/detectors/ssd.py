"""SSD and SSDLite: one network, default boxes on maps of many scales, no proposals.

W. Liu, D. Anguelov, D. Erhan, C. Szegedy, S. Reed, C.-Y. Fu, A. Berg: SSD: Single Shot MultiBox Detector, 2016,
arXiv 1512.02325 ("SSD");
M. Sandler, A. Howard, M. Zhu, A. Zhmoginov, L.-C. Chen: MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018,
arXiv 1801.04381 ("V2", section 6.2: SSDLite); A. Howard et al.: Searching for MobileNetV3, 2019, arXiv 1905.02244
("V3", section 6.3).

    paper                                              here
    SSD sec. 2.1, maps of many scales, fig. 2          `SSD.maps`: the backbone's, then one per `Extra`
    SSD sec. 2.1, convolutional predictors             `Predictor`
    SSD sec. 2.2, default boxes, eq. 4                 `parts.default_boxes`, `SSDConfig.scales`, `.aspect_ratios`
    SSD sec. 2.2, matching                             `parts.matcher`, forced="best"
    SSD sec. 2.2, objective, eq. 1 to 3                `SSD.losses`, `parts.box_coder`
    SSD sec. 2.2, hard negative mining                 `parts.hard_negatives`
    SSD sec. 2.2 and 3.6, data augmentation            `augment.patches`
    SSD sec. 3.1, base network, fc6 and fc7, L2Norm    `VGGTail`; other backbones: `Levelled`
    V2 sec. 6.2, separable predictors                  `Predictor`, `extra_layers` with `lite`
    V2 sec. 6.2 and V3 sec. 6.3, first map             `ExpandedMobileNet`

Differences from the papers:
- Any backbone of the shared module. What L2Norm does for VGG, batch norm does for others: their maps are brought to
  `width` channels of like strength, and the extra layers have batch norm, too.
- `top_down`: deeper maps are added to the finer ones, so that these know what the small things belong to (C.-Y. Fu et
  al.: DSSD, 2017, arXiv 1701.06659, made light; Lin et al. 2017, FPN).
- `sizes`: default boxes from clusters of the training boxes, each on the map whose cells suit its size.
- Crowds and difficult objects are ignored: default boxes that lie in them are neither positive nor negative.

Shapes: N pictures, P default boxes over all maps, K classes (logits have 1 + K: background first), A boxes a cell,
(R, C) rows and columns of a map, T truths. Boxes are xyxy pixels of the network's frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detseg import catalog
from detseg.backbones.catalog import build_backbone
from detseg.backbones.spec import Backbone, FeatureSpec, Stage
from detseg.checkpoints import Card
from detseg.checkpoints.torchvision_ssd import read_torchvision_ssd
from detseg.detectors.contract import Detector, Target
from detseg.errors import DetsegError
from detseg.parts.batch_share import normaliser
from detseg.parts.box_coder import BoxCoder
from detseg.parts.class_rows import ClassRows
from detseg.parts.default_boxes import Shapes, default_boxes, shapes_of
from detseg.parts.hard_negatives import hard_negatives
from detseg.parts.matcher import BACKGROUND, UNDECIDED, Matcher
from detseg.parts.norms import BatchNorm
from detseg.parts.overlaps import inside_any, iou
from detseg.results import RawDetections

CELLS_PER_BOX = 4.0  # sides of a map's cells in that of its smallest box: 30 pixels at stride 8, 60 at 16 in SSD300


class Extra(NamedTuple):
    """An extra map's layers: 1x1 to `middle` channels, then `kernel` to `channels` with `stride` and `padding`."""

    middle: int
    channels: int
    kernel: int = 3
    stride: int = 2
    padding: int = 1


@dataclass(frozen=True)
class SSDConfig:
    """What makes an SSD; stored in its checkpoint. The defaults are the paper's numbers, on a light backbone."""

    num_classes: int
    backbone: str = "efficientnet_lite0"
    strides: tuple[int, ...] = (8, 16, 32)  # the backbone's maps; VGG: conv4_3 and conv5_3
    vgg: bool = False  # fc6 and fc7 as convolutions on the last map, L2Norm on the first, sec. 3.1
    width: int = 128  # channels that the backbone's maps are brought to, with batch norm; 0: they are used as they are
    top_down: bool = False  # deeper maps of the backbone are added to the finer ones
    lite: bool = False  # separable predictors and extra layers, V2 sec. 6.2
    reduced_tail: bool = False  # the last blocks of MobileNetV3 at half width, V3 sec. 6.3
    extras: tuple[Extra, ...] = (Extra(256, 512), Extra(128, 256), Extra(128, 256))  # fig. 2, conv8_2 and on
    norm: bool = True  # batch norm in the extra layers; VGG has none
    # a map's scale is its boxes' side, in shares of the frame: 0.1 for the first, then from 0.2 to 0.9 (sec. 2.2, 3.1)
    scales: tuple[float, ...] = (0.1, 0.2, 0.375, 0.55, 0.725, 0.9, 1.075)
    aspect_ratios: tuple[tuple[float, ...], ...] = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))  # and their inverses
    steps: tuple[float, ...] | None = None  # pixels between cells; None: they share out the frame evenly, sec. 2.2
    steps_frame: int = 300  # the side of the frame that `steps` are for; they do not count in any other
    sizes: Shapes | None = None  # (w, h) in pixels for each map, instead of scales and aspect ratios
    variances: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)  # of the authors' program, not in the paper
    match_iou: float = 0.5  # sec. 2.2
    negatives: float = 3.0  # for each positive, sec. 2.2
    box_weight: float = 1.0  # alpha, sec. 2.2

    def __post_init__(self) -> None:
        maps = len(self.strides) + len(self.extras)
        if self.vgg and (not self.backbone.startswith("vgg") or len(self.strides) != 2):
            raise ValueError(f"SSD300 and SSD512 stand on two maps of a VGG, not on {self.backbone}; -m ssd takes any")
        if self.width and self.vgg:
            raise ValueError("VGG's maps are used as they are: width must be 0")
        if self.top_down and not self.width:
            raise ValueError("maps can only be added when a width makes them alike")
        if self.reduced_tail and not (self.lite and self.backbone.startswith("mobilenet_v3")):
            raise ValueError("only SSDLite on MobileNetV3 has a reduced tail")
        if len(self.shapes) != maps:
            raise ValueError(f"{maps} maps need default boxes for as many, got {len(self.shapes)}")
        if self.steps is not None and len(self.steps) != maps:
            raise ValueError(f"{maps} maps need as many steps, got {len(self.steps)}")

    @property
    def shapes(self) -> Shapes:
        """For each map its default boxes' (w, h): `sizes` in pixels, else shares of the frame."""
        return shapes_of(self.scales, self.aspect_ratios) if self.sizes is None else self.sizes


class SSD(Detector):
    """Backbone, extra maps, a predictor for each map that has default boxes. Built by `build`."""

    def __init__(self, config: SSDConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.coder = BoxCoder((*(1 / v for v in config.variances),))  # type: ignore[arg-type]
        self.matcher = Matcher(config.match_iou, config.match_iou, forced="best")
        self.backbone = backbone
        channels = [spec.channels for spec in backbone.features]
        self.tail: nn.Module = nn.Identity()
        if config.vgg:
            self.tail = VGGTail(*channels)
            channels[-1] = VGGTail.CHANNELS
        elif config.width:
            self.tail = Levelled(channels, config.width, config.top_down)
            channels = [config.width] * len(channels)
        self.extras = nn.ModuleList()
        for extra in config.extras:
            self.extras.append(extra_layers(channels[-1], extra, config))
            channels.append(extra.channels)
        self.heads = nn.ModuleList(
            Predictor(c, len(boxes), config.num_classes, config.lite)
            for c, boxes in zip(channels, config.shapes, strict=True)
        )
        for module in (self.tail, self.extras, self.heads):
            _initialise(module, config.lite)

    def class_rows(self) -> dict[str, ClassRows]:
        """Of each default box background, and then one a class."""
        return {
            f"heads.{i}.logits{'.3' if self.config.lite else ''}": ClassRows(len(boxes), shared=1)
            for i, boxes in enumerate(self.config.shapes)
            if len(boxes)
        }

    def maps(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> the maps that are predicted from, finest first."""
        maps: list[Tensor] = self.tail(self.backbone(images))
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 3, H, W) -> deltas (N, P, 4), logits (N, P, 1 + K), default boxes (P, 4)."""
        maps = self.maps(images)
        deltas, logits = zip(*(head(x) for head, x in zip(self.heads, maps, strict=True)), strict=True)
        priors = self.priors(
            [(x.shape[2], x.shape[3]) for x in maps], (images.shape[2], images.shape[3]), images.device
        )
        return torch.cat(deltas, dim=1).float(), torch.cat(logits, dim=1).float(), priors

    def priors(self, grids_rc: list[tuple[int, int]], frame_hw: tuple[int, int], device: torch.device) -> Tensor:
        """(P, 4) the default boxes of maps of these sizes in a frame of this size."""
        config, (height, width) = self.config, frame_hw
        shapes = config.shapes
        if config.sizes is not None:
            shapes = tuple(tuple((w / width, h / height) for w, h in boxes) for boxes in shapes)
        steps = config.steps if frame_hw == (config.steps_frame, config.steps_frame) else None
        return default_boxes(shapes, grids_rc, frame_hw, steps, device)

    def detect(self, images: Tensor) -> RawDetections:
        """Every default box moved to where its object is, cut to the frame; scores without background."""
        deltas, logits, priors = self(images)
        height, width = images.shape[2:]
        boxes = self.coder.decode(deltas, priors)
        x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
        return RawDetections(torch.stack([x, y], dim=-1).flatten(2), logits.softmax(dim=-1)[..., 1:])

    def losses(self, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Smooth L1 of the positives' deltas, cross entropy of positives and hard negatives; per positive (eq. 1).

        Without any positive both are zero.
        """
        deltas, logits, priors = self(images)
        wanted = [self._wanted(priors, target) for target in targets]
        classes = torch.stack([classes for classes, _ in wanted])  # (N, P)
        positive = classes > 0
        count = normaliser(positive.sum())
        box = F.smooth_l1_loss(deltas[positive], torch.cat([goal for _, goal in wanted]), reduction="sum")
        loss = F.cross_entropy(logits.flatten(0, 1), classes.clamp(min=0).flatten(), reduction="none")
        loss = loss.view(classes.shape)
        learnt = positive | hard_negatives(loss, positive, classes == UNDECIDED, self.config.negatives)
        return {"box": self.config.box_weight * box / count, "class": loss[learnt].sum() / count}

    @torch.no_grad()
    def _wanted(self, priors: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """What the default boxes should say of one picture.

        classes (P,): 0 background, 1 + class, or UNDECIDED; deltas of the positives in the order of the boxes.
        """
        boxes, labels = target.boxes[~target.ignored], target.labels[~target.ignored]
        match = self.matcher(iou(boxes, priors))
        in_region = inside_any(priors, target.boxes[target.ignored])
        match = torch.where((match == BACKGROUND) & in_region, UNDECIDED, match)
        positive = match >= 0
        classes = torch.where(match == UNDECIDED, UNDECIDED, 0)
        classes[positive] = labels[match[positive]] + 1
        return classes, self.coder.encode(boxes[match[positive]], priors[positive])


class Predictor(nn.Module):
    """A map's predictions: for each of A boxes in each cell 4 deltas and 1 + K logits. A map without boxes has none."""

    def __init__(self, channels: int, boxes: int, classes: int, lite: bool) -> None:
        super().__init__()
        self.classes = 1 + classes
        self.deltas = _prediction(channels, 4 * boxes, lite)
        self.logits = _prediction(channels, (1 + classes) * boxes, lite)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, R, C) -> (N, R * C * A, 4), (N, R * C * A, 1 + K): row by row, cell by cell."""
        return _by_box(self.deltas(x), 4), _by_box(self.logits(x), self.classes)


def _prediction(channels: int, outputs: int, lite: bool) -> nn.Module:
    if not outputs:
        return _Nothing()
    if not lite:
        return nn.Conv2d(channels, outputs, 3, padding=1)
    return nn.Sequential(*_conv(channels, channels, 3, groups=channels, lite=True), nn.Conv2d(channels, outputs, 1))


def _by_box(x: Tensor, numbers: int) -> Tensor:
    """(N, A * numbers, R, C) -> (N, R * C * A, numbers)."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, numbers)


class _Nothing(nn.Module):
    """The predictions of a map without default boxes."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, R, C) -> (N, 0, R, C)."""
        return x[:, :0]


class VGGTail(nn.Module):
    """What SSD makes of VGG's conv4_3 and conv5_3 (sec. 3.1).

    conv4_3 is brought to length 20 at each place, by a scale per channel that is learnt (L2Norm of Liu et al. 2016,
    ParseNet); pool5 does not step, fc6 is a dilated 3x3 convolution and fc7 a 1x1 one.
    """

    CHANNELS = 1024

    def __init__(self, conv4_channels: int, conv5_channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((conv4_channels,), 20.0))
        self.fc = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1),
            nn.Conv2d(conv5_channels, self.CHANNELS, 3, padding=6, dilation=6),
            nn.ReLU(inplace=True),
            nn.Conv2d(self.CHANNELS, self.CHANNELS, 1),
            nn.ReLU(inplace=True),
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """[conv4_3 (N, 512, R, C), conv5_3] -> the former rescaled, fc7."""
        conv4, conv5 = maps
        return [self.scale[:, None, None] * F.normalize(conv4, dim=1), self.fc(conv5)]


class Levelled(nn.Module):
    """The backbone's maps with `width` channels of like strength each; with `top_down` deeper ones added to finer."""

    def __init__(self, channels: Sequence[int], width: int, top_down: bool) -> None:
        super().__init__()
        self.top_down = top_down
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1, bias=False), BatchNorm(width)) for c in channels
        )
        self.mix = nn.ModuleList(
            nn.Sequential(nn.ReLU(), *_conv(width, width, 3, groups=width), *_conv(width, width, 1)) for _ in channels
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """[(N, C_i, R_i, C_i)] finest first -> [(N, width, R_i, C_i)]."""
        maps = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        if self.top_down:
            for i in range(len(maps) - 2, -1, -1):
                maps[i] = maps[i] + F.interpolate(maps[i + 1], size=maps[i].shape[-2:], mode="nearest")
        return [mix(x) for mix, x in zip(self.mix, maps, strict=True)]


class ExpandedMobileNet(Backbone):
    """A MobileNet with its last widening convolution, and as first map the widened one inside its last strided block.

    That is the deepest at stride 16, and 6 times as wide as what leaves a block (V2 sec. 6.2, V3 sec. 6.3).
    """

    def __init__(
        self,
        name: str,
        *,
        reduced_tail: bool = False,
        weights: str | Path | None = None,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> None:
        super().__init__()
        if reduced_tail and weights is not None:
            raise DetsegError(f"{name} with a reduced tail has no ImageNet weights; use --backbone-weights none")
        self.layers = _mobilenet_layers(self, name, reduced_tail, weights, progress)
        self.strided = max(i for i, layer in enumerate(self.layers) if _steps(layer))
        widened, last = self._inside()[0][0].out_channels, self.layers[-1][0].out_channels  # type: ignore[index]
        self.features = (FeatureSpec(int(widened), 16), FeatureSpec(int(last), 32))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> maps at strides 16 and 32."""
        x = self.layers[: self.strided](images)
        first = x = self._inside()[0](x)
        for part in self._inside()[1:]:
            x = part(x)
        return [first, self.layers[self.strided + 1 :](x)]

    def stages(self) -> list[Stage]:
        """A stage for each step; see `Backbone.stages`."""
        starts = [i for i, layer in enumerate(self.layers) if _steps(layer)]
        return [list(self.layers)[start:end] for start, end in pairwise([*starts, len(self.layers)])]

    def _inside(self) -> nn.Sequential:
        block: Any = self.layers[self.strided]
        inside: nn.Sequential = block.block if hasattr(block, "block") else block.conv
        return inside


def _mobilenet_layers(
    owner: Backbone,
    name: str,
    reduced_tail: bool,
    weights: str | Path | None,
    progress: Callable[[int, int | None], None] | None,
) -> nn.Sequential:
    """The layers of a MobileNet up to its last convolution; `owner` gets the normalisation of its weights."""
    from torchvision import models

    from detseg.backbones.torchvision_zoo import TorchvisionBackbone

    if reduced_tail:
        layers: nn.Sequential = models.get_model(name, weights=None, reduced_tail=True).features
    else:
        source = TorchvisionBackbone(name, (32,), weights=weights, head_conv=True, progress=progress)
        owner.mean, owner.std = source.mean, source.std
        layers = source.net.features  # type: ignore[assignment]
    return nn.Sequential(*layers)


def _steps(layer: nn.Module) -> bool:
    return any(isinstance(m, nn.Conv2d) and m.stride == (2, 2) for m in layer.modules())


def extra_layers(channels: int, extra: Extra, config: SSDConfig) -> nn.Sequential:
    """One more map from the one before it: narrowed by 1x1, then stepped (fig. 2); separable in SSDLite."""
    if not config.lite:
        narrow = _conv(channels, extra.middle, 1, norm=config.norm)
        step = _conv(extra.middle, extra.channels, extra.kernel, extra.stride, extra.padding, norm=config.norm)
        return nn.Sequential(*narrow, *step)
    return nn.Sequential(
        *_conv(channels, extra.middle, 1, lite=True),
        *_conv(extra.middle, extra.middle, extra.kernel, extra.stride, extra.padding, groups=extra.middle, lite=True),
        *_conv(extra.middle, extra.channels, 1, lite=True),
    )


def _conv(
    cin: int,
    cout: int,
    kernel: int,
    stride: int = 1,
    padding: int | None = None,
    *,
    groups: int = 1,
    norm: bool = True,
    lite: bool = False,
) -> Iterator[nn.Module]:
    """Convolution, batch norm where wanted, ReLU; in SSDLite with torchvision's momentum, and ReLU6."""
    pad = kernel // 2 if padding is None else padding
    yield nn.Conv2d(cin, cout, kernel, stride, pad, groups=groups, bias=not norm)
    if norm:
        yield BatchNorm(cout, eps=1e-3, momentum=0.03) if lite else BatchNorm(cout)
    yield nn.ReLU6(inplace=True) if lite else nn.ReLU(inplace=True)


def _initialise(module: nn.Module, lite: bool) -> None:
    """Xavier (sec. 3); SSDLite's layers start near zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            if lite:
                nn.init.normal_(layer.weight, std=0.03)
            else:
                nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def build(
    config: SSDConfig,
    *,
    backbone_weights: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> SSD:
    """The detector of `config`; `backbone_weights` and `progress` as `build_backbone` takes them."""
    if config.lite and config.backbone.startswith("mobilenet"):
        tail = config.reduced_tail
        backbone: Backbone = ExpandedMobileNet(
            config.backbone, reduced_tail=tail, weights=backbone_weights, progress=progress
        )
    else:
        backbone = build_backbone(config.backbone, strides=config.strides, weights=backbone_weights, progress=progress)
    if config.vgg:  # 75 rows become 38 as in the paper's figure 2, not 37
        third = [m for m in backbone.modules() if isinstance(m, nn.MaxPool2d)][2]
        third.ceil_mode = True
    return SSD(config, backbone)


def configure(num_classes: int, options: Mapping[str, Any], anchors: Callable[[int], Any] | None) -> SSDConfig:
    """The config for new data: `options` over the defaults.

    The option `clusters` says how many default boxes to make from the training boxes by `anchors(count)`, (count, 2)
    widths and heights in pixels of the frame; with 0, or where it answers None, scales and aspect ratios count.
    Raises DetsegError for an unknown option or one that does not fit.
    """
    settings = dict(options)
    clusters = settings.pop("clusters", 0)
    known = {f.name for f in fields(SSDConfig)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise DetsegError(f"SSD has no option {', '.join(unknown)}; there are: clusters, {', '.join(sorted(known))}")
    try:
        config = config_from_json({**settings, "num_classes": num_classes})
        found = anchors(int(clusters)) if clusters and anchors is not None and config.sizes is None else None
        return config if found is None else with_sizes(config, found)
    except (TypeError, ValueError) as error:
        raise DetsegError(f"SSD cannot be built so: {error}") from error


def with_sizes(config: SSDConfig, wh: Sequence[Sequence[float]]) -> SSDConfig:
    """`config` with default boxes of these (w, h) pixels, each on the map that suits it; deeper maps are left out."""
    strides = list(config.strides)
    for extra in config.extras:
        strides.append(strides[-1] * extra.stride)
    maps: list[list[tuple[float, float]]] = [[] for _ in strides]
    for w, h in wh:
        distance = [abs(math.log(math.sqrt(w * h) / (CELLS_PER_BOX * stride))) for stride in strides]
        maps[distance.index(min(distance))].append((round(float(w), 1), round(float(h), 1)))
    used = max(len(config.strides), 1 + max(i for i, boxes in enumerate(maps) if boxes))
    values = config_to_json(config) | {"sizes": maps[:used], "extras": config.extras[: used - len(config.strides)]}
    if config.steps is not None:
        values["steps"] = config.steps[:used]
    return config_from_json(values)


def from_torchvision(path: str | Path, names: Sequence[str] | None = None) -> tuple[Card, dict[str, Tensor]]:
    """The card and the tensors of a file of torchvision's ssd300_vgg16 or ssdlite320_mobilenet_v3_large.

    `names` and errors as `read_torchvision_ssd` has them.
    """
    card, state = read_torchvision_ssd(path, names)
    config = configure(len(card.categories), {**catalog.entry(card.model).options, **card.config}, None)
    return replace(card, config=config_to_json(config)), state


def config_from_json(values: dict[str, Any]) -> SSDConfig:
    """The config from a checkpoint's JSON (lists become tuples)."""
    plain = {name: _tuples(value) for name, value in values.items()}
    if "extras" in plain:
        plain["extras"] = tuple(Extra(*extra) for extra in plain["extras"])
    return SSDConfig(**plain)


def config_to_json(config: SSDConfig) -> dict[str, Any]:
    """The config as plain JSON values."""
    return asdict(config)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
