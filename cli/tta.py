"""Kinds of suppression and test-time augmentation, for the commands that run a network on pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from detseg import catalog

from . import options

if TYPE_CHECKING:
    from detseg.checkpoints import Card
    from detseg.postprocess import Views
    from detseg.postprocess.select import NMS

F = TypeVar("F", bound=Callable[..., Any])
NMS_KINDS = ("hard", "vote", "soft", "soft-linear", "diou", "wbf")
USUAL_SCALES = (0.8, 1.0, 1.25)  # with both sides, what measured best (yolo.md)


class Scales(click.ParamType):
    """`0.8,1,1.25` -> the numbers."""

    name = "scales"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to a tuple of positive numbers."""
        if isinstance(value, tuple):
            return value
        try:
            scales = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            scales = ()
        if not scales or not all(0.1 <= scale <= 10 for scale in scales):
            self.fail(f"'{value}' is not a list of scales between 0.1 and 10, such as 0.8,1,1.25", param, ctx)
        return tuple(dict.fromkeys(scales))


def nms_kind() -> Any:
    """--nms -> `nms: str`."""
    return click.option(
        "--nms", type=click.Choice(NMS_KINDS), default=None,
        help="What becomes of overlapping boxes: the best stays (hard), or the mean of it and those that agree (vote), "
        "scores fade (soft, soft-linear), centres apart count as less overlap (diou), means of growing groups take "
        "their place (wbf).  [default: the model's, vote or hard; with --tta wbf]",
    )  # fmt: skip


def options_of_views(function: F) -> F:
    """--tta, --tta-scales, --tta-flips, --tta-merge -> `tta`, `tta_scales`, `tta_flips`, `tta_merge`."""
    for decorate in (
        click.option("--tta-merge", type=click.Choice(["nms", "wbf"]), default="nms", show_default=True,
                     help="All views' boxes go through --nms together, or each view's, and then their weighted means."),
        click.option("--tta-flips", type=click.Choice(["none", "horizontal", "all"]), default="horizontal",
                     show_default=True, help="Mirrored views; all: top to bottom and both ways too."),
        click.option("--tta-scales", type=Scales(), default=",".join(f"{scale:g}" for scale in USUAL_SCALES),
                     show_default=True, help="Sizes of views, times the frame's."),
        click.option("--tta", cls=options.Option, aliases=("--augment",), is_flag=True,
                     help="Look at each picture in several views and merge what is found: slower, often better."),
    ):  # fmt: skip
        function = decorate(function)
    return function


def wants_scales(request: Any) -> bool:
    """Whether the request asks for frames of other sizes than the model's own."""
    return request.tta and request.tta_scales != (1.0,)


def suppression(request: Any, card: Card) -> NMS:
    """The kind of suppression that a request asks for, or what measured best for it (yolo.md)."""
    return request.nms or ("wbf" if request.tta else catalog.usual_nms(card.model))


def measuring_overlap(request: Any, nms: NMS) -> float:
    """The overlap above which boxes compete when they are measured: asked for, or what serves this kind best."""
    from detseg.postprocess import Selection

    return Selection.for_measuring(nms).iou if request.iou is None else request.iou


def views(request: Any, kind: str) -> tuple[Views | None, str]:
    """The views that a request asks for, None for one plain look; and a note where the weights cannot take them all.

    `kind` is that of the weights: "onnx" models take no frame but their own.
    """
    if not request.tta:
        return None, ""
    from detseg.postprocess import Views

    wanted = Views.of(request.tta_scales, request.tta_flips, request.tta_merge)
    if kind == "onnx" and wants_scales(request):
        note = "an exported model takes only frames of its own size: views are flipped, not scaled; "
        return wanted.at_own_size(), note + "scales need .safetensors weights"
    return wanted, ""
