"""Public data sets by name: `datasets/NAME.yaml` says what a set is, where it comes from and how it is laid out.

Reading them needs no network; what fetches a set is `detseg.public_sets`. A name stands for the set's folder
everywhere a data set is asked for, see `place_of`.
"""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec
import yaml

from detseg.errors import DataError

DATA_VARIABLE = "DETSEG_DATA"
MARKER = ".detseg-set.json"  # in the folder of a set that was downloaded whole
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_HASH = re.compile(r"(md5:[0-9a-f]{32}|sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64})")


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A block of a descriptor: a mistyped key is an error."""


class Licence(_Strict, frozen=True):
    """`name` as its publishers call it; `means`, in plain words, what follows for the user.

    `restricted`: there are uses that it forbids (selling, passing the pictures on, ...).
    """

    name: str
    means: str
    restricted: bool
    url: str | None = None


class File(_Strict, frozen=True):
    """One archive. `urls` are tried in their order; where there are none it is got by hand from `page`.

    `hash` is "md5:...", "sha1:..." or "sha256:...", or None where no published one is known; `hash_from` tells
    whose word that is. `only` are patterns of what is unpacked; nothing means everything.
    """

    name: str
    hash: str | None
    hash_from: str
    urls: tuple[str, ...] = ()
    page: str | None = None
    size: int | None = None
    only: tuple[str, ...] = ()
    into: str = "."
    is_archive: bool = True

    @property
    def hashes(self) -> dict[str, str]:
        """Name of the algorithm -> hex digits."""
        return dict([self.hash.split(":", 1)]) if self.hash else {}


class Step(_Strict, frozen=True, tag_field="do"):
    """Something done to the unpacked files, so that detseg can read them. Paths are relative to the set's folder."""


class Move(Step, frozen=True, tag="move"):
    """A file or folder gets another place; a pattern: every match moves into the folder `to`. Folders merge.

    `drop` is taken from the end of each name, before its suffix.
    """

    source: str = msgspec.field(name="from")
    to: str
    drop: str = ""


class Write(Step, frozen=True, tag="write"):
    """A text file of these lines."""

    to: str
    lines: tuple[str, ...]


class Join(Step, frozen=True, tag="join"):
    """Text files one after the other."""

    source: tuple[str, ...] = msgspec.field(name="from")
    to: str


class Remove(Step, frozen=True, tag="remove"):
    """Files or folders that are of no use; patterns are allowed."""

    paths: tuple[str, ...]


class Deal(Step, frozen=True, tag="deal"):
    """Moves the files of one list: `{}` in a path is the first word of a line."""

    by: str
    moves: dict[str, str]


class Recode(Step, frozen=True, tag="recode"):
    """Other pixel values in mask files: `values` (old: new); every other becomes `others`, or stays where that is not
    given; at last `shift` is added, modulo 256.
    """

    masks: str
    values: dict[int, int] = {}
    others: int | None = None
    shift: int = 0


class MatLabels(Step, frozen=True, tag="mat-labels"):
    """MATLAB files of the Semantic Boundaries Dataset become PNG label maps."""

    source: str = msgspec.field(name="from")
    to: str


class IndexInstances(Step, frozen=True, tag="index-instances"):
    """Masks whose pixel values count the objects, from 1, become COCO JSON; `{}` in `masks` is a picture's stem."""

    pictures: str
    masks: str
    category: str
    to: str


class FileInstances(Step, frozen=True, tag="file-instances"):
    """One mask file an object becomes COCO JSON; `masks` is a pattern seen from a picture's folder."""

    pictures: str
    masks: str
    category: str
    to: str
    pictures_to: str


AnyStep = Move | Write | Join | Remove | Deal | Recode | MatLabels | IndexInstances | FileInstances


class Descriptor(_Strict, frozen=True):
    """What a public data set is. `name` is its file's; `pictures` counts them by split, "all" where there are none.

    `read_as` says how detseg reads the folder; `contents` are patterns with how many files match when all is
    there; `unpacked` is how many bytes it then takes, about; `by_hand` are steps that only a person can do.
    """

    title: str
    task: tuple[Literal["boxes", "instances", "label maps"], ...]
    classes: tuple[str, ...] | int
    pictures: dict[str, int]
    page: str
    licence: Licence
    citation: str
    read_as: str
    files: tuple[File, ...] = ()
    steps: tuple[AnyStep, ...] = ()
    contents: dict[str, int] = {}
    unpacked: int | None = None
    by_hand: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    name: str = ""

    @property
    def size(self) -> int | None:
        """Bytes to download; None where it is not known of every file, or there is none."""
        sizes = [file.size for file in self.files]
        return sum(s for s in sizes if s is not None) if sizes and None not in sizes else None

    @property
    def class_count(self) -> int:
        """How many classes there are."""
        return self.classes if isinstance(self.classes, int) else len(self.classes)


