"""What a Darknet cfg describes: layer after layer its settings, its input, its shape, its numbers. Torch-free.

Nothing is built here, so a cfg can be judged before it costs memory: sizes have limits, and what detseg cannot do is
refused by name. Layers are counted from 0 after [net], as Darknet does; -1 is the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from detseg.checkpoints.darknet_cfg import Section
from detseg.errors import WeightsError

Shape = tuple[int, int, int]  # channels, rows, columns

ACTIVATIONS = (
    *("linear", "logistic", "relu", "relu6", "leaky", "elu", "selu", "gelu", "mish", "hard_mish", "swish", "tanh"),
    *("loggy", "relie", "ramp", "plse", "lhtan", "hardtan", "hard_swish", "hard_sigmoid"),
)
_SPELLINGS = {
    **{"silu": "swish", "sigmoid": "logistic", "hardmish": "hard_mish"},
    **dict.fromkeys(("hswish", "hardswish", "hard-swish"), "hard_swish"),
    **dict.fromkeys(("hsigmoid", "hardsigmoid", "hard-sigmoid"), "hard_sigmoid"),
}
BOX_LOSSES = ("iou", "giou", "diou", "ciou")

MAX_SIDE = 1 << 14  # of the frame, as in a checkpoint's card
MAX_CHANNELS = 1 << 16
MAX_MAP = 1 << 30  # elements of one layer's output for one picture
MAX_NUMBERS = 1 << 30  # of all layers together

_CLASSIFIER = ("softmax", "connected", "crop")
_ONLY_TRAINING = ("cost", "contrastive")


@dataclass(frozen=True)
class Convolution:
    """`padding` counts undilated pixels; `norm`: batch normalisation in place of a bias."""

    in_channels: int
    filters: int
    size: int
    stride_yx: tuple[int, int]
    padding: int
    dilation: int
    groups: int
    norm: bool
    activation: str

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """As the weights lie in the file: filter, channel of its group, row, column."""
        return self.filters, self.in_channels // self.groups, self.size, self.size

    @property
    def numbers(self) -> int:
        """How many the file holds: bias (and scale, mean, variance) of each filter, then the kernels."""
        filters, channels, rows, columns = self.kernel_shape
        return filters * (4 if self.norm else 1) + filters * channels * rows * columns


@dataclass(frozen=True)
class Pool:
    """A window that looks `padding // 2` over the top and left edge and the rest over the others."""

    kind: str  # "max" or "mean" (of the pixels that are there)
    size: int
    stride_yx: tuple[int, int]
    padding: int


@dataclass(frozen=True)
class GlobalMean:
    """One number a channel."""


@dataclass(frozen=True)
class Route:
    """Outputs of earlier layers one after the other; of each only part `group` of `groups` of its channels."""

    groups: int
    group: int


@dataclass(frozen=True)
class Shortcut:
    """The sum of layers; of two that differ in channels the first ones are summed."""

    activation: str


@dataclass(frozen=True)
class Upsample:
    """Every pixel `stride` times in both directions, times `scale`."""

    stride: int
    scale: float


@dataclass(frozen=True)
class Reorg:
    """Pixels become channels; `true_blocks`: stride x stride neighbours do ([reorg3d]), else Darknet's own order."""

    stride: int
    true_blocks: bool


@dataclass(frozen=True)
class Scale:
    """An earlier layer times this one: per channel, per pixel, or everything with everything."""

    activation: str


@dataclass(frozen=True)
class Dropout:
    """In training, this share of the numbers becomes 0."""

    probability: float


@dataclass(frozen=True)
class Nothing:
    """A layer that only Darknet's training needs."""


@dataclass(frozen=True)
class Head:
    """A [yolo] or [region] layer: what the numbers of the convolution before it mean.

    `anchors` (w, h) of its mask, in pixels of the frame ("yolo") or cells ("region"); `ignore_iou`, `iou_thresh` and
    `box_loss` are for training: which boxes are no background, which priors answer for a truth, what they minimise.
    """

    kind: str
    anchors: tuple[tuple[float, float], ...]
    classes: int
    scale_xy: float
    new_coords: bool
    softmax: bool
    ignore_iou: float
    iou_thresh: float
    box_loss: str


Settings = Convolution | Pool | GlobalMean | Route | Shortcut | Upsample | Reorg | Scale | Dropout | Nothing | Head


@dataclass(frozen=True)
class Layer:
    """`inputs`: the layers it reads, the one before it first where that is one of them."""

    index: int
    section: Section
    inputs: tuple[int, ...]
    settings: Settings
    shape: Shape

    def __str__(self) -> str:
        return f"layer {self.index} ({self.section})"


