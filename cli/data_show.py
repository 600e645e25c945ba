"""`detseg data show`: pictures of a data set with their truth, to look at."""

from __future__ import annotations

import json
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detseg.errors import DataError

from . import data_arguments, options, train
from .exits import Exit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from detseg.annotations import AnnotationSet, Categories
    from detseg.annotations.semantic import SemanticSet
    from detseg.training.data import FrameSet
    from detseg.writers.truth_scene import Scene

_EPILOG = """\b
Examples:
  detseg data show shapes/
  detseg data show VOC2012/ --class cat --split val --count 60
  detseg data show camvid/ --out look/
  detseg data show shapes/ --augment strong --imgsz 416
  detseg data show shapes/ --config runs/train/exp/config.yaml --epoch 3

With --augment, --config or another setting of training, what is shown are the frames that `detseg train` would make
with the same settings and seed, of the pictures that it would learn from.

Written are truth.html, one file that needs nothing else, and truth.jpg, a contact sheet."""

_SIDE = 512  # pixels: the longer side of an embedded picture


@click.command(cls=options.Command, epilog=_EPILOG)
@data_arguments.data()
@data_arguments.split()
@click.option("--class", "label", help="Only pictures with this class.")
@click.option("--count", type=click.IntRange(1, 500), default=24, show_default=True, help="How many pictures.")
@click.option("--seed", type=click.IntRange(0), default=None, help="Other pictures, other frames.  [default: 0]")
@click.option("--maps", is_flag=True, help="Label maps, where a data set has objects too.")
@train.of_pictures
@click.option(
    "--imgsz",
    cls=options.Option,
    aliases=("--img", "--img-size"),
    type=click.IntRange(32),
    default=None,
    help="Frame side.  [default: the model's]",
)
@click.option("-m", "--model", default=None, help="Model whose usual settings count.  [default: yolo]")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="config.yaml of a run, its settings.")
@click.option("--epoch", type=click.IntRange(1), default=None, help="Frames of this epoch of training.  [default: 1]")
@options.run_folder("show")
@options.json_output("Print what was written as JSON on stdout.")
@options.quiet
def command(
    data: Path,
    split: str | None,
    label: str | None,
    count: int,
    seed: int | None,
    maps: bool,
    out: Path | None,
    project: Path,
    name: str | None,
    exist_ok: bool,
    as_json: bool,
    quiet: bool,
    config_file: Path | None,
    epoch: int | None,
    **given: Any,
) -> Exit:
    """Pictures of a data set with their boxes, outlines and label maps, as a page and as a contact sheet.

    Pictures are drawn by chance, first one of every class, the rare ones before others. On the page those of one
    class can be chosen; ignored objects (crowd, difficult) are dashed.
    """
    from detseg import files
    from detseg.reports.truth import About, truth_page
    from detseg.writers.contact_sheet import contact_sheet
    from detseg.writers.picture_file import write_picture

    from .run_folder import choose

    settings = {key: value for key, value in given.items() if value is not None}
    frames = _frames(data, split, maps, seed, config_file, settings) if settings or config_file or epoch else None
    shown = _load(data, split, maps) if frames is None else frames.truth
    has = _classes(shown)
    wanted = None if label is None else _class_index(label, shown.categories)
    chosen = _choose(has, wanted, count, seed or 0)
    if frames is None:
        scenes, failed = _scenes(lambda i: _scene(shown, i), chosen, quiet)
    else:
        scenes, failed = _scenes(_of_frames(frames, (epoch or 1) - 1), chosen, quiet)
    folder = choose(out, project, name, reuse=exist_ok)
    how = f"with the class {label}, by chance" if label is not None else "by chance, rare classes first"
    if frames is not None:
        told = [f"{name.replace('_', '-')} {value}" for name, value in settings.items()]
        told = [f"the settings of {config_file}", *told] if config_file else told
        how = "; ".join([f"{how}: frames of epoch {epoch or 1} of training {frames.config.model}", *told])
    about = About(str(data), split, len(shown), f"chosen {how}", failed)
    page, sheet = folder / "truth.html", folder / "truth.jpg"
    files.write_text(page, truth_page(scenes, shown.categories, about))
    write_picture(sheet, contact_sheet(scenes, shown.categories))
    _tell(page, sheet, scenes, failed, as_json, quiet)
    return Exit.SOME_FAILED if failed else Exit.OK