def folder() -> Path:
    """Where the descriptors lie: inside the installed package, or at the top of a checkout.

    Raises DataError when the installation lacks them.
    """
    package = Path(__file__).resolve().parent.parent
    for place in (package / "datasets", package.parent / "datasets"):
        if any(place.glob("*.yaml")):
            return place
    raise DataError(f"{package / 'datasets'}: no descriptors there; install detseg again")


def names() -> tuple[str, ...]:
    """The names of all public sets, sorted."""
    return tuple(sorted(path.stem for path in folder().glob("*.yaml")))


def read(name: str) -> Descriptor:
    """The descriptor of one set. Raises DataError, with a suggestion, when there is no set of this name."""
    known = names()
    if name not in known:
        near = get_close_matches(name.lower(), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
        raise DataError(f"{name}: no public data set of this name is known; {hint}")
    return read_file(folder() / f"{name}.yaml")


@cache
def read_file(path: Path) -> Descriptor:
    """A descriptor from its file, checked. Raises DataError naming the file and the place in it."""
    try:
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        content = yaml.load(path.read_bytes(), loader)
        descriptor = msgspec.convert(content, Descriptor)
        fault = _fault(descriptor, path.stem)
    except (OSError, yaml.YAMLError, msgspec.ValidationError, ValueError) as error:
        raise DataError(f"{path}: not a descriptor: {' '.join(str(error).split())}") from error
    if fault:
        raise DataError(f"{path}: not a descriptor: {fault}")
    return msgspec.structs.replace(descriptor, name=path.stem)


def data_folder(chosen: Path | None = None) -> Path:
    """The folder that holds downloaded sets: the chosen one, else DETSEG_DATA's, else the user's own data folder."""
    if chosen is not None:
        return chosen
    named = os.environ.get(DATA_VARIABLE)
    if named:
        return Path(named).expanduser()
    import platformdirs

    return platformdirs.user_data_path("detseg", appauthor=False) / "datasets"


def place_of(data: str | Path) -> Path:
    """The path of a data set from its path, or from the name of a public set that was downloaded.

    What exists as a path is that path, always. Raises DataError for a public set that is not there yet.
    """
    path, name = Path(data), str(data)
    # asked in this order, a path costs no look at the descriptors
    if path.exists() or not _NAME.fullmatch(name) or name not in names():
        return path
    place = data_folder() / name
    if place.is_dir():
        return place
    raise DataError(f"{name}: no such file or folder; it is a public data set that is not in {data_folder()} yet: "
                    f"detseg data download {name}")  # fmt: skip


def _fault(descriptor: Descriptor, name: str) -> str | None:
    """What is wrong beyond the types, in words."""
    if not _NAME.fullmatch(name):
        return f"{name!r} is no name: small letters, digits and dashes"
    if not descriptor.files and not descriptor.by_hand:
        return "neither files nor steps by hand"
    for file in descriptor.files:
        if file.hash is not None and not _HASH.fullmatch(file.hash):
            return f"{file.name}: {file.hash!r} is no hash such as sha256:..."
        if not file.urls and not file.page:
            return f"{file.name}: neither urls nor a page to get it from"
        if not all(url.startswith(("https://", "http://")) for url in file.urls):
            return f"{file.name}: an address is neither http nor https"
        if file.name != PurePosixPath(file.name).name:
            return f"{file.name!r} is not the name of a file"
    inside = [*(f.into for f in descriptor.files), *descriptor.contents]
    inside += [path for step in descriptor.steps for path in _paths(step)]
    outside = next((p for p in inside if p.startswith("/") or ".." in PurePosixPath(p).parts), None)
    return f"{outside!r} leads out of the set's folder" if outside else None


def _paths(step: AnyStep) -> list[str]:
    """Every path that a step names, `masks` of single files excepted: they are seen from a picture."""
    match step:
        case Remove():
            return list(step.paths)
        case Join():
            return [*step.source, step.to]
        case Deal():
            return [step.by, *step.moves, *step.moves.values()]
        case Recode():
            return [step.masks]
        case IndexInstances():
            return [step.pictures, step.masks, step.to]
        case FileInstances():
            return [step.pictures, step.pictures_to, step.to]
        case Write():
            return [step.to]
        case Move() | MatLabels():
            return [step.source, step.to]