@dataclass(frozen=True)
class Plan:
    """A whole network for frames of `frame_hw` pixels."""

    file: str
    frame_hw: tuple[int, int]
    letterbox: bool
    layers: tuple[Layer, ...]

    @property
    def convolutions(self) -> list[tuple[Layer, Convolution]]:
        """The layers that have numbers in the weight file, in its order."""
        return [(layer, layer.settings) for layer in self.layers if isinstance(layer.settings, Convolution)]

    @property
    def heads(self) -> list[tuple[Layer, Head]]:
        """The layers that answer with boxes."""
        return [(layer, layer.settings) for layer in self.layers if isinstance(layer.settings, Head)]

    @property
    def numbers(self) -> int:
        """How many float32 the weight file must hold behind its header."""
        return sum(convolution.numbers for _, convolution in self.convolutions)


def plan(sections: Sequence[Section], frame_hw: tuple[int, int] | None = None) -> Plan:
    """The network of a cfg, for frames of the size it names or of `frame_hw`.

    Raises WeightsError naming file, line, section and cause for whatever is wrong, too large or not supported.
    """
    net = sections[0]
    if net.name != "net":
        raise net.wrong("a cfg begins with [net]")
    if net.integer("channels", 3, 1, 1 << 20) != 3:
        raise net.wrong("detseg gives a network RGB pictures: 3 channels", "channels")
    height, width = frame_hw or (net.integer("height", None, 1, MAX_SIDE), net.integer("width", None, 1, MAX_SIDE))
    layers: list[Layer] = []
    numbers = 0
    for section in sections[1:]:
        layer = _layer(section, layers, (3, height, width))
        numbers += layer.settings.numbers if isinstance(layer.settings, Convolution) else 0
        _expect_size(layer, numbers)
        layers.append(layer)
    made = Plan(net.file, (height, width), net.flag("letter_box"), tuple(layers))
    _expect_detector(made)
    return made


def _layer(section: Section, before: list[Layer], picture: Shape) -> Layer:
    if section.name in _ONLY_TRAINING:
        reader: Reader = _nothing
    elif section.name in _READERS:
        reader = _READERS[section.name]
    else:
        raise section.wrong(_refusal(section.name))
    inputs, settings, shape = reader(section, _Before(section, before, picture))
    for index in inputs:
        if index >= 0 and isinstance(before[index].settings, Head):
            raise section.wrong(f"reads {before[index]}, which answers with boxes; a [route] must lead elsewhere")
    return Layer(len(before), section, inputs, settings, shape)


def _refusal(name: str) -> str:
    if name in _CLASSIFIER:
        return "part of a classifier; only detectors, which end in [yolo] or [region], can be imported"
    if name == "gaussian_yolo":
        return "Gaussian YOLO (boxes with a variance) is not supported; import a network with [yolo] layers"
    if name == "detection":
        return "YOLO of 2015, with fully connected layers, is not supported; import YOLOv2 or later"
    if name in ("net", "network"):
        return "a second [net]; is this two files in one?"
    return f"this kind of layer is not supported; there are: {', '.join(sorted(_READERS))}"


@dataclass(frozen=True)
class _Before:
    """What a layer may read: those before it."""

    section: Section
    layers: list[Layer]
    picture: Shape

    @property
    def last(self) -> int:
        return len(self.layers) - 1

    def shape(self, index: int) -> Shape:
        return self.picture if index < 0 else self.layers[index].shape

    def named(self, option: str) -> tuple[int, ...]:
        """The layers that an option names: from 0, or backwards from this one when negative."""
        here = len(self.layers)
        indices = []
        for number in self.section.integers(option, -MAX_CHANNELS, MAX_CHANNELS):
            index = number + here if number < 0 else number
            if not 0 <= index < here:
                raise self.section.wrong(f"layer {index} is not before this one, which is layer {here}", option)
            indices.append(index)
        if not indices:
            raise self.section.wrong("must name a layer", option)
        return tuple(indices)


Read = tuple[tuple[int, ...], Settings, Shape]
Reader = Callable[[Section, _Before], Read]


