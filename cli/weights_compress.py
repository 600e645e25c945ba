"""`detseg weights compress`: the head of a Fast R-CNN in fewer numbers, by truncated SVD."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from detseg.errors import DetsegError, WeightsError

from . import options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_EPILOG = """\b
Example:
  detseg weights compress runs/train/exp/weights/best.safetensors --ranks 64,32 -o fast.safetensors

Each fully connected layer of the head becomes two of this rank, the nearest there are (Fast R-CNN, section 3.1). With
many proposals most of the time is spent there. What it costs in AP is told by: detseg eval FILE DATA. Training may go
on from the file: detseg train DATA -w FILE."""


class _Ranks(click.ParamType):
    name = "ranks"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """`64,32` -> (64, 32)."""
        parts = value.split(",")
        if not all(part.strip().isdecimal() for part in parts):
            self.fail(f"'{value}' is not whole numbers with commas between them, such as 64,32", param, ctx)
        return tuple(int(part) for part in parts)


@click.command(cls=options.Command, epilog=_EPILOG, short_help="Make the head of a Fast R-CNN smaller.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--ranks", type=_Ranks(), required=True, help="Of each fully connected layer of the head: 64,32.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="File to write.  [default: FILE-svd.safetensors]")
@options.json_output()
def command(file: Path, ranks: tuple[int, ...], out: Path | None, as_json: bool) -> None:
    """Write the Fast R-CNN of FILE with a smaller and faster head."""
    from dataclasses import replace

    from detseg import catalog, checkpoints
    from detseg.checkpoints import zoo
    from detseg.detectors import fast_rcnn

    source = zoo.resolve(file, "safetensors")
    card, state = checkpoints.load(source)
    if card.model not in catalog.CATALOG or catalog.entry(card.model).module != "fast_rcnn":
        raise WeightsError(f"{source}: {card.model} has no head of proposals to compress; that is for Fast R-CNN")
    config = fast_rcnn.config_from_json({**card.config, "num_classes": len(card.categories)})
    try:
        smaller, tensors = fast_rcnn.compressed(config, state, ranks)
    except DetsegError as error:
        raise DetsegError(f"{source}: {error}") from error
    target = out or source.with_name(f"{source.stem}-svd.safetensors")
    checkpoints.save(target, replace(card, config=fast_rcnn.config_to_json(smaller)), tensors)
    before, after = _numbers(state), _numbers(tensors)
    if as_json:
        click.echo(json.dumps({"file": str(target), "head_before": before, "head_after": after}, indent=2))
        return
    click.echo(str(target))
    layers = " and ".join(f"{rows}x{columns}" for rows, columns in _shapes(state))
    click.echo(f"layers of {layers}, now of ranks {', '.join(map(str, ranks))}: {before:,} numbers became {after:,}",
               err=True)  # fmt: skip


def _shapes(state: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    """Rows and columns of the head's matrices."""
    matrices = [tensor for name, tensor in state.items() if name.startswith("head.fcs.") and tensor.ndim == 2]
    return [(matrix.shape[0], matrix.shape[1]) for matrix in matrices]


def _numbers(state: Mapping[str, Tensor]) -> int:
    """How many numbers these matrices hold."""
    return sum(rows * columns for rows, columns in _shapes(state))
