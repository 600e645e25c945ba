"""The journal of a run: one JSON line per finished picture, so that an interrupted run can go on.

It holds what was found, not only the names: outputs that gather all pictures (CSV, COCO JSON) are written
anew on `--resume`, from the journal and from the pictures that were still to be done. Lines are only ever
appended; a last line cut short by a crash is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.errors import DetsegError
from detseg.geometry import rle as run_lengths
from detseg.images import ImageFile
from detseg.results import Detections, LabelMap, Masks

FILE_NAME = ".detseg-run.jsonl"


class Journal:
    """What is finished in the run that writes to `folder`.

    `settings` (plain JSON values) decide what comes out: weights, thresholds, formats. A run goes on only
    with those it began with. Without `resume` an older journal is replaced. Raises DetsegError: other
    settings, a journal that cannot be read, a full disk.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self.path = folder / FILE_NAME
        self._offsets: dict[int, int] = {}  # of the line of each finished picture, by its key
        self._end = 0
        try:
            goes_on = resume and self.path.exists()
            self._file = self.path.open("r+b" if goes_on else "wb", buffering=0)
            if goes_on:
                self._read(settings)
                self._file.truncate(self._end)
        except (OSError, ValueError, KeyError) as error:
            raise self._failure(error) from error
        if self._end == 0:
            self._append({"settings": dict(settings)})

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, picture: ImageFile) -> bool:
        return _key(str(picture.name), str(picture.path)) in self._offsets

    def found(self, picture: ImageFile) -> Detections | LabelMap:
        """What was found in a finished picture."""
        with self.path.open("rb") as lines:
            lines.seek(self._offsets[_key(str(picture.name), str(picture.path))])
            row = json.loads(lines.readline())
        height, width = row["hw"]
        if "classes" in row:
            return LabelMap(_drawn((height, width), row["classes"]), picture.path)
        return Detections(
            (height, width),
            np.array(row["boxes"], np.float32).reshape(-1, 4),
            np.array(row["scores"], np.float32),
            np.array(row["labels"], np.int64),
            picture.path,
            Masks((height, width), tuple(text.encode() for text in row["masks"])) if "masks" in row else None,
        )

    def add(self, picture: ImageFile, found: Detections | LabelMap) -> None:
        """Notes that the picture is finished: all its own files are written."""
        offset, name, path = self._end, str(picture.name), str(picture.path)
        row = {"name": name, "path": path, "hw": [int(side) for side in found.image_hw]}
        self._append(row | (_columns(found) if isinstance(found, Detections) else {"classes": _runs(found)}))
        self._offsets[_key(name, path)] = offset

    def close(self) -> None:
        """Nothing more will be added."""
        self._file.close()

    def _append(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        try:
            self._file.seek(self._end)
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise self._failure(error) from error
        self._end += len(line)

    def _read(self, settings: Mapping[str, Any]) -> None:
        """Finds the finished pictures; `_end` becomes the end of the last whole line."""
        with self.path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    return
                row = json.loads(line)
                if self._end == 0:
                    self._check(row["settings"], json.loads(json.dumps(dict(settings))))
                else:
                    self._offsets[_key(row["name"], row["path"])] = self._end
                self._end += len(line)

    def _check(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """Raises DetsegError unless the settings are the same."""
        differ = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if differ:
            told = "; ".join(f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in differ)
            raise DetsegError(
                f"{self.path.parent}: this run cannot go on with other settings ({told}); "
                "give the same ones, or choose another folder"
            )

    def _failure(self, error: Exception) -> DetsegError:
        if isinstance(error, OSError):
            return DetsegError(f"{self.path}: cannot be written: {error.strerror}; make room or choose another --out")
        return DetsegError(f"{self.path}: is not a journal of detseg; choose another folder, or leave out --resume")


def _columns(found: Detections) -> dict[str, Any]:
    columns = {"boxes": found.boxes.tolist(), "scores": found.scores.tolist(), "labels": found.labels.tolist()}
    if found.masks is not None:
        columns["masks"] = [text.decode("ascii") for text in found.masks.counts]
    return columns


def _runs(found: LabelMap) -> dict[str, str]:
    """Class index -> where it is, as run lengths."""
    return {str(label): found.mask(label)["counts"].decode("ascii") for label in np.unique(found.labels).tolist()}


def _drawn(hw: tuple[int, int], classes: Mapping[str, str]) -> NDArray[np.uint8]:
    labels = np.zeros(hw, np.uint8)
    for label, text in classes.items():
        labels[run_lengths.decode({"size": [*hw], "counts": text.encode("ascii")})] = int(label)
    return labels


def _key(name: str, path: str) -> int:
    """A number for a picture: millions of them take a fraction of the memory of their names."""
    return hash((name, path))