def _convolutional(section: Section, before: _Before) -> Read:
    _refuse(section, "xnor", "binary", "bin_output", "flipped", "antialiasing", "deform", "sway", "rotate", "stretch",
            "stretch_sway", "coordconv", "dontload", "dontloadscales")  # fmt: skip
    if "share_index" in section.options:
        raise section.wrong("layers that share their weights are not supported", "share_index")
    channels, height, width = before.shape(before.last)
    filters = section.integer("filters", 1, 1, MAX_CHANNELS)
    size = section.integer("size", 1, 1, 64)
    groups = section.integer("groups", 1, 1, MAX_CHANNELS)
    if channels % groups or filters % groups:
        raise section.wrong(f"{channels} channels and {filters} filters cannot be shared out over them", "groups")
    padding = size // 2 if section.flag("pad") else section.integer("padding", 0, 0, 64)
    dilation = section.integer("dilation", 1, 1, 64) if size > 1 else 1
    settings = Convolution(
        channels, filters, size, _strides(section), padding, dilation, groups,
        section.flag("batch_normalize"), _activation(section, "logistic"),
    )  # fmt: skip
    reach = dilation * (size - 1) + 1
    rows, columns = (
        (side + 2 * padding * dilation - reach) // stride + 1
        for side, stride in zip((height, width), settings.stride_yx, strict=True)
    )
    return (before.last,), settings, _positive(section, (filters, rows, columns))


def _maxpool(section: Section, before: _Before) -> Read:
    _refuse(section, "maxpool_depth", "antialiasing")
    return _pool(section, before, "max")


def _local_mean(section: Section, before: _Before) -> Read:
    return _pool(section, before, "mean")


def _pool(section: Section, before: _Before, kind: str) -> Read:
    channels, height, width = before.shape(before.last)
    strides = _strides(section)
    size = section.integer("size", max(strides), 1, 512)
    padding = section.integer("padding", size - 1, 0, 512)
    if padding // 2 >= size or padding - padding // 2 >= size + max(strides):
        raise section.wrong("a window would see nothing but the padding", "padding")
    rows = (height + padding - size) // strides[0] + 1
    columns = (width + padding - size) // strides[1] + 1
    return (before.last,), Pool(kind, size, strides, padding), _positive(section, (channels, rows, columns))


def _global_mean(section: Section, before: _Before) -> Read:
    return (before.last,), GlobalMean(), (before.shape(before.last)[0], 1, 1)


