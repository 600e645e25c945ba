"""The `detseg` command: a group that imports a command's module only when that command is used.

A command NAME is the object `command` of the module `detseg.cli.NAME`. It returns an `Exit` (or nothing, for
`Exit.OK`) and raises `DetsegError` for what is not its own fault; `main` turns both into an exit code.
"""

from __future__ import annotations

import difflib
import importlib
import io
import os
import sys
from collections.abc import Sequence

import click

from detseg import __version__
from detseg.errors import DetsegError

from .exits import Exit, exit_for
from .tables import printable

TRACEBACK_VARIABLE = "DETSEG_TRACEBACK"
# PyTorch reads this when it first makes a tensor on a CPU. Large ones then lie on huge pages, and the kernel need not
# fetch each from the system in thousands of small ones: a sixth of the processor's time of a training step
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

# The one-line helps stand here, so that `detseg --help` imports no command
COMMANDS = {
    "detect": "Find objects in pictures and write what was found.",
    "segment": "Give every pixel of pictures a class, and write what was found.",
    "train": "Train a detector or a segmenter on a data set.",
    "eval": "Measure a model, or its written results, against a data set.",
    "data": "Data sets: look at them, check, repair, divide and convert them.",
    "weights": "List weight files, show what is in them, get or import those of torchvision and Darknet.",
    "models": "List the models that can be trained: paper, size, parameters, operations.",
    "export": "Write a trained model as ONNX, checked against its source.",
    "samples": "Write sample photographs to try detseg on.",
}
# what other programs call a command; only ever a suggestion
_OTHER_WORDS = {
    "predict": "detect",
    "infer": "detect",
    "val": "eval",
    "validate": "eval",
    "test": "eval",
    "fit": "train",
    "dataset": "data",
}
_EPILOG = """\b
Examples:
  detseg detect photos/                 boxes on every picture, written to runs/detect/
  detseg detect photos/ --save coco     the same as COCO JSON
  detseg segment photos/ -w street.onnx a class for every pixel
  detseg eval model.safetensors data/   all numbers on a labelled data set

Exit codes: 0 done, 1 failure, 2 usage, 3 bad data, 4 bad weights, 5 export differs, 6 some inputs failed and
were skipped, 130 interrupted."""


class LazyGroup(click.Group):
    """Commands by name; nothing is imported for a listing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order they are shown."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command's module."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"{__package__}.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with a suggestion for a mistyped name."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(f"there is no command '{name}'{_suggestion(name)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The listing, from the words above."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), [*COMMANDS, *_OTHER_WORDS], n=1, cutoff=0.5)
    return f"; did you mean '{_OTHER_WORDS.get(close[0], close[0])}'?" if close else "; see detseg --help"


@click.group(
    cls=LazyGroup,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, "-V", "--version", prog_name="detseg", message="%(prog)s %(version)s")
def group() -> None:
    """Object detection and segmentation from the command line: detect, segment, train, evaluate, export."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code; no failure of the world outside shows a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may hold what the terminal cannot show
    try:
        result = group.main(args=args, prog_name="detseg", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Abort:
        return _interrupted()
    except KeyboardInterrupt:
        return _interrupted()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        return _reader_left()
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        return _failed(error)
    return result if isinstance(result, int) else Exit.OK


def _failed(error: Exception) -> int:
    """Tells what went wrong, in one line, and gives the exit code."""
    if isinstance(error, DetsegError):
        _tell(f"error: {printable(str(error))}")
        return exit_for(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        _tell("error: out of memory; a smaller --batch or picture size needs less")
        return Exit.FAILURE
    words = " ".join(str(error).split())
    _tell(f"error: {type(error).__name__}: {words}")
    _tell(f"this is a defect of detseg; run again with {TRACEBACK_VARIABLE}=1 for the details")
    return Exit.FAILURE


def _interrupted() -> int:
    _tell("interrupted")
    return Exit.INTERRUPTED


def _reader_left() -> int:
    """The program that read our output has ended (`| head`): nothing to say, and nothing more to flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.FAILURE


def _tell(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    sys.exit(main())
