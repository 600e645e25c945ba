"""Kinds of suppression and test-time augmentation, for the commands that run a network on pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from detseg import catalog

from . import options

if TYPE_CHECKING:
    from detseg.checkpoints import Card
    from detseg.postprocess import Views
    from detseg.postprocess.select import NMS

    from .chosen_weights import Model

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


_SCALES = click.option(
    "--tta-scales", type=Scales(), default=",".join(f"{scale:g}" for scale in USUAL_SCALES), show_default=True,
    help="Sizes of views, times the frame's.",
)  # fmt: skip
_FLIPS = click.option(
    "--tta-flips", type=click.Choice(["none", "horizontal", "all"]), default="horizontal", show_default=True,
    help="Mirrored views; all: top to bottom and both ways too.",
)  # fmt: skip


def _tta(help: str) -> Any:
    return click.option("--tta", cls=options.Option, aliases=("--augment",), is_flag=True, help=help)


def options_of_views(function: F) -> F:
    """--tta, --tta-scales, --tta-flips, --tta-parts, --tta-merge -> `tta`, `tta_scales`, ..."""
    for decorate in (
        click.option("--tta-merge", type=click.Choice(["nms", "wbf"]), default="nms", show_default=True,
                     help="All views' boxes go through --nms together, or each view's, and then their weighted means."),
        click.option("--tta-parts", type=click.IntRange(1, 8), default=1, show_default=True,
                     help="Also N x N parts of the picture, each as large as the frame: for small objects."),
        _FLIPS,
        _SCALES,
        _tta("Look at each picture in several views and merge what is found: slower, often better."),
    ):  # fmt: skip
        function = decorate(function)
    return function


def options_of_map_views(function: F) -> F:
    """--tta, --tta-scales, --tta-flips, of label maps."""
    looks = "Look at each picture, or tile, in several views and take the mean of their probabilities."
    for decorate in (_FLIPS, _SCALES, _tta(looks)):
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


def views(request: Any, models: Sequence[Model]) -> tuple[list[Views], list[str]]:
    """For each model the views that a request asks for, one plain look without --tta; and a note for the user.

    Exported models take no frame but their own.
    """
    from detseg.postprocess import Views

    if not request.tta:
        return [Views()] * len(models), []
    of_boxes: dict[str, Any] = {}
    if hasattr(request, "tta_merge"):
        of_boxes = {"merge": request.tta_merge, "parts": request.tta_parts}
    wanted = Views.of(request.tta_scales, request.tta_flips, **of_boxes)
    fixed = [model.kind == "onnx" and wants_scales(request) for model in models]
    note = (
        "an exported model takes only frames of its own size: views are flipped, not scaled; "
        "scales need .safetensors weights"
    )
    return [wanted.at_own_size() if only_own else wanted for only_own in fixed], [note] if any(fixed) else []