def _frames(
    data: Path, split: str | None, maps: bool, seed: int | None, config_file: Path | None, settings: dict[str, Any]
) -> FrameSet[Any]:
    """The training frames of these settings. Raises DetsegError for settings, and DataError for data."""
    from detseg import catalog
    from detseg.errors import DetsegError
    from detseg.training import preview
    from detseg.training.config import TrainConfig

    values = {**settings, "data": str(data)} | ({"split": split} if split else {})
    values |= {} if seed is None else {"seed": seed}
    if maps and "model" not in values and config_file is None:
        values["model"] = "fcn"  # of those that learn from label maps the first: its settings are the usual ones
    config = TrainConfig.load(config_file, **values) if config_file else TrainConfig.checked(values, "options")
    if maps and catalog.entry(config.model).task != "segment":
        raise DetsegError(f"{config.model} learns from objects; leave --maps out, or name a segmenter with --model")
    return preview.frame_set(config)


def _of_frames(frames: FrameSet[Any], epoch: int) -> Callable[[int], Scene]:
    """What shows the frame of a picture."""
    from detseg.training import preview

    orders = preview.tickets(frames, epoch)

    def scene(index: int) -> Scene:
        if index not in orders:
            raise DataError(f"{frames.truth.image_files[index]}: has no place in the batches of this epoch")
        sample, files, errors = frames[orders[index]]
        if sample is None:
            raise errors[0]
        return preview.scene(frames, sample, files, _SIDE)

    return scene


def _load(data: Path, split: str | None, maps: bool) -> AnnotationSet | SemanticSet:
    from detseg.annotations import load, load_label_maps

    if maps:
        return load_label_maps(data, split)
    try:
        return load(data, split)
    except DataError as error:
        try:  # a mask folder has no objects
            return load_label_maps(data, split)
        except DataError:
            raise error from None


def _classes(shown: AnnotationSet | SemanticSet) -> NDArray[np.bool_]:
    """(N, K) is the class in the picture? Label maps are read for it."""
    import numpy as np

    from detseg.annotations import AnnotationSet

    has = np.zeros((len(shown), len(shown.categories)), np.bool_)
    if isinstance(shown, AnnotationSet):
        has[shown.image_index, shown.labels] = True
        return has
    for i in range(len(shown)):
        try:
            values = np.unique(shown.label_map(i))
        except DataError:
            continue  # told when it is shown
        has[i, values[values < has.shape[1]]] = True
    return has


def _class_index(label: str, categories: Categories) -> int:
    by_case = {name.casefold(): index for index, name in enumerate(categories.names)}
    index = categories.index_of_name.get(label, by_case.get(label.casefold()))
    if index is None:
        near = get_close_matches(label, categories.names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(categories.names[:20])}"
        raise DataError(f"there is no class {label!r}; {hint}")
    return index


def _choose(has: NDArray[np.bool_], wanted: int | None, count: int, seed: int) -> list[int]:
    """Pictures in their order, drawn by chance: first one of each class, rare ones first, then any."""
    import numpy as np

    rng = np.random.default_rng(seed)
    order = rng.permutation(np.arange(len(has)) if wanted is None else np.flatnonzero(has[:, wanted]))
    if wanted is not None and not len(order):
        return []
    chosen: list[int] = []
    for label in np.argsort(has.sum(axis=0), kind="stable").tolist() if wanted is None else []:
        here = order[has[order, label]]
        if len(here) and len(chosen) < count and not has[chosen, label].any():
            chosen.append(int(here[0]))
    seen = set(chosen)
    chosen += [i for i in order.tolist() if i not in seen][: count - len(chosen)]
    return sorted(chosen)


def _scene(shown: AnnotationSet | SemanticSet, index: int) -> Scene:
    from detseg.annotations import AnnotationSet
    from detseg.writers.truth_scene import scene_of_map, scene_of_objects

    if isinstance(shown, AnnotationSet):
        return scene_of_objects(shown, index, _SIDE)
    return scene_of_map(shown, index, _SIDE)


def _scenes(show: Callable[[int], Scene], chosen: list[int], quiet: bool) -> tuple[list[Scene], list[str]]:
    """The pictures that can be shown, and what is wrong with the others."""
    from detseg.errors import ImageError

    from .progress import track

    scenes, failed = [], []
    for i in track(chosen, "drawing", quiet=quiet):
        try:
            scenes.append(show(i))
        except (ImageError, DataError) as error:
            failed.append(str(error))
    if not scenes:
        raise DataError(failed[0] if failed else "there is no picture to show: no object of this class")
    return scenes, failed


def _tell(page: Path, sheet: Path, scenes: list[Scene], failed: list[str], as_json: bool, quiet: bool) -> None:
    from .tables import printable

    if as_json:
        told: dict[str, Any] = {"page": str(page), "sheet": str(sheet)}
        click.echo(json.dumps({**told, "pictures": [s.name for s in scenes], "failed": failed}, indent=2))
        return
    for line in failed:
        click.echo(f"not shown: {printable(line)}", err=True)
    click.echo(printable(page))
    click.echo(printable(sheet))
