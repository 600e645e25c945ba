"""The weights that come with detseg, by name: `manifest.json` and the files beside it; and those pulled. Torch-free."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from detseg.checkpoints.header import expect_file
from detseg.errors import WeightsError

MANIFEST = "manifest.json"
WEIGHTS_VARIABLE = "DETSEG_WEIGHTS"  # of the environment: the folder of pulled weights
KINDS = ("onnx", "safetensors")  # the first is the faster one on a CPU


@dataclass(frozen=True)
class WeightFile:
    """One file of an entry: where it lies, what it must hash to, how long it is."""

    path: Path
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Entry:
    """Weights with a name: the same model as one file per kind ("onnx", "safetensors")."""

    name: str
    task: str
    summary: str
    default: bool
    files: dict[str, WeightFile]


def folder() -> Path:
    """Where the weights lie: inside the installed package, or at the top of a checkout.

    Raises WeightsError when the installation lacks them.
    """
    package = Path(__file__).resolve().parent.parent
    for place in (package / "weights", package.parent / "weights"):
        if (place / MANIFEST).is_file():
            return place
    raise WeightsError(f"{package / 'weights' / MANIFEST}: not there; install detseg again")


def entries() -> tuple[Entry, ...]:
    """All weights of the manifest, in its order."""
    place = folder()
    try:
        listed = json.loads((place / MANIFEST).read_bytes())["weights"]
        return tuple(_entry(block, place) for block in listed)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{place / MANIFEST}: damaged ({error}); install detseg again") from error


def default_weights(task: str = "detect", kind: str = "onnx") -> Path:
    """The file that is used when none is named. Raises WeightsError when there is none."""
    for entry in entries():
        if entry.default and entry.task == task and kind in entry.files:
            return _present(entry.files[kind].path)
    raise WeightsError(f"no default {kind} weights for '{task}' come with this detseg; name a file with --weights")


def pulled_folder() -> Path:
    """Where others' weights lie that were made checkpoints and have names: DETSEG_WEIGHTS, or the user's own folder."""
    named = os.environ.get(WEIGHTS_VARIABLE)
    if named:
        return Path(named).expanduser()
    import platformdirs

    return platformdirs.user_data_path("detseg", appauthor=False) / "weights"


def resolve(name_or_path: str | Path, kind: str | None = None) -> Path:
    """A weight file from its path, a name of the manifest or of pulled weights, or of one of the manifest's files.

    `kind` chooses between the files of a name; left out, the faster on a CPU. Raises WeightsError, with a
    suggestion, when there is no such file.
    """
    path, name = Path(name_or_path), str(name_or_path)
    if path.is_file():
        return path
    known: dict[str, Path] = {}
    for entry in entries():
        known |= {file.path.name: file.path for file in entry.files.values()}
        chosen = next((k for k in ([kind] if kind else KINDS) if k in entry.files), None)
        if chosen:
            known[entry.name] = entry.files[chosen].path
    if name in known:
        return _present(known[name])
    if path.parent == Path() and not path.exists():
        pulled = {file.stem: file for file in sorted(pulled_folder().glob("*.safetensors"))}
        if name in pulled:
            return pulled[name]
        known |= pulled
    if path.parent == Path() and not path.exists():
        near = get_close_matches(name, known, n=1)
        if near or not path.suffix:
            hint = f"did you mean {near[0]}?" if near else "see: detseg weights list"
            raise WeightsError(f"{name}: no such file, and no weights of this name come with detseg; {hint}")
    expect_file(path)
    return path


def verify(entry: Entry) -> None:
    """Raises WeightsError naming the first file of `entry` that is missing or not as it was published."""
    for file in entry.files.values():
        with _present(file.path).open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != file.sha256:
            raise WeightsError(
                f"{file.path}: damaged or changed: sha256 {digest}, published {file.sha256}; install detseg again"
            )


def _entry(block: dict[str, Any], place: Path) -> Entry:
    files = {
        kind: WeightFile(place / Path(file["file"]).name, str(file["sha256"]), int(file["bytes"]))
        for kind, file in block["files"].items()
    }
    return Entry(block["name"], block["task"], block["summary"], bool(block.get("default")), files)


def _present(path: Path) -> Path:
    if not path.is_file():
        raise WeightsError(f"{path}: listed in {MANIFEST}, but not there; install detseg again")
    return path
