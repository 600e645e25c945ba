"""Options that several commands share, and the command class that understands the spellings YOLO users type.

Use: `@click.command(cls=options.Command)`, then `@options.weights()`, `@options.conf()` and so on.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]

_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}


class Option(click.Option):
    """An option with further spellings that work but are left out of the help."""

    def __init__(self, *args: Any, aliases: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shown = list(self.opts)
        self.opts = [*self.opts, *aliases]

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The help without the further spellings."""
        plain = copy.copy(self)
        plain.opts = self.shown
        return click.Option.get_help_record(plain, ctx)


class Command(click.Command):
    """A command that also takes `key=value` and `--key_with_underscores`, as YOLO users write them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Translates the words, then parses as click does."""
        return super().parse_args(ctx, self._translated(args))

    def _translated(self, args: list[str]) -> list[str]:
        if "--" in args:
            cut = args.index("--")
            return self._translated(args[:cut]) + args[cut:]
        by_name = {name: p for p in self.params if isinstance(p, click.Option) for name in p.opts}
        words: list[str] = []
        for arg in args:
            words += _translate(arg, by_name, follows=words[-1] if words else "")
        return words


def _translate(arg: str, by_name: dict[str, click.Option], follows: str) -> list[str]:
    """`conf=0.3` -> --conf=0.3; `exist_ok=True`, `--exist_ok` -> --exist-ok; all else as it is."""
    if arg.startswith("--"):
        name, equals, value = arg.partition("=")
        return [arg if name in by_name else name.replace("_", "-") + equals + value]
    match = re.fullmatch(r"([A-Za-z][\w-]*)=(.+)", arg, re.DOTALL)
    option = by_name.get("--" + match[1].replace("_", "-")) if match else None
    before = by_name.get(follows)
    is_value = before is not None and not before.is_flag
    if match is None or option is None or is_value or Path(arg).exists():
        return [arg]
    name, value = option.opts[0] if option.is_flag else "--" + match[1].replace("_", "-"), match[2]
    if not option.is_flag:
        return [f"{name}={value}"]
    if value.lower() in _TRUE:
        return [name]
    if value.lower() in _FALSE:
        return option.secondary_opts[:1]
    raise click.BadParameter(f"'{value}' is neither True nor False", param_hint=match[1])


class ImageSize(click.ParamType):
    """`320` or `320x416` (height x width) -> (h, w)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to (h, w)."""
        if isinstance(value, tuple):
            return value
        sides = re.fullmatch(r"[\[(]?\s*(\d+)(?:\s*[x,]\s*(\d+))?\s*[\])]?", str(value))
        if sides is None or int(sides[1]) < 1 or int(sides[2] or 1) < 1:
            self.fail(f"'{value}' is not a size such as 320 or 320x416 (height x width)", param, ctx)
        return int(sides[1]), int(sides[2] or sides[1])