def _route(section: Section, before: _Before) -> Read:
    indices = before.named("layers")
    groups = section.integer("groups", 1, 1, MAX_CHANNELS)
    group = section.integer("group_id", 0, 0, groups - 1)
    shapes = [before.shape(index) for index in indices]
    for index, (channels, *sides) in zip(indices, shapes, strict=True):
        if channels % groups:
            raise section.wrong(f"the {channels} channels of layer {index} cannot be cut into them", "groups")
        if tuple(sides) != shapes[0][1:]:
            first = _times(shapes[0][1:])
            raise section.wrong(
                f"layer {indices[0]} has {first} cells, layer {index} {_times(sides)}; a frame whose sides are "
                "multiples of the network's largest stride (32 for most) has none of these",
                "layers",
            )
    return indices, Route(groups, group), (sum(s[0] for s in shapes) // groups, *shapes[0][1:])


def _shortcut(section: Section, before: _Before) -> Read:
    if section.text("weights_type", "none") not in ("none", "0"):
        raise section.wrong("a sum with learned weights is not supported", "weights_type")
    own, others = before.shape(before.last), before.named("from")
    for index in others:
        if before.shape(index)[1:] != own[1:]:
            sides = _times(before.shape(index)[1:])
            raise section.wrong(f"layer {index} has {sides} cells, the one before this {_times(own[1:])}", "from")
    return (before.last, *others), Shortcut(_activation(section, "linear")), own


def _upsample(section: Section, before: _Before) -> Read:
    channels, height, width = before.shape(before.last)
    stride = section.integer("stride", 2, 1, 64)
    settings = Upsample(stride, section.number("scale", 1.0, -1e6, 1e6))
    return (before.last,), settings, (channels, height * stride, width * stride)


def _reorg(section: Section, before: _Before) -> Read:
    _refuse(section, "reverse", "flatten", "extra")
    channels, height, width = before.shape(before.last)
    stride = section.integer("stride", 1, 1, 64)
    true_blocks = section.name == "reorg3d"
    if height % stride or width % stride or (not true_blocks and channels % stride**2):
        what = f"{channels} channels of {_times((height, width))} cells cannot be rearranged by {stride}"
        raise section.wrong(what, "stride")
    shape = (channels * stride**2, height // stride, width // stride)
    return (before.last,), Reorg(stride, true_blocks), shape


def _scale(section: Section, before: _Before) -> Read:
    own, others = before.shape(before.last), before.named("from")
    if len(others) != 1:
        raise section.wrong("must name one layer", "from")
    other = before.shape(others[0])
    wanted = other
    if section.name == "scale_channels":
        wanted = (1, *other[1:]) if section.flag("scale_wh") else (other[0], 1, 1)
    if own != wanted:
        raise section.wrong(
            f"layer {others[0]} has the shape {_times(other)}, so the one before this must have {_times(wanted)}, "
            f"not {_times(own)}",
            "from",
        )
    return (before.last, *others), Scale(_activation(section, "linear")), other


def _dropout(section: Section, before: _Before) -> Read:
    return (before.last,), Dropout(section.number("probability", 0.5, 0.0, 1.0)), before.shape(before.last)


def _nothing(section: Section, before: _Before) -> Read:
    return (before.last,), Nothing(), before.shape(before.last)


def _yolo(section: Section, before: _Before) -> Read:
    _refuse(section, "embedding_layer", "show_details")
    classes = section.integer("classes", 20, 1, MAX_CHANNELS)
    pairs = _anchors(section)
    mask = section.integers("mask", 0, len(pairs) - 1) or tuple(range(len(pairs)))
    head = Head(
        kind="yolo",
        anchors=tuple(pairs[i] for i in mask),
        classes=classes,
        scale_xy=section.number("scale_x_y", 1.0, 0.1, 10.0),
        new_coords=section.flag("new_coords"),
        softmax=False,
        ignore_iou=section.number("ignore_thresh", 0.5, 0.0, 10.0),
        iou_thresh=section.number("iou_thresh", 1.0, 0.0, 10.0),
        box_loss=_box_loss(section),
    )
    return _answer(section, before, head)


def _region(section: Section, before: _Before) -> Read:
    if "tree" in section.options:
        raise section.wrong("classes in a tree (YOLO9000) are not supported", "tree")
    if section.integer("coords", 4, 0, 1000) != 4:
        raise section.wrong("a box has 4 coordinates", "coords")
    _refuse(section, "background")
    head = Head(
        kind="region",
        anchors=_anchors(section),
        classes=section.integer("classes", 20, 1, MAX_CHANNELS),
        scale_xy=1.0,
        new_coords=False,
        softmax=section.flag("softmax"),
        ignore_iou=section.number("thresh", 0.5, 0.0, 10.0),
        iou_thresh=1.0,
        box_loss=_box_loss(section),
    )
    return _answer(section, before, head)


def _answer(section: Section, before: _Before, head: Head) -> Read:
    """The head reads a convolution that gives 5 + classes numbers for each of its anchors."""
    predictor = before.layers[-1].settings if before.layers else None
    wanted = len(head.anchors) * (5 + head.classes)
    if not isinstance(predictor, Convolution):
        raise section.wrong("must follow a [convolutional]")
    if predictor.filters != wanted:
        raise before.layers[-1].section.wrong(
            f"must be {wanted}, since [{section.name}] below has {len(head.anchors)} anchors and {head.classes} "
            f"classes: {len(head.anchors)} * (5 + {head.classes})",
            "filters",
        )
    if head.new_coords and predictor.activation != "logistic":
        raise before.layers[-1].section.wrong("must be logistic, since new_coords=1 below", "activation")
    return (before.last,), head, before.shape(before.last)


def _anchors(section: Section) -> tuple[tuple[float, float], ...]:
    """All pairs of the list; `num` of them where it says so."""
    flat = section.numbers("anchors", 0.0, 1e6)
    count = section.integer("num", max(1, (len(flat) + 1) // 2), 1, 1000)
    if len(flat) < 2 * count or not flat or min(flat) <= 0:
        raise section.wrong(
            f"must be {2 * count} numbers above 0, a width and a height each, got {len(flat)}", "anchors"
        )
    return tuple((flat[2 * i], flat[2 * i + 1]) for i in range(count))


def _box_loss(section: Section) -> str:
    """What training minimises; "mse" of the first versions became IoU losses in later ones."""
    named = section.text("iou_loss", "ciou")
    return named if named in BOX_LOSSES else "ciou"


def _strides(section: Section) -> tuple[int, int]:
    both = section.integer("stride", 1, 1, 64)
    return section.integer("stride_y", both, 1, 64), section.integer("stride_x", both, 1, 64)


def _activation(section: Section, default: str) -> str:
    named = section.text("activation", default)
    named = _SPELLINGS.get(named, named)
    if named not in ACTIVATIONS:
        raise section.wrong(f"this activation is not supported; there are: {', '.join(ACTIVATIONS)}", "activation")
    return named


def _refuse(section: Section, *options: str) -> None:
    """Options that change what is computed, in a way detseg does not know; 0 switches them off."""
    for option in options:
        if section.options.get(option, "0") not in ("0", "0.0", ""):
            raise section.wrong("not supported", option)


def _positive(section: Section, shape: Shape) -> Shape:
    if min(shape) < 1:
        raise section.wrong(f"nothing is left of its input: {_times(shape[1:])} cells; give larger frames")
    return shape


def _expect_size(layer: Layer, numbers: int) -> None:
    channels, height, width = layer.shape
    if channels > MAX_CHANNELS * 16 or channels * height * width > MAX_MAP:
        raise layer.section.wrong(f"its output of {_times(layer.shape)} numbers is too large: more than {MAX_MAP:,}")
    if numbers > MAX_NUMBERS:
        raise layer.section.wrong(f"the network has more than {MAX_NUMBERS:,} parameters up to here")


def _expect_detector(made: Plan) -> None:
    heads = made.heads
    if not heads:
        raise WeightsError(f"{made.file}: no [yolo] or [region] layer: it answers with no boxes, so it is no detector")
    predictors = {layer.inputs[0] for layer, _ in heads}
    for layer in made.layers:
        read = predictors.intersection(layer.inputs)
        if read and not isinstance(layer.settings, Head):
            raise layer.section.wrong(f"reads layer {read.pop()}, which makes boxes; it must lead elsewhere")
    counts = {head.classes for _, head in heads}
    if len(counts) > 1:
        raise WeightsError(f"{made.file}: its heads differ in classes: {', '.join(map(str, sorted(counts)))}")


def unused(sections: Sequence[Section]) -> list[str]:
    """Options, each with its place, that neither detseg nor Darknet's training reads: slips of the pen, mostly."""
    found = []
    for section in sections:
        known = _KNOWN.get(section.name, frozenset()) | _TRAINING
        if section.name in _READERS:
            found += [
                f"line {section.lines[option]}, [{section.name}] {option}={value[:40]}"
                for option, value in section.options.items()
                if option not in known and option in section.lines
            ]
    return found


def _times(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))


_READERS: dict[str, Reader] = {
    "convolutional": _convolutional,
    "maxpool": _maxpool,
    "avgpool": _global_mean,
    "local_avgpool": _local_mean,
    "route": _route,
    "shortcut": _shortcut,
    "upsample": _upsample,
    "reorg": _reorg,
    "reorg3d": _reorg,
    "sam": _scale,
    "scale_channels": _scale,
    "dropout": _dropout,
    "yolo": _yolo,
    "region": _region,
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CONV = "filters size stride stride_x stride_y pad padding dilation groups batch_normalize activation xnor binary "
_KNOWN = {
    "convolutional": _words(
        _CONV + "bin_output flipped antialiasing deform sway rotate stretch stretch_sway coordconv"
    ),
    "maxpool": _words("size stride stride_x stride_y padding maxpool_depth antialiasing"),
    "local_avgpool": _words("size stride stride_x stride_y padding"),
    "route": _words("layers groups group_id"),
    "shortcut": _words("from activation weights_type weights_normalization"),
    "upsample": _words("stride scale"),
    "reorg": _words("stride reverse flatten extra"),
    "reorg3d": _words("stride reverse"),
    "sam": _words("from activation"),
    "scale_channels": _words("from activation scale_wh"),
    "dropout": _words("probability"),
    "yolo": _words("mask anchors num classes scale_x_y new_coords ignore_thresh iou_thresh iou_loss nms_kind beta_nms"),
    "region": _words("anchors num classes coords softmax thresh iou_loss nms_kind beta_nms"),
}
# What only Darknet's own training, counting and drawing read.
_TRAINING = _words(
    "jitter random resize truth_thresh max max_boxes cls_normalizer iou_normalizer obj_normalizer delta_normalizer "
    "iou_thresh_kind objectness_smooth label_smooth_eps focal_loss max_delta counters_per_class map absolute rescore "
    "bias_match background object_scale noobject_scale class_scale coord_scale mask_scale log classfix sim_thresh "
    "stopbackward learning_rate train_only_bn burnin_update onlyforward dontload dontloadscales assisted_excitation "
    "dropblock dropblock_size_rel dropblock_size_abs time_steps track_history_size dets_for_track dets_for_show "
    "track_ciou_norm embedding_layer show_details layerid use_bin_output wait_stream keep_delta_gpu try_fix_nan"
)
