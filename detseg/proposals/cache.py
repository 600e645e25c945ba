"""Proposals on disk, found again by what is in the picture file and by how they were made.

One file a picture: FOLDER/SETTINGS/PICTURE.npz, both names hashes. So a picture that was renamed or copied is found,
one that was edited is not, and other settings have files of their own. A file that is cut short, damaged or of another
format counts as missing and is made anew; processes that write the same one do each other no harm.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detseg import files
from detseg.errors import DetsegError
from detseg.proposals.contract import Proposals

_FORMAT = "proposals 1"  # another number where the same settings come to give other boxes


def default_folder() -> Path:
    """Where the user's system keeps caches; it may be deleted at any time."""
    import platformdirs

    return platformdirs.user_cache_path("detseg", appauthor=False) / "proposals"


@dataclass(frozen=True)
class ProposalCache:
    """The cache in a folder (the default: the user's own), which need not exist yet."""

    folder: Path = field(default_factory=default_folder)

    def place(self, content: bytes, settings: object) -> Path:
        """The file for a picture file of this content; `settings` is told apart by its `repr`."""
        made_by = hashlib.sha256(f"{_FORMAT} {settings!r}".encode()).hexdigest()[:16]
        return self.folder / made_by / f"{hashlib.sha256(content).hexdigest()[:40]}.npz"

    def get(self, place: Path) -> Proposals | None:
        """What was put there; None where nothing usable is."""
        try:
            with np.load(place, allow_pickle=False) as arrays:
                return Proposals(arrays["boxes"], arrays["scores"])
        except (
            OSError,
            ValueError,
            KeyError,
            EOFError,
            TypeError,
            zipfile.BadZipFile,
            zlib.error,
            NotImplementedError,
        ):
            return None

    def put(self, place: Path, proposals: Proposals) -> None:
        """Raises DetsegError, naming the folder, where it cannot be written."""
        try:
            with files.replacing(place) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, boxes=proposals.boxes, scores=proposals.scores)
        except DetsegError as error:
            cause = str(error).split(": cannot be written: ")[-1].split(";")[0]
            raise DetsegError(
                f"{self.folder}: the cache of proposals cannot be written: {cause}; choose another folder with "
                "--cache, or none with --no-cache"
            ) from error