class Device(click.ParamType):
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`; a bare number means that GPU."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to a device name."""
        name = str(value).strip().lower()
        if name.isdigit():
            return f"cuda:{name}"
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
            self.fail(f"'{value}' is none of auto, cpu, cuda, cuda:N, mps", param, ctx)
        return name


class Words(click.ParamType):
    """Words separated by commas -> a tuple of them, each one of `known` where that is given."""

    name = "words"

    def __init__(self, known: tuple[str, ...] = ()) -> None:
        self.known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to the words, repeated ones once."""
        if isinstance(value, tuple):
            return value
        words = tuple(dict.fromkeys(w for w in (w.strip() for w in str(value).split(",")) if w))
        for word in words:
            if self.known and word not in self.known:
                self.fail(f"'{word}' is none of {', '.join(self.known)}", param, ctx)
        return words


FRACTION = click.FloatRange(0, 1)


def weights(help: str) -> Any:
    """-w/--weights -> `weights: Path | None`."""
    return click.option("-w", "--weights", cls=Option, aliases=("--model",), type=click.Path(path_type=Path), help=help)


class Positive(click.ParamType):
    """`2,1` -> the numbers, each above 0."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to a tuple of numbers."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or not all(0 < number < float("inf") for number in numbers):
            self.fail(f"'{value}' is not a list of positive numbers such as 2,1", param, ctx)
        return numbers


def several_weights(help: str) -> Callable[[F], F]:
    """-w/--weights, --ensemble-weights -> `weights: tuple[Path, ...]`, `ensemble_weights: tuple[float, ...]`."""

    def add(function: F) -> F:
        for decorate in (
            click.option("--ensemble-weights", type=Positive(), default=(), metavar="2,1,...",
                         help="How much the word of each -w counts.  [default: all alike]"),
            click.option("-w", "--weights", cls=Option, aliases=("--model",), type=click.Path(path_type=Path),
                         multiple=True, help=f"{help} Several times: an ensemble, whose answers become one."),
        ):  # fmt: skip
            function = decorate(function)
        return function

    return add


def conf(default: float = 0.25) -> Any:
    """--conf -> `conf: float`."""
    return click.option(
        "--conf", cls=Option, aliases=("--conf-thres", "--conf-thresh"), type=FRACTION, default=default,
        show_default=True, help="Lowest score that is reported.",
    )  # fmt: skip


def iou(default: float | None = 0.5) -> Any:
    """--iou -> `iou: float`; without a default `float | None`."""
    other = "" if default is not None else "  [default: 0.6; 0.5 for boxes that vote]"
    return click.option(
        "--iou", cls=Option, aliases=("--iou-thres", "--iou-thresh"), type=FRACTION, default=default,
        show_default=True, help=f"Of two boxes of a class that overlap more than this, the better is kept.{other}",
    )  # fmt: skip


def watershed(command: Any) -> Any:
    """--neck, --min-area -> `neck: float`, `min_area: int`: how a segmenter's label maps become objects."""
    command = click.option(
        "--min-area", type=click.IntRange(1), default=16, show_default=True,
        help="Of a segmenter's objects: fewer pixels are none.",
    )(command)  # fmt: skip
    return click.option(
        "--neck", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
        help="Of a segmenter's objects: two that touch are cut where they are narrower than in their middles by this "
        "many pixels on either side.",
    )(command)  # fmt: skip


def imgsz(
    help: str = "Size of the network's frame: 320, or 320x416 (height x width).  [default: as trained]",
) -> Any:
    """--imgsz -> `imgsz: tuple[int, int] | None` (h, w)."""
    return click.option("--imgsz", cls=Option, aliases=("--img", "--img-size"), type=ImageSize(), help=help)


def device() -> Any:
    """--device -> `device: str`."""
    return click.option(
        "--device",
        type=Device(),
        default="auto",
        show_default=True,
        help="auto, cpu, cuda, cuda:N (or N), mps.",
    )


def runtime() -> Any:
    """--runtime -> `runtime: str`."""
    return click.option(
        "--runtime", type=click.Choice(["auto", "torch", "onnx"]), default="auto", show_default=True,
        help="What runs the network; auto goes by the weight file.",
    )  # fmt: skip


def batch(default: int = 1) -> Any:
    """--batch -> `batch: int`."""
    return click.option(
        "--batch", cls=Option, aliases=("--batch-size",), type=click.IntRange(1), default=default,
        show_default=True, help="Pictures per call of the network.",
    )  # fmt: skip


def max_det(default: int = 300) -> Any:
    """--max-det -> `max_det: int`."""
    return click.option(
        "--max-det",
        cls=Option,
        aliases=("--max-dets",),
        type=click.IntRange(1),
        default=default,
        show_default=True,
        help="Objects per picture at most.",
    )


def proposals() -> Any:
    """--proposals -> `proposals: Path | None`."""
    return click.option(
        "--proposals",
        type=click.Path(dir_okay=False, path_type=Path),
        help="For R-CNN and Fast R-CNN: a file of proposals.  [default: they are searched for]",
    )


def agnostic_nms() -> Any:
    """--agnostic-nms -> `agnostic: bool`."""
    return click.option(
        "--agnostic-nms", "agnostic", is_flag=True, help="Overlapping boxes of different classes compete too."
    )


def workers() -> Any:
    """--workers -> `workers: int`, as many as there are cores unless given."""
    return click.option(
        "--workers",
        type=click.IntRange(1),
        default=cores,
        help="Threads that read and write pictures.  [default: one per core]",
    )


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_folder(task: str) -> Callable[[F], F]:
    """--out, --project, --name, --exist-ok: see `detseg.cli.run_folder.choose`."""

    def add(function: F) -> F:
        path = click.Path(file_okay=False, path_type=Path)
        for decorate in (
            click.option("--exist-ok", is_flag=True, help="Write into a folder that is already in use."),
            click.option("--name", default=None, help="Name of the run's folder.  [default: exp, exp2, ...]"),
            click.option("--project", type=path, default=Path("runs", task), show_default=True, help="Where runs go."),
            click.option("-o", "--out", type=path, help="Folder to write to, instead of PROJECT/NAME."),
        ):
            function = decorate(function)
        return function

    return add


def run_over_pictures(task: str) -> Callable[[F], F]:
    """What every run over pictures may be told: where results go, how far it goes, what is said."""

    def add(function: F) -> F:
        for decorate in (
            verbosity,
            json_output("Print one JSON line per picture on stdout instead of a table."),
            click.option("--dry-run", is_flag=True, help="Only tell what would be done."),
            click.option("--limit", type=click.IntRange(1), help="Only the first so many pictures."),
            click.option("--resume", is_flag=True, help="Go on with an interrupted run; finished pictures stay."),
            run_folder(task),
        ):
            function = decorate(function)
        return function

    return add


def json_output(help: str = "Print JSON on stdout instead of text.") -> Any:
    """--json -> `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help=help)


def quiet(function: F) -> F:
    """-q/--quiet -> `quiet: bool`."""
    return click.option("-q", "--quiet", is_flag=True, help="Only results and errors: no progress.")(function)


def verbose(function: F) -> F:
    """-v/--verbose -> `verbose: bool`."""
    return click.option("-v", "--verbose", is_flag=True, help="Say more.")(function)


def verbosity(function: F) -> F:
    """-q/--quiet and -v/--verbose -> `quiet: bool`, `verbose: bool`."""
    return quiet(verbose(function))
