"""`detseg data show`: pictures of a data set with their truth, to look at."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import data_arguments, options
from .exits import Exit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from detseg.annotations import AnnotationSet, Categories
    from detseg.annotations.semantic import SemanticSet
    from detseg.writers.truth_scene import Scene

_EPILOG = """\b
Examples:
  detseg data show shapes/
  detseg data show VOC2012/ --class cat --split val --count 60
  detseg data show camvid/ --out look/

Written are truth.html, one file that needs nothing else, and truth.jpg, a contact sheet."""

_SIDE = 512  # pixels: the longer side of an embedded picture


@click.command(cls=options.Command, epilog=_EPILOG)
@data_arguments.data()
@data_arguments.split()
@click.option("--class", "label", help="Only pictures with this class.")
@click.option("--count", type=click.IntRange(1, 500), default=24, show_default=True, help="How many pictures.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Other pictures.")
@click.option("--maps", is_flag=True, help="Label maps, where a data set has objects too.")
@options.run_folder("show")
@options.json_output("Print what was written as JSON on stdout.")
@options.quiet
def command(
    data: Path,
    split: str | None,
    label: str | None,
    count: int,
    seed: int,
    maps: bool,
    out: Path | None,
    project: Path,
    name: str | None,
    exist_ok: bool,
    as_json: bool,
    quiet: bool,
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

    shown = _load(data, split, maps)
    has = _classes(shown)
    wanted = None if label is None else _class_index(label, shown.categories)
    chosen = _choose(has, wanted, count, seed)
    scenes, failed = _scenes(shown, chosen, quiet)
    folder = choose(out, project, name, reuse=exist_ok)
    how = f"with the class {label}, by chance" if label is not None else "by chance, rare classes first"
    about = About(str(data), split, len(shown), f"chosen {how}", failed)
    page, sheet = folder / "truth.html", folder / "truth.jpg"
    files.write_text(page, truth_page(scenes, shown.categories, about))
    write_picture(sheet, contact_sheet(scenes, shown.categories))
    _tell(page, sheet, scenes, failed, as_json, quiet)
    return Exit.SOME_FAILED if failed else Exit.OK


def _load(data: Path, split: str | None, maps: bool) -> AnnotationSet | SemanticSet:
    from detseg.annotations import load, load_label_maps
    from detseg.errors import DataError

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
    from detseg.errors import DataError

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
    from detseg.errors import DataError

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


def _scenes(shown: AnnotationSet | SemanticSet, chosen: list[int], quiet: bool) -> tuple[list[Scene], list[str]]:
    """The pictures that can be shown, and what is wrong with the others."""
    from detseg.annotations import AnnotationSet
    from detseg.errors import DataError, ImageError
    from detseg.writers.truth_scene import scene_of_map, scene_of_objects

    from .progress import track

    scenes, failed = [], []
    for i in track(chosen, "drawing", quiet=quiet):
        try:
            scenes.append(
                scene_of_objects(shown, i, _SIDE) if isinstance(shown, AnnotationSet) else scene_of_map(shown, i, _SIDE)
            )
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
