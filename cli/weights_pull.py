"""`detseg weights pull`: weights that torchvision publishes, downloaded, checked and made a checkpoint."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options
from .weights_import import tell_torchvision

if TYPE_CHECKING:
    from detseg.checkpoints.torchvision_files import Published

_EPILOG = """\b
Examples:
  detseg weights pull                                        which weights there are
  detseg weights pull fasterrcnn_resnet50_fpn-coco           get them; then:
  detseg detect photos/ -w fasterrcnn_resnet50_fpn-coco

An interrupted download goes on where it stopped. The file is kept where torch keeps its own, so that it is fetched
once; DETSEG_WEIGHTS names another folder for the checkpoints. The weights are torchvision's (BSD-3-Clause), trained on
COCO, whose pictures have terms of their own."""


@click.command(cls=options.Command, epilog=_EPILOG, short_help="Get weights that torchvision publishes.")
@click.argument("name", required=False)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="File or folder to write to.  [default: the folder whose weights have names]",
)
@options.json_output()
@options.quiet
def command(name: str | None, out: Path | None, as_json: bool, quiet: bool) -> None:
    """Get the weights NAME that torchvision publishes, as a checkpoint of detseg; without NAME, list them."""
    from detseg.checkpoints.torchvision_files import published

    known = published()
    if name is None:
        _list(known, as_json)
        return
    chosen = _chosen(name, known)
    target = _target(chosen, out)
    from detseg.checkpoints import save
    from detseg.checkpoints.torchvision_files import import_file

    source = _fetched(chosen, quiet)
    imported = import_file(source, builder=chosen.builder)
    save(target, imported.card, imported.state)
    tell_torchvision(imported, target, as_json)
    if out is None and not quiet:
        click.echo(f"use it by its name: detseg {chosen.task} photos/ -w {chosen.name}", err=True)


def _chosen(name: str, known: dict[str, Published]) -> Published:
    from detseg.errors import WeightsError

    by_builder = {published.builder: published for published in known.values()}
    found = known.get(name) or by_builder.get(name)
    if found is None:
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "see: detseg weights pull"
        raise WeightsError(f"{name}: torchvision publishes no weights of this name that detseg can use; {hint}")
    return found


def _target(chosen: Published, out: Path | None) -> Path:
    from detseg.checkpoints import zoo

    file = f"{chosen.name}.safetensors"
    if out is None:
        return zoo.pulled_folder() / file
    return out / file if out.is_dir() else out


def _fetched(chosen: Published, quiet: bool) -> Path:
    from detseg.backbones.pretrained import fetch
    from detseg.errors import WeightsError

    from .progress import Progress

    with Progress(chosen.name, unit="MB", quiet=quiet) as bar:

        def report(done: int, total: int | None) -> None:
            bar.total = None if total is None else total // 1_000_000
            bar.advance(done // 1_000_000 - bar.done)

        try:
            return fetch(chosen.url, progress=report)
        except WeightsError as error:
            raise WeightsError(f"{error}; then: detseg weights pull {chosen.name}") from error


def _list(known: dict[str, Published], as_json: bool) -> None:
    from detseg.checkpoints import zoo

    here = {name: zoo.pulled_folder() / f"{name}.safetensors" for name in known}
    if as_json:
        rows = [
            {
                "name": one.name,
                "torchvision": one.builder,
                "parameters": one.parameters,
                "megabytes": one.megabytes,
                "coco_box_ap": one.box_map,
                "coco_mask_ap": one.mask_map,
                "voc_classes_miou": one.miou,
                "file": str(here[name]) if here[name].is_file() else None,
            }
            for name, one in known.items()
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    from .tables import table

    told = [
        [
            one.name,
            f"{one.parameters / 1e6:.1f} M",
            f"{one.megabytes:.0f} MB",
            _score(one.box_map),
            _score(one.mask_map),
            _score(one.miou),
            "yes" if here[name].is_file() else "",
        ]
        for name, one in known.items()
    ]
    click.echo(
        table(["name", "parameters", "download", "box AP", "mask AP", "mean IoU", "here"], told, right=(1, 2, 3, 4, 5))
    )
    click.echo("AP and IoU on COCO val2017 as torchvision tells them; 'here': it can be used by its name", err=True)


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
